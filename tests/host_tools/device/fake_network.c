#include "fake_network.h"

#define HIDDEN 64u
#define HIDDEN_AT 60000u
#define MAX_TENSORS 18u

static nn_tensor inputs[MAX_TENSORS] = {{16, 64, 0.00392156886f, -128, NN_INT8, 4, {1, 8, 8, 1, 0, 0}}};
static nn_tensor outputs[2] = {{0, 10, 0.25f, 3, NN_INT8, 2, {1, 10, 0, 0, 0, 0}}};
static uint32_t runs, touched, run_status, selftest_status;

static uint32_t digest(const uint8_t *memory) {
    uint32_t sum = 0, index = 0;
    for (uint32_t t = 0; t < fake_network.input_count; t++) {
        for (uint32_t i = 0; i < inputs[t].size; i++, index++) {
            sum += memory[inputs[t].offset + i] * (2u * index + 1u);
        }
    }
    return sum;
}

static void finish(uint8_t *memory, uint32_t sum) {
    uint32_t index = 0;
    touched = 1;
    __builtin_memset(memory, 0xEE, HIDDEN_AT);
    for (uint32_t t = 0; t < fake_network.output_count; t++) {
        for (uint32_t i = 0; i < outputs[t].size; i++, index++) {
            memory[outputs[t].offset + i] = (uint8_t)((sum * (2654435761u * (index + 1u))) >> 24);
        }
    }
}

static nn_status trace(void *activations, nn_observer observer, void *context) {
    uint8_t *memory = activations;
    uint8_t *hidden = memory + HIDDEN_AT;
    uint32_t sum = digest(memory), last = fake_network.layer_count - 1u;
    touched = 1;
    if (run_status != 0) {
        return (nn_status)run_status;
    }
    for (uint32_t k = 0; k < HIDDEN; k++) {
        hidden[k] = (uint8_t)((sum >> (8u * (k % 4u))) ^ k);
    }
    for (uint32_t layer = 0; layer < last; layer++) {
        for (uint32_t k = 0; k < HIDDEN; k++) {
            hidden[k] = (uint8_t)(hidden[k] + layer);
        }
        observer(context, layer, 0, hidden, 40);
        observer(context, layer, 1, hidden + 40, HIDDEN - 40);
    }
    finish(memory, sum);
    for (uint32_t t = 0; t < fake_network.output_count; t++) {
        observer(context, last, t, memory + outputs[t].offset, outputs[t].size);
    }
    return NN_OK;
}

static nn_status run(void *activations) {
    uint8_t *memory = activations;
    runs++;
    finish(memory, digest(memory));
    return (nn_status)run_status;
}

static nn_status selftest(void *activations) {
    touched = 1;
    __builtin_memset(activations, 0x77, FAKE_ACTIVATIONS_SIZE);
    return (nn_status)selftest_status;
}

nn_network fake_network = {"fake", {0x5A, 1, 2, 3}, NN_ARITHMETIC_DOUBLE, 1, 1, 3, FAKE_ACTIVATIONS_SIZE, inputs, outputs, run,
                           trace,  selftest};

static void shape(nn_tensor *tensor, uint32_t offset, uint32_t size, uint8_t type) {
    const nn_tensor made = {offset, size, 0.25f, 3, type, 2, {1, (uint16_t)size, 0, 0, 0, 0}};
    *tensor = made;
}

void fake_configure(uint32_t input_a, uint32_t input_b, uint32_t output_a, uint32_t output_b, uint32_t layers, uint32_t extra) {
    shape(&inputs[0], 16, input_a, NN_INT8);
    shape(&inputs[1], 32u + input_a, input_b, NN_INT8);
    for (uint32_t i = 0; i < extra; i++) {
        shape(&inputs[2u + i], 40000u + 16u * i, 1, NN_INT8);
        inputs[2u + i].rank = 6;
    }
    shape(&outputs[0], 0, output_a, NN_INT8);
    shape(&outputs[1], 20000, output_b, NN_INT8);
    fake_network.input_count = (uint8_t)((input_b || extra ? 2u : 1u) + extra);
    fake_network.output_count = output_b ? 2 : 1;
    fake_network.layer_count = (uint16_t)layers;
    touched = run_status = selftest_status = 0;
    fake_identify(0x5A, NN_ARITHMETIC_DOUBLE, NN_INT8);
}

void fake_identify(uint8_t hash_byte, uint8_t arithmetic, uint8_t type) {
    fake_network.hash[0] = hash_byte;
    fake_network.arithmetic = arithmetic;
    inputs[0].type = type;
}

void fake_fail(uint32_t failing_run, uint32_t failing_selftest) {
    run_status = failing_run;
    selftest_status = failing_selftest;
}

uint32_t fake_runs(void) { return runs; }

uint32_t fake_touched(void) { return touched; }
