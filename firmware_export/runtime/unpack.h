#ifndef NN_UNPACK_H
#define NN_UNPACK_H

#include "parts.h"

typedef struct {
    nn_parts parts;
} nn_unpack_params;

/* The arguments behind input: parts.count outputs; all int8_t *, dense, apart. */
void nn_unpack(const nn_unpack_params *params, const int8_t *input, ...);

#endif
