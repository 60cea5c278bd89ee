/* Parametric ReLU, int8: values below the zero point are multiplied by slopes. */
#include "prelu.h"

#include "requantize.h"

static int32_t prelu(const nn_prelu_params *params, int8_t a, int8_t b) {
    const int32_t x = a - params->zero_point_0;
    if (x >= 0) {
        return nn_requantize(x, params->multiplier, params->shift);
    }
    return nn_requantize(x * (b - params->zero_point_1), params->slope_multiplier, params->slope_shift);
}

static void prelu_row(const void *context, const uint32_t *axis, const int8_t *a, const int8_t *b, int8_t *y) {
    const nn_prelu_params *const params = context;
    for (uint32_t i = 0; i < axis[0]; ++i) {
        const int32_t scaled = prelu(params, *a, *b);
        y[i] = nn_clamp((int32_t)((uint32_t)scaled + (uint32_t)params->zero_point), INT8_MIN, INT8_MAX);
        a += axis[1];
        b += axis[2];
    }
}

void nn_prelu(const nn_prelu_params *params, const int8_t *input_0, const int8_t *input_1, int8_t *output) {
    nn_broadcast_rows(&params->shape, prelu_row, params, input_0, input_1, output);
}

void nn_prelu_constant(const nn_prelu_params *params, const int8_t *input, int8_t *output) {
    nn_broadcast_constant(&params->shape, prelu_row, params, input, output);
}
