/* Stored bytes as real numbers. Both factors are exact in float32, so the product is rounded once. */
#include "dequantize.h"

void nn_dequantize(const nn_dequantize_params *params, const void *input, void *output) {
    const uint8_t *x = input;
    float *y = output;
    for (uint32_t i = 0; i < params->size; ++i) {
        y[i] = params->scale * (float)((int8_t)(x[i] ^ params->flip) - params->zero_point);
    }
}
