#ifndef NN_STRIDED_SLICE_H
#define NN_STRIDED_SLICE_H

#include "strided.h"

typedef struct {
    nn_strided_copy copy;
} nn_strided_slice_params;

/* input, output: int8, apart. */
void nn_strided_slice(const nn_strided_slice_params *params, const int8_t *input, int8_t *output);

#endif
