#ifndef NN_TRANSPOSE_H
#define NN_TRANSPOSE_H

#include "strided.h"

typedef struct {
    nn_strided_copy copy;
} nn_transpose_params;

/* input, output: int8, the same number of elements, apart. */
void nn_transpose(const nn_transpose_params *params, const int8_t *input, int8_t *output);

#endif
