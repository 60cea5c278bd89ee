#ifndef NN_ADD_MVE_H
#define NN_ADD_MVE_H

#include "add_linear.h"

/* As nn_add_linear and nn_add_linear_signed, sixteen elements at a time. */
void nn_add_mve_linear(const nn_add_linear_params *params, const int8_t *input_0, const int8_t *input_1, int8_t *output);
void nn_add_mve_signed(const nn_add_linear_params *params, const int8_t *input_0, const int8_t *input_1, int8_t *output);

#endif
