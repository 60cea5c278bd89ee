/* A border of one value: everything filled, then the input copied inside, int8. */
#include "pad.h"

void nn_pad(const nn_pad_params *params, const int8_t *input, int8_t *output) {
    __builtin_memset(output, params->value, params->size);
    nn_copy_strided(&params->copy, input, output);
}
