/* Transposed 2-D convolution, int8: for each phase a convolution of stride 1, whose outputs lie a stride apart. */
#include "transpose_conv.h"

#include <stddef.h>

/* The taps of a phase along one edge: how many, and how many of the kernel's stand before them; phases that have any. */
typedef struct {
    uint32_t phase;
    uint32_t count;
    uint32_t before;
    uint32_t phases;
} taps;

static uint32_t smaller(uint32_t a, uint32_t b) { return a < b ? a : b; }

static taps taps_of(uint32_t kernel, uint32_t stride, uint32_t phase) {
    taps found = {phase, 0, 0, smaller(kernel, stride)};
    if (phase < kernel) {
        found.count = (kernel - 1u - phase) / stride + 1u;
        found.before = phase * (kernel / stride) + smaller(phase, kernel % stride);
    }
    return found;
}

/* Which weights and bias, and how many products for one output. */
static nn_dense_params dense_of(const nn_transpose_conv_params *params, const taps *down, const taps *across) {
    const uint32_t outputs = params->dense.outputs;
    const uint32_t channels = params->window.channels;
    const size_t before = (size_t)down->before * params->window.kernel_w + (size_t)down->count * across->before;
    const int has_taps = down->count > 0u && across->count > 0u;
    const uint32_t bias = has_taps ? down->phase * across->phases + across->phase : down->phases * across->phases;
    nn_dense_params dense = params->dense;
    dense.weights += has_taps ? before * outputs * channels : 0u;
    dense.bias += (size_t)bias * outputs;
    dense.depth = down->count * across->count * channels;
    return dense;
}

/* The window over the image of one output of a phase. */
static nn_window window_of(const nn_window *whole, const taps *down, const taps *across) {
    nn_window window = *whole;
    window.stride_h = window.stride_w = window.dilation_h = window.dilation_w = 1u;
    window.kernel_h = (uint16_t)down->count;
    window.kernel_w = (uint16_t)across->count;
    window.padding_top = (uint16_t)(down->count > 0u ? down->count - 1u : 0u);
    window.padding_left = (uint16_t)(across->count > 0u ? across->count - 1u : 0u);
    return window;
}

/* All outputs of the phase whose first one is (first_row, first_column). */
static void run_phase(const nn_transpose_conv_params *params, uint32_t first_row, uint32_t first_column, const int8_t *input,
                      int8_t *output, int8_t *patch) {
    const nn_window *whole = &params->window;
    const uint32_t stride_h = whole->stride_h;
    const uint32_t stride_w = whole->stride_w;
    const taps down = taps_of(whole->kernel_h, stride_h, (first_row + whole->padding_top) % stride_h);
    const taps across = taps_of(whole->kernel_w, stride_w, (first_column + whole->padding_left) % stride_w);
    const nn_dense_params dense = dense_of(params, &down, &across);
    const nn_window window = window_of(whole, &down, &across);
    for (uint32_t row = first_row; row < whole->output_h; row += stride_h) {
        const uint32_t y = (row + whole->padding_top) / stride_h;
        for (uint32_t column = first_column; column < whole->output_w; column += stride_w) {
            const uint32_t x = (column + whole->padding_left) / stride_w;
            nn_window_gather(&window, input, y, x, params->fill, patch);
            nn_dense(&dense, patch, output + ((size_t)row * whole->output_w + column) * dense.outputs);
        }
    }
}

void nn_transpose_conv(const nn_transpose_conv_params *params, const int8_t *input, int8_t *output, int8_t *patch) {
    const uint32_t rows = smaller(params->window.stride_h, params->window.output_h);
    const uint32_t columns = smaller(params->window.stride_w, params->window.output_w);
    for (uint32_t row = 0; row < rows; ++row) {
        for (uint32_t column = 0; column < columns; ++column) {
            run_phase(params, row, column, input, output, patch);
        }
    }
}
