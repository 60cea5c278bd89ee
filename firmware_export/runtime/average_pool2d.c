/* Average over the part of each window that lies on the image, int8, rounded half away from zero. */
#include "average_pool2d.h"

#include <stddef.h>

#include "requantize.h"

/* |sum| + count / 2 < 129 * count; times a reciprocal of 24 bits it fits 32 bits and is exact up to this count:
 * the reciprocal is at most count - 1 parts in 2^24 too large, and 129 * count * count < 2^24.
 */
#define RECIPROCAL_BITS 24
#define RECIPROCAL_MAX_COUNT 360u

typedef struct {
    uint32_t count;
    uint32_t reciprocal; /* of count, rounded up; 0: divide */
} divisor;

static divisor divisor_of(uint32_t count) {
    const divisor result = {count, count > RECIPROCAL_MAX_COUNT ? 0u : ((1u << RECIPROCAL_BITS) + count - 1u) / count};
    return result;
}

static int32_t rounded_quotient(int32_t sum, divisor by) {
    const uint32_t dividend = (uint32_t)(sum < 0 ? -sum : sum) + by.count / 2u;
    const uint32_t quotient = by.reciprocal != 0u ? (dividend * by.reciprocal) >> RECIPROCAL_BITS : dividend / by.count;
    return sum < 0 ? -(int32_t)quotient : (int32_t)quotient;
}

static int32_t area_sum(const nn_window *window, const nn_window_area *area, const int8_t *channel) {
    int32_t sum = 0;
    for (int32_t y = area->top; y < area->bottom; ++y) {
        const int8_t *x = channel + ((size_t)y * window->input_w + (size_t)area->left) * window->channels;
        for (int32_t n = area->right - area->left; n > 0; --n) {
            sum += *x;
            x += window->channels;
        }
    }
    return sum;
}

void nn_average_pool2d(const nn_average_pool2d_params *params, const int8_t *input, int8_t *output) {
    const nn_window *window = &params->window;
    divisor by = divisor_of(1u);
    for (uint32_t row = 0; row < window->output_h; ++row) {
        for (uint32_t column = 0; column < window->output_w; ++column) {
            const nn_window_area area = nn_window_clip(window, row, column);
            const uint32_t count = (uint32_t)((area.bottom - area.top) * (area.right - area.left));
            if (count != by.count) { /* a division only where the window's size on the image changes */
                by = divisor_of(count);
            }
            for (uint32_t channel = 0; channel < window->channels; ++channel) {
                const int32_t sum = area_sum(window, &area, input + channel);
                *output++ = nn_clamp(rounded_quotient(sum, by), params->min, params->max);
            }
        }
    }
}
