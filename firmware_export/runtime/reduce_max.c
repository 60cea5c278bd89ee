/* Maximum over any axes, int8: the largest stored value. */
#include "reduce_max.h"

static int8_t max_of(const void *context, const nn_axis *reduced, const int8_t *input) {
    (void)context;
    int8_t best = INT8_MIN;
    for (uint32_t i = 0; i < reduced[0].size; ++i) {
        for (uint32_t j = 0; j < reduced[1].size; ++j) {
            const int8_t *x = input + i * reduced[0].step + j * reduced[1].step;
            for (uint32_t k = 0; k < reduced[2].size; ++k) {
                best = *x > best ? *x : best;
                x += reduced[2].step;
            }
        }
    }
    return best;
}

void nn_reduce_max(const nn_reduce_max_params *params, const int8_t *input, int8_t *output) {
    nn_reduce(&params->shape, max_of, params, input, output);
}
