/* A clamp that stands alone (ReLU, ReLU6) and may change scale and zero point, int8. */
#include "relu.h"

#include "requantize.h"

void nn_relu(const nn_relu_params *params, const int8_t *input, int8_t *output) {
    for (uint32_t i = 0; i < params->size; ++i) {
        const int32_t scaled = nn_requantize(input[i] - params->input_zero_point, params->multiplier, params->shift);
        const int32_t shifted = (int32_t)((uint32_t)scaled + (uint32_t)params->output_zero_point);
        output[i] = nn_clamp(shifted, params->min, params->max);
    }
}
