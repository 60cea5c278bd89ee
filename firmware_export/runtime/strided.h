#ifndef NN_STRIDED_H
#define NN_STRIDED_H

#include <stdint.h>

#define NN_STRIDED_RANK 6u

/* One loop: how often, and how many bytes input and output move each time. */
typedef struct {
    uint32_t size;
    int32_t input_step;
    int32_t output_step;
} nn_strided_axis;

/* Bytes from one regular grid to another; axes[rank - 1] is the innermost loop, rank at least 1. */
typedef struct {
    int32_t input_start;
    int32_t output_start;
    uint8_t rank;
    nn_strided_axis axes[NN_STRIDED_RANK];
} nn_strided_copy;

void nn_copy_strided(const nn_strided_copy *copy, const int8_t *input, int8_t *output);

#endif
