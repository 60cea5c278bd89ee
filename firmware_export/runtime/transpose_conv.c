/* Transposed 2-D convolution, int8: for each phase a convolution of stride 1, whose outputs lie a stride apart. */
#include "transpose_conv.h"

#include <stddef.h>

/* Taps of one phase along one edge. */
static uint16_t taps_of(uint32_t kernel, uint32_t stride, uint32_t phase) {
    return (uint16_t)(phase < kernel ? (kernel - 1u - phase) / stride + 1u : 0u);
}

/* The first row or column of the output that has this phase. */
static uint32_t first_of(uint32_t padding, uint32_t stride, uint32_t phase) {
    return (phase + stride - padding % stride) % stride;
}

/* dense: of this phase. window: of this phase, stride 1. phase_h, phase_w: where its outputs lie. */
static void run_phase(const nn_transpose_conv_params *params, const nn_dense_params *dense, const nn_window *window,
                      uint32_t phase_h, uint32_t phase_w, const int8_t *input, int8_t *output, int8_t *patch) {
    const nn_window *whole = &params->window;
    const uint32_t first_column = first_of(whole->padding_left, whole->stride_w, phase_w);
    uint32_t row = first_of(whole->padding_top, whole->stride_h, phase_h);
    for (; row < whole->output_h; row += whole->stride_h) {
        const uint32_t down = (row + whole->padding_top) / whole->stride_h;
        for (uint32_t column = first_column; column < whole->output_w; column += whole->stride_w) {
            const uint32_t across = (column + whole->padding_left) / whole->stride_w;
            nn_window_gather(window, input, down, across, params->fill, patch);
            nn_dense(dense, patch, output + ((size_t)row * whole->output_w + column) * dense->outputs);
        }
    }
}

void nn_transpose_conv(const nn_transpose_conv_params *params, const int8_t *input, int8_t *output, int8_t *patch) {
    nn_window window = params->window;
    nn_dense_params dense = params->dense;
    window.stride_h = window.stride_w = window.dilation_h = window.dilation_w = 1u;
    for (uint32_t phase_h = 0; phase_h < params->window.stride_h; ++phase_h) {
        window.kernel_h = taps_of(params->window.kernel_h, params->window.stride_h, phase_h);
        window.padding_top = (uint16_t)(window.kernel_h > 0u ? window.kernel_h - 1u : 0u);
        for (uint32_t phase_w = 0; phase_w < params->window.stride_w; ++phase_w) {
            window.kernel_w = taps_of(params->window.kernel_w, params->window.stride_w, phase_w);
            window.padding_left = (uint16_t)(window.kernel_w > 0u ? window.kernel_w - 1u : 0u);
            dense.depth = (uint32_t)window.kernel_h * window.kernel_w * window.channels;
            run_phase(params, &dense, &window, phase_h, phase_w, input, output, patch);
            dense.weights += (size_t)dense.outputs * dense.depth;
            dense.bias += dense.outputs;
        }
    }
}
