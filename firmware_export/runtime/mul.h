#ifndef NN_MUL_H
#define NN_MUL_H

#include <stdint.h>

#include "broadcast.h"

/* multiplier, shift: product of the input scales over the scale of the output. zero_point: of the output. */
typedef struct {
    nn_broadcast shape;
    int32_t multiplier;
    int8_t shift;
    int16_t zero_point_0;
    int16_t zero_point_1;
    int16_t zero_point;
    int8_t min;
    int8_t max;
} nn_mul_params;

/* input_0, input_1: int8, as shape says; output: int8. */
void nn_mul(const nn_mul_params *params, const int8_t *input_0, const int8_t *input_1, int8_t *output);

/* The same with a constant for one input. */
void nn_mul_constant(const nn_mul_params *params, const int8_t *input, int8_t *output);

#endif
