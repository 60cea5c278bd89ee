/* The contract between generated code, runtime and firmware: result codes, descriptors, version. C99, no malloc, no stdio. */
#ifndef NN_H
#define NN_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Generated code says for which version it was made and does not compile with another one. */
#define NN_RUNTIME_VERSION 1

#define NN_MAX_RANK 6u
#define NN_HASH_BYTES 32u
/* The activation buffer starts at a multiple of this. */
#define NN_ALIGNMENT 16u

typedef enum {
    NN_OK = 0,
    NN_ERROR_NULL = 1,      /* the activation buffer is NULL */
    NN_ERROR_ALIGNMENT = 2, /* the activation buffer does not start at a multiple of NN_ALIGNMENT */
    NN_ERROR_SELFTEST = 3   /* a known answer came out different */
} nn_status;

typedef enum { NN_INT8 = 0, NN_UINT8 = 1, NN_INT16 = 2, NN_INT32 = 3, NN_FLOAT32 = 4, NN_BOOL = 5, NN_INT64 = 6 } nn_type;

/* How accumulators become int8 again; the host refuses to compare answers of two different ones. */
typedef enum {
    NN_ARITHMETIC_DOUBLE = 0, /* gemmlowp double rounding: TFLite Micro, CMSIS-NN */
    NN_ARITHMETIC_FLOAT32 = 1 /* round half to even of float32: LiteRT's default, onnxruntime QLinearConv, X-CUBE-AI */
} nn_arithmetic;

/* One tensor in the activation buffer. real = scale * (stored - zero_point); scale 0 means not quantized. */
typedef struct {
    uint32_t offset; /* bytes from the start of the activation buffer */
    uint32_t size;   /* bytes */
    float scale;
    int32_t zero_point;
    uint8_t type; /* nn_type */
    uint8_t rank;
    uint16_t shape[NN_MAX_RANK];
} nn_tensor;

/* Called after each layer, and once per output of it, while the bytes are still there. */
typedef void (*nn_observer)(void *context, uint32_t layer, uint32_t output, const void *data, uint32_t size);

/* Everything the server needs to know of a generated network. */
typedef struct {
    const char *name;
    uint8_t hash[NN_HASH_BYTES]; /* of the graph: a wrong model cannot be measured by accident */
    uint8_t arithmetic;          /* nn_arithmetic */
    uint8_t input_count;
    uint8_t output_count;
    uint16_t layer_count;
    uint32_t activations_size; /* bytes the caller provides, scratch included */
    const nn_tensor *inputs;
    const nn_tensor *outputs;
    nn_status (*run)(void *activations);
    nn_status (*trace)(void *activations, nn_observer observer, void *context);
    nn_status (*selftest)(void *activations);
} nn_network;

#ifdef __cplusplus
}
#endif

#endif
