#ifndef NN_ADD_BROADCAST_H
#define NN_ADD_BROADCAST_H

#include <stdint.h>

#include "add_scale.h"
#include "broadcast.h"

/* As nn_add_params, for inputs of different shapes. */
typedef struct {
    nn_broadcast shape;
    nn_add_scale input_0;
    nn_add_scale input_1;
    nn_add_scale output;
    int8_t min;
    int8_t max;
} nn_add_broadcast_params;

/* input_0, input_1: int8, as shape says; output: int8. */
void nn_add_broadcast(const nn_add_broadcast_params *params, const int8_t *input_0, const int8_t *input_1, int8_t *output);

/* The same with a constant for one input. */
void nn_add_broadcast_constant(const nn_add_broadcast_params *params, const int8_t *input, int8_t *output);

#endif
