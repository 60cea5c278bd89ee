/* Fully connected layer, int8; weights per tensor or per channel look the same here: one multiplier per output. */
#include "fully_connected.h"

void nn_fully_connected(const nn_fully_connected_params *params, const int8_t *input, int8_t *output) {
    for (uint32_t batch = 0; batch < params->batches; ++batch) {
        nn_dense(&params->dense, input, output);
        input += params->dense.depth;
        output += params->dense.outputs;
    }
}
