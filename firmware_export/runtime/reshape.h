#ifndef NN_RESHAPE_H
#define NN_RESHAPE_H

#include <stdint.h>

typedef struct {
    uint32_t size; /* bytes */
} nn_reshape_params;

/* input, output: [size] bytes; the same place or apart. */
void nn_reshape(const nn_reshape_params *params, const void *input, void *output);

#endif
