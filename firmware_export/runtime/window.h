/* The geometry of a window that slides over an image: convolutions and pools. */
#ifndef NN_WINDOW_H
#define NN_WINDOW_H

#include <stdint.h>

/* Image: int8 [input_h, input_w, channels]. Tap (i, j) of the window of output (row, column) lies at
 * y = row * stride_h - padding_top + i * dilation_h, x = column * stride_w - padding_left + j * dilation_w.
 * Padding at the bottom and right is what output_h and output_w reach beyond the image.
 */
typedef struct {
    uint16_t input_h;
    uint16_t input_w;
    uint16_t channels;
    uint16_t output_h;
    uint16_t output_w;
    uint16_t kernel_h;
    uint16_t kernel_w;
    uint16_t stride_h;
    uint16_t stride_w;
    uint16_t dilation_h;
    uint16_t dilation_w;
    uint16_t padding_top;
    uint16_t padding_left;
} nn_window;

/* The part of one window (dilation 1) that lies on the image: rows top..bottom-1, columns left..right-1. */
typedef struct {
    int32_t top;
    int32_t bottom;
    int32_t left;
    int32_t right;
} nn_window_area;

nn_window_area nn_window_clip(const nn_window *window, uint32_t row, uint32_t column);

/* Copies what lies under the window of one output.
 * fill: the value outside the image, the input's zero point. patch: int8 [kernel_h, kernel_w, channels].
 */
void nn_window_gather(const nn_window *window, const int8_t *input, uint32_t row, uint32_t column, int8_t fill, int8_t *patch);

#endif
