#ifndef NN_DEQUANTIZE_H
#define NN_DEQUANTIZE_H

#include <stdint.h>

/* flip: 0x80 where the bytes are uint8; the zero point is that of int8 (see quantize.h). */
typedef struct {
    uint32_t size; /* elements */
    float scale;
    int16_t zero_point;
    uint8_t flip;
} nn_dequantize_params;

/* input: int8 or uint8 [size]. output: float32 [size]. */
void nn_dequantize(const nn_dequantize_params *params, const void *input, void *output);

#endif
