/* Parts of a tensor along one axis, int8: joined by concatenation and pack, divided by split and unpack. */
#include "parts.h"

void nn_part_in(const nn_parts *parts, uint32_t part, uint32_t place, const int8_t *input, int8_t *whole) {
    const uint32_t size = parts->sizes[part];
    whole += place;
    for (uint32_t block = 0; block < parts->blocks; ++block) {
        __builtin_memcpy(whole, input, size);
        input += size;
        whole += parts->block_size;
    }
}

void nn_part_out(const nn_parts *parts, uint32_t part, uint32_t place, const int8_t *whole, int8_t *output) {
    const uint32_t size = parts->sizes[part];
    whole += place;
    for (uint32_t block = 0; block < parts->blocks; ++block) {
        __builtin_memcpy(output, whole, size);
        output += size;
        whole += parts->block_size;
    }
}
