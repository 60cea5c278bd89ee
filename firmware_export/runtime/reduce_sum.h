#ifndef NN_REDUCE_SUM_H
#define NN_REDUCE_SUM_H

#include <stdint.h>

#include "reduction.h"

/* offset: -count * the input's zero point. multiplier, shift: the ratio of the scales, for a mean divided by count. */
typedef struct {
    nn_reduction shape;
    int32_t offset;
    int32_t multiplier;
    int8_t shift;
    int16_t zero_point; /* of the output */
    int8_t min;
    int8_t max;
} nn_reduce_sum_params;

/* input, output: int8, as shape says. */
void nn_reduce_sum(const nn_reduce_sum_params *params, const int8_t *input, int8_t *output);

#endif
