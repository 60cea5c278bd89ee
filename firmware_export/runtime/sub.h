#ifndef NN_SUB_H
#define NN_SUB_H

#include <stdint.h>

#include "add_scale.h"
#include "broadcast.h"

/* The scales are relative to twice the larger one of the inputs, as in add_scale.h. */
typedef struct {
    nn_broadcast shape;
    nn_add_scale input_0;
    nn_add_scale input_1;
    nn_add_scale output;
    int8_t min;
    int8_t max;
} nn_sub_params;

/* input_0, input_1: int8, as shape says; output: int8. */
void nn_sub(const nn_sub_params *params, const int8_t *input_0, const int8_t *input_1, int8_t *output);

/* The same with a constant for one input. */
void nn_sub_constant(const nn_sub_params *params, const int8_t *input, int8_t *output);

#endif
