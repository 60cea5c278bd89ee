#ifndef NN_REDUCE_MAX_H
#define NN_REDUCE_MAX_H

#include <stdint.h>

#include "reduction.h"

typedef struct {
    nn_reduction shape;
} nn_reduce_max_params;

/* input, output: int8, as shape says, of one scale and zero point. */
void nn_reduce_max(const nn_reduce_max_params *params, const int8_t *input, int8_t *output);

#endif
