#ifndef NN_PAD_H
#define NN_PAD_H

#include "strided.h"

typedef struct {
    uint32_t size; /* bytes of the output */
    int8_t value;
    nn_strided_copy copy;
} nn_pad_params;

/* input, output: int8, apart. */
void nn_pad(const nn_pad_params *params, const int8_t *input, int8_t *output);

#endif
