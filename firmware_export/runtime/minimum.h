#ifndef NN_MINIMUM_H
#define NN_MINIMUM_H

#include <stdint.h>

#include "broadcast.h"

/* One scale and zero point for all three. */
typedef struct {
    nn_broadcast shape;
} nn_minimum_params;

/* input_0, input_1: int8, as shape says; output: int8. */
void nn_minimum(const nn_minimum_params *params, const int8_t *input_0, const int8_t *input_1, int8_t *output);

/* The same with a constant for one input. */
void nn_minimum_constant(const nn_minimum_params *params, const int8_t *input, int8_t *output);

#endif
