#ifndef NN_LOOKUP_H
#define NN_LOOKUP_H

#include <stdint.h>

/* table: int8 [256], the result of every input, indexed by the input's bits read as uint8: 0..127, then -128..-1. */
typedef struct {
    uint32_t size; /* elements */
    const int8_t *table;
} nn_lookup_params;

/* input, output: int8 [size]; the same place or apart. */
void nn_lookup(const nn_lookup_params *params, const int8_t *input, int8_t *output);

#endif
