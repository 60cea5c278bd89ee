/* Tensors of one shape along a new axis, int8. */
#include "pack.h"

void nn_pack(const nn_pack_params *params, ...) {
    va_list arguments;
    va_start(arguments, params);
    nn_join(&params->parts, arguments);
    va_end(arguments);
}
