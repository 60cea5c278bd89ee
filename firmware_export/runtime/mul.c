/* Elementwise product, int8. */
#include "mul.h"

static void mul_row(const void *context, const uint32_t *axis, const int8_t *a, const int8_t *b, int8_t *y) {
    const nn_mul_params *const params = context;
    for (uint32_t i = 0; i < axis[0]; ++i) {
        const int32_t product = (*a - params->zero_point_0) * (*b - params->zero_point_1);
        y[i] = nn_output(&params->stage, 0, (uint32_t)product);
        a += axis[1];
        b += axis[2];
    }
}

void nn_mul(const nn_mul_params *params, const int8_t *input_0, const int8_t *input_1, int8_t *output) {
    nn_broadcast_rows(&params->shape, mul_row, params, input_0, input_1, output);
}

void nn_mul_constant(const nn_mul_params *params, const int8_t *input, int8_t *output) {
    nn_broadcast_constant(&params->shape, mul_row, params, input, output);
}
