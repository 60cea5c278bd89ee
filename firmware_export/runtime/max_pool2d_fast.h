#ifndef NN_MAX_POOL2D_FAST_H
#define NN_MAX_POOL2D_FAST_H

#include "max_pool2d.h"

/* As nn_max_pool2d, four channels at a time. */
void nn_max_pool2d_fast(const nn_max_pool2d_params *params, const int8_t *input, int8_t *output);

#endif
