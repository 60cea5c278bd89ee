/* See step_octet.h. The inner step in C: for all cores but ARMv7-M and ARMv6-M, which have files of their own. */
#include "step_octet.h"

#if !NN_V7M && !NN_V6M

uint32_t nn_octet_expand(const int8_t *x, uint32_t depth, void *u) {
    uint8_t *to = u;
    uint32_t total = 0;
    for (; depth > 0u; --depth) {
        const uint32_t value = (uint32_t)(*x++ + 128);
        *to++ = (uint8_t)value;
        total += value;
    }
    return total;
}

void nn_octet_sums(const void *u, const uint8_t *weights, uint32_t depth, uint32_t total, int32_t *sums) {
    const uint8_t *x = u;
    uint32_t products[NN_OCTET_OUTPUTS] = {0};
    for (; depth > 0u; --depth, ++x) {
        for (uint32_t i = 0; i < NN_OCTET_OUTPUTS; ++i) {
            products[i] += (uint32_t)*x * *weights++;
        }
    }
    for (uint32_t i = 0; i < NN_OCTET_OUTPUTS; ++i) {
        sums[i] = (int32_t)(products[i] - 128u * total);
    }
}

#endif
