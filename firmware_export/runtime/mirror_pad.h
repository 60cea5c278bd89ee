#ifndef NN_MIRROR_PAD_H
#define NN_MIRROR_PAD_H

#include "gather.h"

typedef struct {
    nn_gather gather;
} nn_mirror_pad_params;

/* input, output: int8, apart. */
void nn_mirror_pad(const nn_mirror_pad_params *params, const int8_t *input, int8_t *output);

#endif
