/* A tensor in pieces along an axis, int8. */
#include "split.h"

#include <stdarg.h>

void nn_split(const nn_split_params *params, const int8_t *input, ...) {
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
