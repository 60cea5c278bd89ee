#ifndef NN_CONV2D_H
#define NN_CONV2D_H

#include "dense.h"
#include "window.h"

/* dense.weights: int8 [output channels, kernel_h, kernel_w, channels]; dense.depth = kernel_h * kernel_w * channels.
 * fill: the zero point of the input, which stands for 0 outside the image.
 */
typedef struct {
    nn_window window;
    nn_dense_params dense;
    int8_t fill;
} nn_conv2d_params;

/* input: int8 [input_h, input_w, channels]. output: int8 [output_h, output_w, outputs]. patch: scratch, dense.depth bytes. */
void nn_conv2d(const nn_conv2d_params *params, const int8_t *input, int8_t *output, int8_t *patch);

/* As nn_conv2d for a 1x1 kernel without padding, any stride: reads the image in place and needs no scratch. */
void nn_conv2d_pointwise(const nn_conv2d_params *params, const int8_t *input, int8_t *output);

#endif
