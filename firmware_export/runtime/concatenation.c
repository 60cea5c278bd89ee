/* Tensors one behind the other along an axis, int8. */
#include "concatenation.h"

void nn_concatenation(const nn_concatenation_params *params, ...) {
    va_list arguments;
    va_start(arguments, params);
    nn_join(&params->parts, arguments);
    va_end(arguments);
}
