/* Walks the outputs of an operator that reduces any axes. */
#include "reduction.h"

void nn_reduce(const nn_reduction *shape, nn_reduce_one one, const void *params, const int8_t *input, int8_t *output) {
    const nn_axis *const kept = shape->kept;
    for (uint32_t i = 0; i < kept[0].size; ++i) {
        for (uint32_t j = 0; j < kept[1].size; ++j) {
            const int8_t *const row = input + i * kept[0].step + j * kept[1].step;
            for (uint32_t k = 0; k < kept[2].size; ++k) {
                *output++ = one(params, shape->reduced, row + k * kept[2].step);
            }
        }
    }
}
