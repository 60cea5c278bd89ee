#ifndef NN_TILE_H
#define NN_TILE_H

#include "strided.h"

typedef struct {
    nn_strided_copy copy;
} nn_tile_params;

/* input, output: int8, apart. */
void nn_tile(const nn_tile_params *params, const int8_t *input, int8_t *output);

#endif
