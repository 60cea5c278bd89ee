/* Largest value in the part of each window that lies on the image, int8, four channels at a time; 16 with Helium (MVE). */
#include "max_pool2d_fast.h"

#include <stddef.h>

#include "lanes.h"
#include "requantize.h"

#if defined(__ARM_FEATURE_MVE)

#include <arm_mve.h>

#define GROUP 16u

/* The largest of 16 channels under a window, to output. */
static void one_group(const nn_max_pool2d_params *params, const nn_window_area *area, const int8_t *corner, int8_t *output) {
    const nn_window *window = &params->window;
    int8x16_t largest = vdupq_n_s8(params->min);
    for (int32_t row = area->top; row < area->bottom; ++row) {
        const int8_t *x = corner;
        for (int32_t count = area->right - area->left; count > 0; --count, x += window->channels) {
            largest = vmaxq_s8(largest, vld1q_s8(x));
        }
        corner += (size_t)window->input_w * window->channels;
    }
    vst1q_s8(output, vminq_s8(largest, vdupq_n_s8(params->max)));
}

#else

#define GROUP 4u

#if NN_DSP

/* Byte by byte the larger one: SSUB8 notes which, SEL picks. */
static uint32_t larger_bytes(uint32_t a, uint32_t b) {
    uint32_t larger;
    __asm__("ssub8 %0, %1, %2\n\tsel %0, %1, %2" : "=&r"(larger) : "r"(a), "r"(b));
    return larger;
}

#else

/* Byte by byte the larger one. */
static uint32_t larger_bytes(uint32_t a, uint32_t b) {
    uint32_t larger = 0;
    for (uint32_t shift = 0; shift < 32u; shift += 8u) {
        const int8_t x = (int8_t)(uint8_t)(a >> shift);
        const int8_t y = (int8_t)(uint8_t)(b >> shift);
        larger |= (uint32_t)(uint8_t)(x > y ? x : y) << shift;
    }
    return larger;
}

#endif

static uint32_t four_channels(const nn_window *window, const nn_window_area *area, const int8_t *corner) {
    uint32_t largest = 0x80808080u;
    for (int32_t row = area->top; row < area->bottom; ++row) {
        const int8_t *x = corner;
        for (int32_t count = area->right - area->left; count > 0; --count, x += window->channels) {
            uint32_t pixel;
            __builtin_memcpy(&pixel, x, sizeof pixel);
            largest = larger_bytes(largest, pixel);
        }
        corner += (size_t)window->input_w * window->channels;
    }
    return largest;
}

/* The largest of four channels under a window, to output. */
static void one_group(const nn_max_pool2d_params *params, const nn_window_area *area, const int8_t *corner, int8_t *output) {
    const uint32_t largest = four_channels(&params->window, area, corner);
    for (uint32_t i = 0; i < GROUP; ++i) {
        output[i] = nn_clamp((int8_t)(uint8_t)(largest >> (8u * i)), params->min, params->max);
    }
}

#endif

static int8_t one_channel(const nn_window *window, const nn_window_area *area, const int8_t *corner) {
    int8_t largest = INT8_MIN;
    for (int32_t row = area->top; row < area->bottom; ++row) {
        const int8_t *x = corner;
        for (int32_t count = area->right - area->left; count > 0; --count, x += window->channels) {
            largest = *x > largest ? *x : largest;
        }
        corner += (size_t)window->input_w * window->channels;
    }
    return largest;
}

static void one_window(const nn_max_pool2d_params *params, const nn_window_area *area, const int8_t *corner, int8_t *output) {
    const nn_window *window = &params->window;
    uint32_t channel = 0;
    for (; window->channels - channel >= GROUP; channel += GROUP) {
        one_group(params, area, corner + channel, output + channel);
    }
    for (; channel < window->channels; ++channel) {
        output[channel] = nn_clamp(one_channel(window, area, corner + channel), params->min, params->max);
    }
}

void nn_max_pool2d_fast(const nn_max_pool2d_params *params, const int8_t *input, int8_t *output) {
    const nn_window *window = &params->window;
    for (uint32_t row = 0; row < window->output_h; ++row) {
        for (uint32_t column = 0; column < window->output_w; ++column) {
            const nn_window_area area = nn_window_clip(window, row, column);
            const size_t corner = ((size_t)area.top * window->input_w + (size_t)area.left) * window->channels;
            one_window(params, &area, input + corner, output);
            output += window->channels;
        }
    }
}
