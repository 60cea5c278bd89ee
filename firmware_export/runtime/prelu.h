#ifndef NN_PRELU_H
#define NN_PRELU_H

#include <stdint.h>

#include "broadcast.h"

/* multiplier, shift: input_0's scale over the output's. slope_multiplier, slope_shift: the same times the slopes' scale.
 * zero_point_0, zero_point_1, zero_point: of the input, the slopes and the output.
 */
typedef struct {
    nn_broadcast shape;
    int32_t multiplier;
    int32_t slope_multiplier;
    int8_t shift;
    int8_t slope_shift;
    int16_t zero_point_0;
    int16_t zero_point_1;
    int16_t zero_point;
} nn_prelu_params;

/* input_0, input_1: int8, as shape says; output: int8. */
void nn_prelu(const nn_prelu_params *params, const int8_t *input_0, const int8_t *input_1, int8_t *output);

/* The same with a constant for one input. */
void nn_prelu_constant(const nn_prelu_params *params, const int8_t *input, int8_t *output);

#endif
