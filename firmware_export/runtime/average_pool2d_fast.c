/* Average over the part of each window that lies on the image, int8, as many channels at a time as byte_sums.h has. */
#include "average_pool2d_fast.h"

#include <stddef.h>

#include "byte_sums.h"

/* The mean of count values, halves away from zero. */
static int8_t mean_of(const nn_average_pool2d_params *params, int32_t sum, int32_t count) {
    const int32_t mean = (sum + (sum < 0 ? -(count / 2) : count / 2)) / count;
    return (int8_t)(mean < params->min ? params->min : mean > params->max ? params->max : mean);
}

static void one_window(const nn_average_pool2d_params *params, const int8_t *corner, uint32_t rows, uint32_t columns,
                       int8_t *output) {
    const uint32_t channels = params->window.channels;
    const size_t image_row = (size_t)params->window.input_w * channels;
    const int32_t count = (int32_t)(rows * columns);
    uint32_t channel = 0;
    for (; channels - channel >= NN_BYTE_SUMS_CHANNELS; channel += NN_BYTE_SUMS_CHANNELS) {
        int32_t sums[NN_BYTE_SUMS_CHANNELS] = {0};
        if (columns == params->window.input_w) {
            nn_sum_pixels(corner + channel, channels, rows * columns, sums);
        } else {
            for (uint32_t row = 0; row < rows; ++row) {
                nn_sum_pixels(corner + channel + row * image_row, channels, columns, sums);
            }
        }
        for (uint32_t i = 0; i < NN_BYTE_SUMS_CHANNELS; ++i) {
            output[channel + i] = mean_of(params, sums[i], count);
        }
    }
    for (; channel < channels; ++channel) {
        int32_t sum = 0;
        for (uint32_t row = 0; row < rows; ++row) {
            sum += nn_sum_channel(corner + channel + row * image_row, channels, columns);
        }
        output[channel] = mean_of(params, sum, count);
    }
}

void nn_average_pool2d_fast(const nn_average_pool2d_params *params, const int8_t *input, int8_t *output) {
    const nn_window *window = &params->window;
    for (uint32_t row = 0; row < window->output_h; ++row) {
        for (uint32_t column = 0; column < window->output_w; ++column) {
            const nn_window_area area = nn_window_clip(window, row, column);
            const size_t corner = ((size_t)area.top * window->input_w + (size_t)area.left) * window->channels;
            one_window(params, input + corner, (uint32_t)(area.bottom - area.top), (uint32_t)(area.right - area.left), output);
            output += window->channels;
        }
    }
}
