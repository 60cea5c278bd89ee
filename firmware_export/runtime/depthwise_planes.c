/* 3x3 depthwise convolution, int8: a few channels at a time are copied out of the image to planes with a border, where
 * neighbouring pixels lie side by side, and go back to their places in the image when they are done.
 */
#include "depthwise_planes.h"

#include "step_depthwise.h"

#define GROUP 4u

static uint32_t lanes(int32_t first, int32_t second) { return ((uint32_t)first & 0xffffu) | (uint32_t)second << 16; }

static uint32_t *fill_words(uint32_t *word, uint32_t count, uint32_t value) {
    for (; count > 0u; --count) {
        *word++ = value;
    }
    return word;
}

/* The border stays as it is while channels come and go. */
static void fill_border(const nn_depthwise_planes_params *params, int8_t *plane) {
    const uint32_t value = lanes(params->fill, params->fill);
    const uint32_t copied = (uint32_t)params->lead + params->pairs + params->trail;
    const uint32_t apart = copied + params->plane_row_step / sizeof(uint32_t);
    uint32_t *row = (uint32_t *)(void *)(plane + params->first);
    fill_words((uint32_t *)(void *)plane, params->first / sizeof(uint32_t), value);
    for (uint32_t count = params->copy_rows; count > 1u; --count) {
        fill_words(row + copied, params->border_words, value);
        row += apart;
    }
    row += copied;
    fill_words(row, (uint32_t)((uint32_t *)(void *)(plane + params->plane_bytes) - row), value);
}

static void copy_group(const nn_depthwise_planes_params *params, const int8_t *image, int8_t *plane) {
    const nn_plane_copy copy = {image,
                                (int16_t *)(void *)plane,
                                params->copy_rows,
                                params->pixel_step,
                                params->plane_bytes,
                                0x01010101u * (uint8_t)params->fill,
                                params->pairs,
                                params->lead,
                                params->trail,
                                params->row_step,
                                params->plane_row_step};
    nn_planes_copy(&copy);
}

static void copy_one(const nn_depthwise_planes_params *params, const int8_t *image, int8_t *plane) {
    const uint32_t step = params->pixel_step;
    uint32_t *to = (uint32_t *)(void *)plane;
    for (uint32_t row = 0; row < params->copy_rows; ++row) {
        if (params->lead != 0u) {
            *to++ = lanes(params->fill, *image);
            image += step;
        }
        for (uint32_t pair = params->pairs; pair > 0u; --pair) {
            *to++ = lanes(image[0], image[step]);
            image += 2u * step;
        }
        if (params->trail != 0u) {
            *to++ = lanes(*image, params->fill);
            image += step;
        }
        image += params->row_step;
        to += params->plane_row_step / sizeof *to;
    }
}

static void one_channel(const nn_depthwise_planes_params *params, uint32_t channel, const int8_t *plane, int8_t *output,
                        nn_plane_step step) {
    const int32_t *constants = params->constants + 2u * channel;
    const nn_plane_channel call = {(const int16_t *)(const void *)plane,
                                   params->weights + 9u * channel,
                                   (uint32_t)constants[0],
                                   constants[1],
                                   output + channel,
                                   params->output_step,
                                   params->words,
                                   params->plane_skip,
                                   params->output_skip,
                                   params->rows,
                                   params->alone};
    step(&call);
}

static void clamp(int8_t *x, uint32_t count, int32_t min, int32_t max) {
    for (; count > 0u; --count, ++x) {
        *x = (int8_t)(*x < min ? min : *x > max ? max : *x);
    }
}

/* The last group of four begins so early that it does not reach over the image's end; channels that are done are skipped. */
static void convolve(const nn_depthwise_planes_params *params, const int8_t *input, int8_t *output, int8_t *scratch,
                     nn_plane_step step) {
    const uint32_t channels = params->channels;
    for (uint32_t i = 0; i < params->group; ++i) {
        fill_border(params, scratch + i * params->plane_bytes);
    }
    for (uint32_t channel = 0; channel < channels;) {
        uint32_t begin = channel;
        if (params->group == GROUP) {
            begin = channel + GROUP > channels ? channels - GROUP : channel;
            copy_group(params, input + begin, scratch + params->first);
        } else {
            copy_one(params, input + begin, scratch + params->first);
        }
        for (; channel < begin + params->group; ++channel) {
            one_channel(params, channel, scratch + (channel - begin) * params->plane_bytes, output, step);
        }
    }
    if (params->min > INT8_MIN || params->max < INT8_MAX) {
        clamp(output, params->output_bytes, params->min, params->max);
    }
}

void nn_depthwise_planes_s1_7(const nn_depthwise_planes_params *params, const int8_t *input, int8_t *output, int8_t *scratch) {
    convolve(params, input, output, scratch, nn_plane_s1_7);
}

void nn_depthwise_planes_s1_10(const nn_depthwise_planes_params *params, const int8_t *input, int8_t *output, int8_t *scratch) {
    convolve(params, input, output, scratch, nn_plane_s1_10);
}

void nn_depthwise_planes_s2_7(const nn_depthwise_planes_params *params, const int8_t *input, int8_t *output, int8_t *scratch) {
    convolve(params, input, output, scratch, nn_plane_s2_7);
}

void nn_depthwise_planes_s2_10(const nn_depthwise_planes_params *params, const int8_t *input, int8_t *output, int8_t *scratch) {
    convolve(params, input, output, scratch, nn_plane_s2_10);
}

void nn_depthwise_planes_s1_7_wide(const nn_depthwise_planes_params *params, const int8_t *input, int8_t *output,
                                   int8_t *scratch) {
    convolve(params, input, output, scratch, nn_plane_s1_7_wide);
}

void nn_depthwise_planes_s1_10_wide(const nn_depthwise_planes_params *params, const int8_t *input, int8_t *output,
                                    int8_t *scratch) {
    convolve(params, input, output, scratch, nn_plane_s1_10_wide);
}

void nn_depthwise_planes_s2_7_wide(const nn_depthwise_planes_params *params, const int8_t *input, int8_t *output,
                                   int8_t *scratch) {
    convolve(params, input, output, scratch, nn_plane_s2_7_wide);
}

void nn_depthwise_planes_s2_10_wide(const nn_depthwise_planes_params *params, const int8_t *input, int8_t *output,
                                    int8_t *scratch) {
    convolve(params, input, output, scratch, nn_plane_s2_10_wide);
}
