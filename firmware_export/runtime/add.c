/* Elementwise sum, int8: both sides are brought to twice the larger scale with 20 extra bits, added, and requantized. */
#include "add.h"

void nn_add(const nn_add_params *params, const int8_t *input_0, const int8_t *input_1, int8_t *output) {
    for (uint32_t i = 0; i < params->size; ++i) {
        const uint32_t sum = nn_raised(&params->input_0, input_0[i]) + nn_raised(&params->input_1, input_1[i]);
        output[i] = nn_lowered(&params->output, sum, params->min, params->max);
    }
}
