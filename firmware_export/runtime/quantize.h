#ifndef NN_QUANTIZE_H
#define NN_QUANTIZE_H

#include <stdint.h>

/* multiplier, shift: scale of the input over scale of the output.
 * flip: 0x80 where the bytes are uint8; an uint8 value with its highest bit inverted is the int8 value 128 below it, and
 * both zero points are those of int8.
 */
typedef struct {
    uint32_t size; /* elements */
    int32_t multiplier;
    int8_t shift;
    int16_t input_zero_point;
    int16_t output_zero_point;
    uint8_t input_flip;
    uint8_t output_flip;
} nn_quantize_params;

typedef struct {
    uint32_t size; /* elements */
    float scale;   /* of the output; for nn_quantize_float_even one over it */
    int16_t output_zero_point;
    uint8_t output_flip;
} nn_quantize_float_params;

/* input, output: int8 or uint8 [size]; the same place or apart. */
void nn_quantize(const nn_quantize_params *params, const void *input, void *output);

/* input: float32 [size], NaN gives the zero point. output: int8 or uint8 [size]. */
void nn_quantize_float(const nn_quantize_float_params *params, const void *input, void *output);

/* The same by multiplication, halves to even: XNNPACK's rule, for networks in the arithmetic float32. */
void nn_quantize_float_even(const nn_quantize_float_params *params, const void *input, void *output);

#endif
