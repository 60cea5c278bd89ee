#ifndef NN_ADD_LINEAR_H
#define NN_ADD_LINEAR_H

#include <stdint.h>

/* sum = start + (factor_0 * input_0 >> 8) + (factor_1 * input_1 >> 8), and output = sum >> 20, saturated to int8.
 * Signed: (sum - (uint32_t)sum / 2^28 + rounding) >> 20, which pushes negative sums away from zero.
 * The constants are such that this is TFLite's sum for all 65536 pairs (packing/add_linear.py).
 * min, max: what the fused activation leaves.
 */
typedef struct {
    uint32_t size; /* elements */
    int32_t start;
    int32_t factor_0;
    int32_t factor_1;
    int32_t rounding; /* of the signed form */
    int8_t min;
    int8_t max;
} nn_add_linear_params;

/* input_0, input_1, output: int8 [size]; the output may be one of the inputs, or begin before one. */
void nn_add_linear(const nn_add_linear_params *params, const int8_t *input_0, const int8_t *input_1, int8_t *output);
void nn_add_linear_signed(const nn_add_linear_params *params, const int8_t *input_0, const int8_t *input_1, int8_t *output);

/* The inner steps: passes of 8 elements; assembly where the core has the DSP extension, and for ARMv7-M. */
typedef void (*nn_add_step)(const nn_add_linear_params *params, const int8_t *input_0, const int8_t *input_1, int8_t *output);
void nn_add_linear_passes(const nn_add_linear_params *params, const int8_t *input_0, const int8_t *input_1, int8_t *output);
void nn_add_signed_passes(const nn_add_linear_params *params, const int8_t *input_0, const int8_t *input_1, int8_t *output);

#endif
