#ifndef NN_RELU_H
#define NN_RELU_H

#include <stdint.h>

/* multiplier, shift: scale of the input over scale of the output. min, max: the bounds, in the output's stored values. */
typedef struct {
    uint32_t size; /* elements */
    int32_t multiplier;
    int8_t shift;
    int16_t input_zero_point;
    int16_t output_zero_point;
    int8_t min;
    int8_t max;
} nn_relu_params;

/* input, output: int8 [size]; the same place or apart. */
void nn_relu(const nn_relu_params *params, const int8_t *input, int8_t *output);

#endif
