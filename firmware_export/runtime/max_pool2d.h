#ifndef NN_MAX_POOL2D_H
#define NN_MAX_POOL2D_H

#include "window.h"

/* Input and output have the same scale and zero point. min, max: what the fused activation leaves. */
typedef struct {
    nn_window window;
    int8_t min;
    int8_t max;
} nn_max_pool2d_params;

/* input: int8 [input_h, input_w, channels]. output: int8 [output_h, output_w, channels]. */
void nn_max_pool2d(const nn_max_pool2d_params *params, const int8_t *input, int8_t *output);

#endif
