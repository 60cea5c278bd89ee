#ifndef NN_SPLIT_H
#define NN_SPLIT_H

#include "parts.h"

typedef struct {
    nn_parts parts;
} nn_split_params;

/* The arguments behind input: parts.count outputs; all int8_t *, dense, apart. */
void nn_split(const nn_split_params *params, const int8_t *input, ...);

#endif
