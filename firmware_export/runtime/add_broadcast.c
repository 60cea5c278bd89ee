/* Elementwise sum of different shapes or with a constant, int8; the arithmetic of add.c. */
#include "add_broadcast.h"

static void add_broadcast_row(const void *context, const uint32_t *axis, const int8_t *a, const int8_t *b, int8_t *y) {
    const nn_add_broadcast_params *const params = context;
    for (uint32_t i = 0; i < axis[0]; ++i) {
        const uint32_t sum = nn_raised(&params->input_0, *a) + nn_raised(&params->input_1, *b);
        y[i] = nn_lowered(&params->output, sum, params->min, params->max);
        a += axis[1];
        b += axis[2];
    }
}

void nn_add_broadcast(const nn_add_broadcast_params *params, const int8_t *input_0, const int8_t *input_1, int8_t *output) {
    nn_broadcast_rows(&params->shape, add_broadcast_row, params, input_0, input_1, output);
}

void nn_add_broadcast_constant(const nn_add_broadcast_params *params, const int8_t *input, int8_t *output) {
    nn_broadcast_constant(&params->shape, add_broadcast_row, params, input, output);
}
