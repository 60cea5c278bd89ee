#ifndef NN_RESIZE_NEAREST_NEIGHBOR_H
#define NN_RESIZE_NEAREST_NEIGHBOR_H

#include "gather.h"

typedef struct {
    nn_gather gather;
} nn_resize_nearest_neighbor_params;

/* input, output: int8, apart. */
void nn_resize_nearest_neighbor(const nn_resize_nearest_neighbor_params *params, const int8_t *input, int8_t *output);

#endif
