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

void nn_join(const nn_parts *parts, va_list arguments) {
    va_list last;
    va_copy(last, arguments);
    for (uint32_t part = 0; part < parts->count; ++part) {
        (void)va_arg(last, int8_t *);
    }
    int8_t *whole = va_arg(last, int8_t *);
    va_end(last);
    uint32_t place = 0;
    for (uint32_t part = 0; part < parts->count; ++part) {
        nn_part_in(parts, part, place, va_arg(arguments, int8_t *), whole);
        place += parts->sizes[part];
    }
}
