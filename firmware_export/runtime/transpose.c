/* Another order of the axes, int8. */
#include "transpose.h"

void nn_transpose(const nn_transpose_params *params, const int8_t *input, int8_t *output) {
    nn_copy_strided(&params->copy, input, output);
}
