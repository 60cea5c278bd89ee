/* Walks two inputs of different shapes together, run by run along the last axis (numpy's broadcasting). */
#include "broadcast.h"

#include "nn.h"

void nn_broadcast_rows(
    const nn_broadcast *shape, nn_broadcast_row row, const void *params, const int8_t *input_0, const int8_t *input_1,
    int8_t *output) {
    const uint32_t *const last = shape->axes + 3u * (shape->rank - 1u);
    uint32_t done[NN_MAX_RANK];
    for (uint32_t axis = 0; axis < shape->rank; ++axis) {
        done[axis] = 0;
    }
    for (;;) {
        row(params, last, input_0, input_1, output);
        output += last[0];
        uint32_t axis = shape->rank - 1u;
        for (; axis > 0u; --axis) {
            const uint32_t *const outer = shape->axes + 3u * (axis - 1u);
            input_0 += outer[1];
            input_1 += outer[2];
            if (++done[axis - 1u] < outer[0]) {
                break;
            }
            done[axis - 1u] = 0;
            input_0 -= outer[0] * outer[1];
            input_1 -= outer[0] * outer[2];
        }
        if (axis == 0u) {
            return;
        }
    }
}

void nn_broadcast_constant(
    const nn_broadcast *shape, nn_broadcast_row row, const void *params, const int8_t *input, int8_t *output) {
    const int8_t *const input_0 = shape->place == 0u ? shape->constant : input;
    const int8_t *const input_1 = shape->place == 0u ? input : shape->constant;
    nn_broadcast_rows(shape, row, params, input_0, input_1, output);
}
