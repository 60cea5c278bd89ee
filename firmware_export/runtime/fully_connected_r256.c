/* Fully connected, int8, on weights packed for step_r256_vector.h. */
#include "fully_connected_r256.h"

#include "step_r256_vector.h"

typedef void (*vector_step)(const nn_r256_vector *vector);

static void clamp(int8_t *x, uint32_t count, int32_t min, int32_t max) {
    for (; count > 0u; --count, ++x) {
        *x = nn_clamp(*x, min, max);
    }
}

/* One vector; the outputs of the last record that do not exist are computed beside the output. */
static void one_vector(const nn_fully_connected_r256_params *params, const void *x, int8_t *output, vector_step step) {
    const uint32_t whole = params->outputs / NN_R256_OUTPUTS;
    const uint32_t left = params->outputs % NN_R256_OUTPUTS;
    const uint32_t *end = params->weights + whole * params->record_words;
    nn_r256_vector vector = {x, params->steps, output, end, params->rounding, params->weights};
    if (whole > 0u) {
        step(&vector);
    }
    if (left > 0u) {
        int8_t last[NN_R256_OUTPUTS];
        vector.output = last;
        vector.weights = end;
        vector.end = end + params->record_words;
        step(&vector);
        __builtin_memcpy(output + whole * NN_R256_OUTPUTS, last, left);
    }
    if (params->min > INT8_MIN || params->max < INT8_MAX) {
        clamp(output, params->outputs, params->min, params->max);
    }
}

static void expanded(const nn_fully_connected_r256_params *params, const int8_t *input, int8_t *output, int8_t *scratch,
                     vector_step step) {
    for (uint32_t batch = 0; batch < params->batches; ++batch) {
        nn_r256_vector_expand(input, params->depth, (uint32_t *)(void *)scratch);
        one_vector(params, scratch, output, step);
        input += params->depth;
        output += params->outputs;
    }
}

static void direct(const nn_fully_connected_r256_params *params, const int8_t *input, int8_t *output, vector_step step) {
    for (uint32_t batch = 0; batch < params->batches; ++batch) {
        one_vector(params, input, output, step);
        input += params->depth;
        output += params->outputs;
    }
}

void nn_fully_connected_r256_linear_8(const nn_fully_connected_r256_params *params, const int8_t *input, int8_t *output,
                                      int8_t *scratch) {
    expanded(params, input, output, scratch, nn_r256_vector_linear_8);
}

void nn_fully_connected_r256_linear_12(const nn_fully_connected_r256_params *params, const int8_t *input, int8_t *output,
                                       int8_t *scratch) {
    expanded(params, input, output, scratch, nn_r256_vector_linear_12);
}

void nn_fully_connected_r256_signed_8(const nn_fully_connected_r256_params *params, const int8_t *input, int8_t *output,
                                      int8_t *scratch) {
    expanded(params, input, output, scratch, nn_r256_vector_signed_8);
}

void nn_fully_connected_r256_signed_12(const nn_fully_connected_r256_params *params, const int8_t *input, int8_t *output,
                                       int8_t *scratch) {
    expanded(params, input, output, scratch, nn_r256_vector_signed_12);
}

void nn_fully_connected_r256_direct_linear_8(const nn_fully_connected_r256_params *params, const int8_t *input,
                                             int8_t *output) {
    direct(params, input, output, nn_r256_vector_direct_linear_8);
}

void nn_fully_connected_r256_direct_linear_12(const nn_fully_connected_r256_params *params, const int8_t *input,
                                              int8_t *output) {
    direct(params, input, output, nn_r256_vector_direct_linear_12);
}

void nn_fully_connected_r256_direct_signed_8(const nn_fully_connected_r256_params *params, const int8_t *input,
                                             int8_t *output) {
    direct(params, input, output, nn_r256_vector_direct_signed_8);
}

void nn_fully_connected_r256_direct_signed_12(const nn_fully_connected_r256_params *params, const int8_t *input,
                                              int8_t *output) {
    direct(params, input, output, nn_r256_vector_direct_signed_12);
}

void nn_fully_connected_r256_general(const nn_fully_connected_r256_params *params, const int8_t *input, int8_t *output,
                                     int8_t *scratch) {
    int32_t *sums = (int32_t *)(void *)(scratch + params->steps * NN_R256_VECTOR_WORDS * sizeof(uint32_t));
    const uint32_t records = (params->outputs + NN_R256_OUTPUTS - 1u) / NN_R256_OUTPUTS;
    for (uint32_t batch = 0; batch < params->batches; ++batch) {
        nn_r256_vector_expand(input, params->depth, (uint32_t *)(void *)scratch);
        const uint32_t *end = params->weights + records * params->record_words;
        const nn_r256_vector vector = {scratch, params->steps, (int8_t *)sums, end, 0, params->weights};
        nn_r256_vector_sums(&vector);
        for (uint32_t i = 0; i < params->outputs; ++i) {
            *output++ = nn_output(&params->stage, i, (uint32_t)(sums[i] >> 8));
        }
        input += params->depth;
    }
}
