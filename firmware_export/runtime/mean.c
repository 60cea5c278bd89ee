/* Mean over neighbouring axes, int8 (global average pool: over h and w); 1 / count is part of the multiplier. */
#include "mean.h"

#include "requantize.h"

static int32_t strided_sum(const int8_t *x, uint32_t count, uint32_t step) {
    int32_t sum = 0;
    for (; count > 0u; --count) {
        sum += *x;
        x += step;
    }
    return sum;
}

void nn_mean(const nn_mean_params *params, const int8_t *input, int8_t *output) {
    for (uint32_t outer = 0; outer < params->outer; ++outer) {
        for (uint32_t inner = 0; inner < params->inner; ++inner) {
            const int32_t sum = strided_sum(input + inner, params->count, params->inner) + params->offset;
            const int32_t scaled = nn_requantize(sum, params->multiplier, params->shift);
            *output++ = nn_clamp((int32_t)((uint32_t)scaled + (uint32_t)params->zero_point), params->min, params->max);
        }
        input += params->count * params->inner;
    }
}
