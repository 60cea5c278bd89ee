#ifndef NN_AVERAGE_POOL2D_FAST_H
#define NN_AVERAGE_POOL2D_FAST_H

#include "average_pool2d.h"

/* As nn_average_pool2d, four channels at a time. */
void nn_average_pool2d_fast(const nn_average_pool2d_params *params, const int8_t *input, int8_t *output);

#endif
