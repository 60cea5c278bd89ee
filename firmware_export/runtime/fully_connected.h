#ifndef NN_FULLY_CONNECTED_H
#define NN_FULLY_CONNECTED_H

#include "dense.h"

/* dense.weights: int8 [outputs, depth]. batches: how many vectors of dense.depth the input holds. */
typedef struct {
    nn_dense_params dense;
    uint32_t batches;
} nn_fully_connected_params;

/* input: int8 [batches, dense.depth]. output: int8 [batches, dense.outputs]. */
void nn_fully_connected(const nn_fully_connected_params *params, const int8_t *input, int8_t *output);

#endif
