/* Elementwise maximum, int8: the larger of two stored values. */
#include "maximum.h"

static void maximum_row(const void *context, const uint32_t *axis, const int8_t *a, const int8_t *b, int8_t *y) {
    (void)context;
    for (uint32_t i = 0; i < axis[0]; ++i) {
        y[i] = *a > *b ? *a : *b;
        a += axis[1];
        b += axis[2];
    }
}

void nn_maximum(const nn_maximum_params *params, const int8_t *input_0, const int8_t *input_1, int8_t *output) {
    nn_broadcast_rows(&params->shape, maximum_row, params, input_0, input_1, output);
}

void nn_maximum_constant(const nn_maximum_params *params, const int8_t *input, int8_t *output) {
    nn_broadcast_constant(&params->shape, maximum_row, params, input, output);
}
