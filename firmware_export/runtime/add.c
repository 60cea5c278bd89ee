/* Elementwise sum, int8: both sides are brought to twice the larger scale with 20 extra bits, added, and requantized. */
#include "add.h"

#include "requantize.h"

#define HEADROOM_BITS 20

static uint32_t rescale(const nn_add_scale *side, int8_t x) {
    const int32_t shifted = (x - side->zero_point) * (1 << HEADROOM_BITS);
    return (uint32_t)nn_requantize(shifted, side->multiplier, side->shift);
}

void nn_add(const nn_add_params *params, const int8_t *input_0, const int8_t *input_1, int8_t *output) {
    for (uint32_t i = 0; i < params->size; ++i) {
        const uint32_t sum = rescale(&params->input_0, input_0[i]) + rescale(&params->input_1, input_1[i]);
        const int32_t scaled = nn_requantize((int32_t)sum, params->output.multiplier, params->output.shift);
        output[i] = nn_clamp(scaled + params->output.zero_point, params->min, params->max);
    }
}
