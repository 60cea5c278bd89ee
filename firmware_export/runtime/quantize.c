/* Another type, scale or zero point for the same real values: bytes by requantisation, float32 by division and rounding. */
#include "quantize.h"

#include "requantize.h"

/* Steps from the zero point at which any value is saturated. */
#define LIMIT 1024

void nn_quantize(const nn_quantize_params *params, const void *input, void *output) {
    const uint8_t *x = input;
    uint8_t *y = output;
    for (uint32_t i = 0; i < params->size; ++i) {
        const int32_t centred = (int8_t)(x[i] ^ params->input_flip) - params->input_zero_point;
        const int32_t scaled = nn_requantize(centred, params->multiplier, params->shift);
        const int32_t shifted = (int32_t)((uint32_t)scaled + (uint32_t)params->output_zero_point);
        y[i] = (uint8_t)((uint8_t)nn_clamp(shifted, INT8_MIN, INT8_MAX) ^ params->output_flip);
    }
}

/* To the nearest integer, halves away from zero, saturated to +-LIMIT; NaN is 0. */
static int32_t round_float(float x) {
    if (!(x > (float)-LIMIT && x < (float)LIMIT)) {
        return x > 0.0f ? LIMIT : x < 0.0f ? -LIMIT : 0;
    }
    const int32_t whole = (int32_t)x;
    const float rest = x - (float)whole;
    return whole + (rest >= 0.5f ? 1 : 0) - (rest <= -0.5f ? 1 : 0);
}

void nn_quantize_float(const nn_quantize_float_params *params, const void *input, void *output) {
    const float *x = input;
    uint8_t *y = output;
    for (uint32_t i = 0; i < params->size; ++i) {
        const int32_t shifted = round_float(x[i] / params->scale) + params->output_zero_point;
        y[i] = (uint8_t)((uint8_t)nn_clamp(shifted, INT8_MIN, INT8_MAX) ^ params->output_flip);
    }
}
