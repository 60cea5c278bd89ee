/* 2-D convolution, int8, per-channel weights: each output pixel's window is gathered once and multiplied with every filter. */
#include "conv2d.h"

#include <stddef.h>

void nn_conv2d(const nn_conv2d_params *params, const int8_t *input, int8_t *output, int8_t *patch) {
    const nn_window *window = &params->window;
    for (uint32_t row = 0; row < window->output_h; ++row) {
        for (uint32_t column = 0; column < window->output_w; ++column) {
            nn_window_gather(window, input, row, column, params->fill, patch);
            nn_dense(&params->dense, patch, output);
            output += params->dense.outputs;
        }
    }
}

void nn_conv2d_pointwise(const nn_conv2d_params *params, const int8_t *input, int8_t *output) {
    const nn_window *window = &params->window;
    const size_t row_step = (size_t)window->stride_h * window->input_w * window->channels;
    const size_t column_step = (size_t)window->stride_w * window->channels;
    for (uint32_t row = 0; row < window->output_h; ++row) {
        for (uint32_t column = 0; column < window->output_w; ++column) {
            nn_dense(&params->dense, input + row * row_step + column * column_step, output);
            output += params->dense.outputs;
        }
    }
}
