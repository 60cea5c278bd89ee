#ifndef NN_MUL_H
#define NN_MUL_H

#include <stdint.h>

#include "broadcast.h"
#include "requantize.h"

/* stage: of one channel, the product of the input scales over the scale of the output. */
typedef struct {
    nn_broadcast shape;
    nn_output_stage stage;
    int16_t zero_point_0;
    int16_t zero_point_1;
} nn_mul_params;

/* input_0, input_1: int8, as shape says; output: int8. */
void nn_mul(const nn_mul_params *params, const int8_t *input_0, const int8_t *input_1, int8_t *output);

/* The same with a constant for one input. */
void nn_mul_constant(const nn_mul_params *params, const int8_t *input, int8_t *output);

#endif
