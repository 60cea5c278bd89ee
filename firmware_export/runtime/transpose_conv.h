#ifndef NN_TRANSPOSE_CONV_H
#define NN_TRANSPOSE_CONV_H

#include "dense.h"
#include "window.h"

/* Pixel y of the image and tap i of the kernel meet at row y * stride_h - padding_top + i of the output, columns likewise.
 * window: input_h, input_w, channels, output_h, output_w, kernel_h, kernel_w, stride and padding of that; dilation unused.
 * A phase is (row + padding_top) % stride_h, (column + padding_left) % stride_w: each has taps of its own, those of
 * kernel_h, kernel_w and beyond have none.
 * dense.weights: for each phase with taps, columns running first, int8 [outputs, its taps down, its taps across, channels],
 * taps backwards. dense.bias: int32 [phases with taps, outputs] with the input's zero point folded in, and the bias itself
 * for the phases without. dense.depth is unused.
 * fill: the zero point of the input, which stands for 0 outside the image.
 */
typedef struct {
    nn_window window;
    nn_dense_params dense;
    int8_t fill;
} nn_transpose_conv_params;

/* input: int8 [input_h, input_w, channels]. output: int8 [output_h, output_w, outputs]. patch: scratch, int8
 * [ceil(kernel_h / stride_h), ceil(kernel_w / stride_w), channels].
 */
void nn_transpose_conv(const nn_transpose_conv_params *params, const int8_t *input, int8_t *output, int8_t *patch);

#endif
