#ifndef NN_MEAN_FAST_H
#define NN_MEAN_FAST_H

#include "mean.h"

/* As nn_mean, four neighbouring elements at a time. */
void nn_mean_fast(const nn_mean_params *params, const int8_t *input, int8_t *output);

#endif
