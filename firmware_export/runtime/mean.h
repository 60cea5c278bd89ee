#ifndef NN_MEAN_H
#define NN_MEAN_H

#include <stdint.h>

/* multiplier, shift: the ratio of the scales divided by count. offset: -count * the input's zero point. */
typedef struct {
    uint32_t outer;
    uint32_t count;
    uint32_t inner;
    int32_t offset;
    int32_t multiplier;
    int8_t shift;
    int16_t zero_point; /* of the output */
    int8_t min;
    int8_t max;
} nn_mean_params;

/* input: int8 [outer, count, inner], the mean is taken over the middle. output: int8 [outer, inner]. */
void nn_mean(const nn_mean_params *params, const int8_t *input, int8_t *output);

#endif
