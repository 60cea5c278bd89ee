/* A tensor as its slices along an axis, int8. */
#include "unpack.h"

#include <stdarg.h>

void nn_unpack(const nn_unpack_params *params, const int8_t *input, ...) {
    const nn_parts *parts = &params->parts;
    uint32_t place = 0;
    va_list outputs;
    va_start(outputs, input);
    for (uint32_t part = 0; part < parts->count; ++part) {
        nn_part_out(parts, part, place, input, va_arg(outputs, int8_t *));
        place += parts->sizes[part];
    }
    va_end(outputs);
}
