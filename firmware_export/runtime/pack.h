#ifndef NN_PACK_H
#define NN_PACK_H

#include "parts.h"

typedef struct {
    nn_parts parts;
} nn_pack_params;

/* The arguments behind params: parts.count inputs, then the output; all int8_t *, dense, apart. */
void nn_pack(const nn_pack_params *params, ...);

#endif
