/* Sums and means over any axes, int8; mean.c is for axes that are neighbours. */
#include "reduce_sum.h"

#include "requantize.h"

static int32_t sum_of(const nn_axis *reduced, const int8_t *input) {
    int32_t sum = 0;
    for (uint32_t i = 0; i < reduced[0].size; ++i) {
        for (uint32_t j = 0; j < reduced[1].size; ++j) {
            const int8_t *x = input + i * reduced[0].step + j * reduced[1].step;
            for (uint32_t k = 0; k < reduced[2].size; ++k) {
                sum += *x;
                x += reduced[2].step;
            }
        }
    }
    return sum;
}

static int8_t scaled_sum(const void *context, const nn_axis *reduced, const int8_t *input) {
    const nn_reduce_sum_params *const params = context;
    const int32_t scaled = nn_requantize(sum_of(reduced, input) + params->offset, params->multiplier, params->shift);
    return nn_clamp((int32_t)((uint32_t)scaled + (uint32_t)params->zero_point), params->min, params->max);
}

void nn_reduce_sum(const nn_reduce_sum_params *params, const int8_t *input, int8_t *output) {
    nn_reduce(&params->shape, scaled_sum, params, input, output);
}
