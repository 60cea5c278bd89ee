/* Largest value in the part of each window that lies on the image, int8. */
#include "max_pool2d.h"

#include <stddef.h>

#include "requantize.h"

static int32_t area_max(const nn_window *window, const nn_window_area *area, const int8_t *channel) {
    int32_t best = INT8_MIN;
    for (int32_t y = area->top; y < area->bottom; ++y) {
        const int8_t *x = channel + ((size_t)y * window->input_w + (size_t)area->left) * window->channels;
        for (int32_t n = area->right - area->left; n > 0; --n) {
            best = *x > best ? *x : best;
            x += window->channels;
        }
    }
    return best;
}

void nn_max_pool2d(const nn_max_pool2d_params *params, const int8_t *input, int8_t *output) {
    const nn_window *window = &params->window;
    for (uint32_t row = 0; row < window->output_h; ++row) {
        for (uint32_t column = 0; column < window->output_w; ++column) {
            const nn_window_area area = nn_window_clip(window, row, column);
            for (uint32_t channel = 0; channel < window->channels; ++channel) {
                *output++ = nn_clamp(area_max(window, &area, input + channel), params->min, params->max);
            }
        }
    }
}
