/* Windows over an image int8 [h, w, c]; see window.h for the geometry. */
#include "window.h"

#include <stddef.h>

static int32_t clip(int32_t x, int32_t limit) { return x < 0 ? 0 : x > limit ? limit : x; }

nn_window_area nn_window_clip(const nn_window *window, uint32_t row, uint32_t column) {
    const int32_t y = (int32_t)(row * window->stride_h) - window->padding_top;
    const int32_t x = (int32_t)(column * window->stride_w) - window->padding_left;
    const nn_window_area area = {clip(y, window->input_h), clip(y + window->kernel_h, window->input_h),
                                 clip(x, window->input_w), clip(x + window->kernel_w, window->input_w)};
    return area;
}

/* Taps next to each other: one copy, with fill on both sides where the window reaches over the edge. */
static void gather_dense_row(const nn_window *window, const int8_t *image_row, int32_t x, int8_t fill, int8_t *patch) {
    const int32_t begin = clip(-x, window->kernel_w);
    const int32_t end = clip(window->input_w - x, window->kernel_w);
    const size_t channels = window->channels;
    const size_t before = (size_t)begin * channels;
    const size_t inside = end > begin ? (size_t)(end - begin) * channels : 0u;
    const size_t after = window->kernel_w * channels - before - inside;
    if (before > 0u) {
        __builtin_memset(patch, fill, before);
    }
    if (inside > 0u) {
        __builtin_memcpy(patch + before, image_row + (size_t)(x + begin) * channels, inside);
    }
    if (after > 0u) {
        __builtin_memset(patch + before + inside, fill, after);
    }
}

static void gather_dilated_row(const nn_window *window, const int8_t *image_row, int32_t x, int8_t fill, int8_t *patch) {
    const size_t channels = window->channels;
    for (uint32_t tap = 0; tap < window->kernel_w; ++tap) {
        if (x >= 0 && x < window->input_w) {
            __builtin_memcpy(patch, image_row + (size_t)x * channels, channels);
        } else {
            __builtin_memset(patch, fill, channels);
        }
        patch += channels;
        x += window->dilation_w;
    }
}

static void gather_row(const nn_window *window, const int8_t *image_row, int32_t x, int8_t fill, int8_t *patch) {
    if (window->dilation_w == 1u) {
        gather_dense_row(window, image_row, x, fill, patch);
    } else {
        gather_dilated_row(window, image_row, x, fill, patch);
    }
}

void nn_window_gather(const nn_window *window, const int8_t *input, uint32_t row, uint32_t column, int8_t fill, int8_t *patch) {
    const int32_t x = (int32_t)(column * window->stride_w) - window->padding_left;
    const size_t patch_row = (size_t)window->kernel_w * window->channels;
    int32_t y = (int32_t)(row * window->stride_h) - window->padding_top;
    for (uint32_t tap = 0; tap < window->kernel_h; ++tap) {
        if (y < 0 || y >= window->input_h) {
            __builtin_memset(patch, fill, patch_row);
        } else {
            gather_row(window, input + (size_t)y * window->input_w * window->channels, x, fill, patch);
        }
        patch += patch_row;
        y += window->dilation_h;
    }
}
