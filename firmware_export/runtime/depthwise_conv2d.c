/* Depthwise 2-D convolution, int8, per-channel weights: each pixel's window is gathered, then summed channel by channel. */
#include "depthwise_conv2d.h"

static uint32_t taps_of(const nn_depthwise_conv2d_params *params) {
    return (uint32_t)params->window.kernel_h * params->window.kernel_w;
}

/* Four neighbouring channels, multiplier 1: one step of the two pointers serves four products. */
static void four_channels(const nn_depthwise_conv2d_params *params, const int8_t *patch, uint32_t channel, int8_t *output) {
    const uint32_t channels = params->window.channels;
    const int8_t *x = patch + channel;
    const int8_t *w = params->weights + channel;
    uint32_t sum0 = (uint32_t)params->bias[channel];
    uint32_t sum1 = (uint32_t)params->bias[channel + 1u];
    uint32_t sum2 = (uint32_t)params->bias[channel + 2u];
    uint32_t sum3 = (uint32_t)params->bias[channel + 3u];
    for (uint32_t tap = taps_of(params); tap > 0u; --tap) {
        sum0 += (uint32_t)(x[0] * w[0]);
        sum1 += (uint32_t)(x[1] * w[1]);
        sum2 += (uint32_t)(x[2] * w[2]);
        sum3 += (uint32_t)(x[3] * w[3]);
        x += channels;
        w += channels;
    }
    output[channel] = nn_output(&params->stage, channel, sum0);
    output[channel + 1u] = nn_output(&params->stage, channel + 1u, sum1);
    output[channel + 2u] = nn_output(&params->stage, channel + 2u, sum2);
    output[channel + 3u] = nn_output(&params->stage, channel + 3u, sum3);
}

static void one_channel(const nn_depthwise_conv2d_params *params, const int8_t *x, uint32_t channel, int8_t *output) {
    const uint32_t channels = params->window.channels;
    const uint32_t outputs = channels * params->multiplier;
    const int8_t *w = params->weights + channel;
    uint32_t sum = (uint32_t)params->bias[channel];
    for (uint32_t tap = taps_of(params); tap > 0u; --tap) {
        sum += (uint32_t)(*x * *w);
        x += channels;
        w += outputs;
    }
    output[channel] = nn_output(&params->stage, channel, sum);
}

static void one_pixel(const nn_depthwise_conv2d_params *params, const int8_t *patch, int8_t *output) {
    const uint32_t channels = params->window.channels;
    uint32_t channel = 0;
    if (params->multiplier == 1u) {
        for (; channels - channel >= 4u; channel += 4u) {
            four_channels(params, patch, channel, output);
        }
    }
    for (; channel < channels; ++channel) {
        for (uint32_t i = 0; i < params->multiplier; ++i) {
            one_channel(params, patch + channel, channel * params->multiplier + i, output);
        }
    }
}

void nn_depthwise_conv2d(const nn_depthwise_conv2d_params *params, const int8_t *input, int8_t *output, int8_t *patch) {
    const nn_window *window = &params->window;
    for (uint32_t row = 0; row < window->output_h; ++row) {
        for (uint32_t column = 0; column < window->output_w; ++column) {
            nn_window_gather(window, input, row, column, params->fill, patch);
            one_pixel(params, patch, output);
            output += (uint32_t)window->channels * params->multiplier;
        }
    }
}
