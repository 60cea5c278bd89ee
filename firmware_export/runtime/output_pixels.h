/* Going over the output pixels of a convolution row by row, several at a time. */
#ifndef NN_OUTPUT_PIXELS_H
#define NN_OUTPUT_PIXELS_H

#include <stdint.h>

#include "window.h"

/* The next output pixel; y, x: where its window begins. */
typedef struct {
    uint32_t left; /* pixels still to come */
    uint32_t column;
    int32_t y;
    int32_t x;
} nn_output_pixel;

static inline nn_output_pixel nn_first_pixel(const nn_window *window) {
    const nn_output_pixel at = {(uint32_t)window->output_h * window->output_w, 0u, -(int32_t)window->padding_top,
                                -(int32_t)window->padding_left};
    return at;
}

/* Forward by pixels that lie in this row. */
static inline void nn_advance(nn_output_pixel *at, const nn_window *window, uint32_t pixels) {
    at->left -= pixels;
    at->column += pixels;
    at->x += (int32_t)(pixels * window->stride_w);
    if (at->column >= window->output_w) {
        at->column = 0u;
        at->x = -(int32_t)window->padding_left;
        at->y += window->stride_h;
    }
}

#endif
