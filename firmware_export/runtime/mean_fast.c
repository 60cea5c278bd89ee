/* Mean over neighbouring axes, int8, as many neighbouring elements at a time as byte_sums.h has. */
#include "mean_fast.h"

#include "byte_sums.h"
#include "requantize.h"

static int8_t scaled_sum(const nn_mean_params *params, int32_t sum) {
    const int32_t scaled = nn_requantize(sum + params->offset, params->multiplier, params->shift);
    return nn_clamp((int32_t)((uint32_t)scaled + (uint32_t)params->zero_point), params->min, params->max);
}

void nn_mean_fast(const nn_mean_params *params, const int8_t *input, int8_t *output) {
    for (uint32_t outer = 0; outer < params->outer; ++outer) {
        uint32_t inner = 0;
        for (; params->inner - inner >= NN_BYTE_SUMS_CHANNELS; inner += NN_BYTE_SUMS_CHANNELS) {
            int32_t sums[NN_BYTE_SUMS_CHANNELS] = {0};
            nn_sum_pixels(input + inner, params->inner, params->count, sums);
            for (uint32_t i = 0; i < NN_BYTE_SUMS_CHANNELS; ++i) {
                *output++ = scaled_sum(params, sums[i]);
            }
        }
        for (; inner < params->inner; ++inner) {
            *output++ = scaled_sum(params, nn_sum_channel(input + inner, params->inner, params->count));
        }
        input += params->count * params->inner;
    }
}
