/* Fully connected layer, int8, eight outputs at a time. */
#include "fully_connected_octet.h"

#include "step_octet.h"

/* Outputs first.. from their sums. */
typedef void (*stage_step)(const nn_fully_connected_octet_params *params, uint32_t first, uint32_t count, const int32_t *sums,
                           int8_t *output);

static void multiply(const nn_fully_connected_octet_params *params, const int8_t *input, int8_t *output, int8_t *scratch,
                     stage_step stage) {
    for (uint32_t batch = 0; batch < params->batches; ++batch) {
        const uint32_t total = nn_octet_expand(input, params->depth, scratch);
        const uint8_t *weights = params->weights;
        for (uint32_t first = 0; first < params->outputs; first += NN_OCTET_OUTPUTS) {
            int32_t sums[NN_OCTET_OUTPUTS];
            const uint32_t left = params->outputs - first;
            nn_octet_sums(scratch, weights, params->depth, total, sums);
            stage(params, first, left < NN_OCTET_OUTPUTS ? left : NN_OCTET_OUTPUTS, sums, output + first);
            weights += NN_OCTET_OUTPUTS * params->depth;
        }
        if (params->min > INT8_MIN || params->max < INT8_MAX) {
            for (uint32_t i = 0; i < params->outputs; ++i) {
                output[i] = nn_clamp(output[i], params->min, params->max);
            }
        }
        input += params->depth;
        output += params->outputs;
    }
}

static int32_t scaled_sum(int32_t sum, const int32_t *constants) {
    return nn_multiply_high((int32_t)(((uint32_t)sum << 8) + (uint32_t)constants[0]), constants[1]);
}

static void linear(const nn_fully_connected_octet_params *params, uint32_t first, uint32_t count, const int32_t *sums,
                   int8_t *output) {
    const int32_t *constants = params->constants + 2u * first;
    const uint32_t shift = params->shift;
    for (; count > 0u; --count, constants += 2) {
        *output++ = nn_saturate(scaled_sum(*sums++, constants) >> shift);
    }
}

static void with_sign(const nn_fully_connected_octet_params *params, uint32_t first, uint32_t count, const int32_t *sums,
                      int8_t *output) {
    const int32_t *constants = params->constants + 3u * first;
    const uint32_t shift = params->shift;
    for (; count > 0u; --count, constants += 3) {
        const int32_t value = scaled_sum(*sums++, constants);
        *output++ = nn_saturate((value + params->rounding - (value < 0 ? constants[2] : 0)) >> shift);
    }
}

static void general(const nn_fully_connected_octet_params *params, uint32_t first, uint32_t count, const int32_t *sums,
                    int8_t *output) {
    for (uint32_t i = 0; i < count; ++i) {
        const uint32_t sum = (uint32_t)sums[i] + (uint32_t)params->constants[first + i];
        output[i] = nn_output(&params->stage, first + i, sum);
    }
}

void nn_fully_connected_octet_linear(const nn_fully_connected_octet_params *params, const int8_t *input, int8_t *output,
                                     int8_t *scratch) {
    multiply(params, input, output, scratch, linear);
}

void nn_fully_connected_octet_signed(const nn_fully_connected_octet_params *params, const int8_t *input, int8_t *output,
                                     int8_t *scratch) {
    multiply(params, input, output, scratch, with_sign);
}

void nn_fully_connected_octet_general(const nn_fully_connected_octet_params *params, const int8_t *input, int8_t *output,
                                      int8_t *scratch) {
    multiply(params, input, output, scratch, general);
}
