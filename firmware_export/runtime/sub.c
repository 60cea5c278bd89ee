/* Elementwise difference, int8: both sides at twice the larger scale with 20 extra bits, subtracted, requantized. */
#include "sub.h"

static void sub_row(const void *context, const uint32_t *axis, const int8_t *a, const int8_t *b, int8_t *y) {
    const nn_sub_params *const params = context;
    for (uint32_t i = 0; i < axis[0]; ++i) {
        const uint32_t difference = nn_raised(&params->input_0, *a) - nn_raised(&params->input_1, *b);
        y[i] = nn_lowered(&params->output, difference, params->min, params->max);
        a += axis[1];
        b += axis[2];
    }
}

void nn_sub(const nn_sub_params *params, const int8_t *input_0, const int8_t *input_1, int8_t *output) {
    nn_broadcast_rows(&params->shape, sub_row, params, input_0, input_1, output);
}

void nn_sub_constant(const nn_sub_params *params, const int8_t *input, int8_t *output) {
    nn_broadcast_constant(&params->shape, sub_row, params, input, output);
}
