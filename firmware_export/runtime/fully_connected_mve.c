/* Fully connected layer, int8, with Helium: eight channels at a time, what is left of them through a copy. */
#include "fully_connected_mve.h"

#include "step_mve.h"

static void compute(const nn_fully_connected_mve_params *params, nn_mve_block *block, nn_mve_step step) {
    const uint32_t groups = (params->outputs + NN_MVE_GROUP - 1u) / NN_MVE_GROUP;
    const uint32_t left = params->outputs % NN_MVE_GROUP;
    const uint32_t *end = params->weights + params->words;
    const uint32_t *last_record = left == 0u ? end : end - params->words / groups;
    block->weights = params->weights;
    block->end = last_record;
    if (block->weights != block->end) {
        step(block);
    }
    if (left != 0u) {
        int8_t last[NN_MVE_GROUP];
        int8_t *output = block->output[0];
        block->output[0] = last;
        block->weights = last_record;
        block->end = end;
        step(block);
        for (uint32_t i = 0; i < left; ++i) {
            output[i] = last[i];
        }
    }
}

static void multiply(const nn_fully_connected_mve_params *params, const int8_t *input, int8_t *output, nn_mve_step step) {
    nn_mve_block block = {{input, input}, {output, output}, params->weights, params->weights, 1u, params->vectors,
                          params->tail, 0u, params->zero_point, {0u, 0u}};
    for (uint32_t batch = 0; batch < params->batches; ++batch) {
        block.output[0] = output + batch * params->outputs;
        compute(params, &block, step);
        block.pixel[0] += params->vectors * NN_MVE_BYTES + params->tail;
    }
    if (params->clamped != 0u) {
        nn_mve_clamp(output, (uint32_t)params->batches * params->outputs, params->min, params->max);
    }
}

void nn_fully_connected_mve_plain(const nn_fully_connected_mve_params *params, const int8_t *input, int8_t *output) {
    multiply(params, input, output, nn_mve_single_plain);
}

void nn_fully_connected_mve_signed(const nn_fully_connected_mve_params *params, const int8_t *input, int8_t *output) {
    multiply(params, input, output, nn_mve_single_signed);
}

void nn_fully_connected_mve_general(const nn_fully_connected_mve_params *params, const int8_t *input, int8_t *output) {
    multiply(params, input, output, nn_mve_single_general);
}
