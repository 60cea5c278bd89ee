/* An image of another size, each pixel that of the nearest one, int8. */
#include "resize_nearest_neighbor.h"

void nn_resize_nearest_neighbor(const nn_resize_nearest_neighbor_params *params, const int8_t *input, int8_t *output) {
    nn_gather_run(&params->gather, input, output);
}
