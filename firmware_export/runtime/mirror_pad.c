/* A border that mirrors what lies inside, int8. */
#include "mirror_pad.h"

void nn_mirror_pad(const nn_mirror_pad_params *params, const int8_t *input, int8_t *output) {
    nn_gather_run(&params->gather, input, output);
}
