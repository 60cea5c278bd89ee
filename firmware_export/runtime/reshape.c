/* Another shape for the same bytes: a copy, and nothing where the memory plan gave both tensors one place. */
#include "reshape.h"

void nn_reshape(const nn_reshape_params *params, const void *input, void *output) {
    if (input != output) {
        __builtin_memcpy(output, input, params->size);
    }
}
