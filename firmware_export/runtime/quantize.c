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

/* A value beyond +-LIMIT as that; NaN as 0. */
static float limited(float x) {
    if (!(x > (float)-LIMIT && x < (float)LIMIT)) {
        return x > 0.0f ? (float)LIMIT : x < 0.0f ? (float)-LIMIT : 0.0f;
    }
    return x;
}

/* To the nearest integer, halves away from zero, saturated to +-LIMIT; NaN is 0. */
static int32_t round_away(float x) {
    const float near = limited(x);
    const int32_t whole = (int32_t)near;
    const float rest = near - (float)whole;
    return whole + (rest >= 0.5f ? 1 : 0) - (rest <= -0.5f ? 1 : 0);
}

/* The same with halves to even. */
static int32_t round_even(float x) {
    const float near = limited(x);
    const int32_t whole = (int32_t)near;
    const float rest = near - (float)whole;
    const int odd = (whole & 1) != 0;
    return whole + (rest > 0.5f || (odd && rest >= 0.5f) ? 1 : 0) - (rest < -0.5f || (odd && rest <= -0.5f) ? 1 : 0);
}

static uint8_t stored(const nn_quantize_float_params *params, int32_t steps) {
    return (uint8_t)((uint8_t)nn_clamp(steps + params->output_zero_point, INT8_MIN, INT8_MAX) ^ params->output_flip);
}

void nn_quantize_float(const nn_quantize_float_params *params, const void *input, void *output) {
    const float *x = input;
    uint8_t *y = output;
    for (uint32_t i = 0; i < params->size; ++i) {
        y[i] = stored(params, round_away(x[i] / params->scale));
    }
}

void nn_quantize_float_even(const nn_quantize_float_params *params, const void *input, void *output) {
    const float *x = input;
    uint8_t *y = output;
    for (uint32_t i = 0; i < params->size; ++i) {
        y[i] = stored(params, round_even(x[i] * params->scale));
    }
}
