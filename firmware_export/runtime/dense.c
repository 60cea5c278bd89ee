/* One int8 vector times an int8 matrix; see dense.h. */
#include "dense.h"

/* Four outputs share each load of x; more accumulators would spill on the 13 registers of a Cortex-M. */
static void four_outputs(const nn_dense_params *params, const int8_t *x, uint32_t output, int8_t *y) {
    const uint32_t depth = params->depth;
    const int8_t *w0 = params->weights + output * depth;
    const int8_t *w1 = w0 + depth;
    const int8_t *w2 = w1 + depth;
    const int8_t *w3 = w2 + depth;
    uint32_t sum0 = (uint32_t)params->bias[output];
    uint32_t sum1 = (uint32_t)params->bias[output + 1u];
    uint32_t sum2 = (uint32_t)params->bias[output + 2u];
    uint32_t sum3 = (uint32_t)params->bias[output + 3u];
    for (uint32_t i = 0; i < depth; ++i) {
        const int32_t value = x[i];
        sum0 += (uint32_t)(value * w0[i]);
        sum1 += (uint32_t)(value * w1[i]);
        sum2 += (uint32_t)(value * w2[i]);
        sum3 += (uint32_t)(value * w3[i]);
    }
    y[output] = nn_output(&params->stage, output, sum0);
    y[output + 1u] = nn_output(&params->stage, output + 1u, sum1);
    y[output + 2u] = nn_output(&params->stage, output + 2u, sum2);
    y[output + 3u] = nn_output(&params->stage, output + 3u, sum3);
}

static void one_output(const nn_dense_params *params, const int8_t *x, uint32_t output, int8_t *y) {
    const int8_t *w = params->weights + output * params->depth;
    uint32_t sum = (uint32_t)params->bias[output];
    for (uint32_t i = 0; i < params->depth; ++i) {
        sum += (uint32_t)(x[i] * w[i]);
    }
    y[output] = nn_output(&params->stage, output, sum);
}

void nn_dense(const nn_dense_params *params, const int8_t *x, int8_t *y) {
    uint32_t output = 0;
    for (; params->outputs - output >= 4u; output += 4u) {
        four_outputs(params, x, output, y);
    }
    for (; output < params->outputs; ++output) {
        one_output(params, x, output, y);
    }
}
