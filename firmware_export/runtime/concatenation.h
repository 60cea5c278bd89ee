#ifndef NN_CONCATENATION_H
#define NN_CONCATENATION_H

#include "parts.h"

typedef struct {
    nn_parts parts;
} nn_concatenation_params;

/* The arguments behind params: parts.count inputs, then the output; all int8_t *, dense, apart. */
void nn_concatenation(const nn_concatenation_params *params, ...);

#endif
