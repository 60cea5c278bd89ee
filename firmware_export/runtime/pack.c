/* Tensors of one shape along a new axis, int8. */
#include "pack.h"

#include <stdarg.h>

void nn_pack(const nn_pack_params *params, ...) {
    const nn_parts *parts = &params->parts;
    va_list inputs;
    va_list last;
    va_start(inputs, params);
    va_copy(last, inputs);
    for (uint32_t part = 0; part < parts->count; ++part) {
        (void)va_arg(last, int8_t *);
    }
    int8_t *output = va_arg(last, int8_t *);
    va_end(last);
    uint32_t place = 0;
    for (uint32_t part = 0; part < parts->count; ++part) {
        nn_part_in(parts, part, place, va_arg(inputs, int8_t *), output);
        place += parts->sizes[part];
    }
    va_end(inputs);
}
