/* 3x3 depthwise convolution, int8: a few channels at a time are copied out of the image to planes with a border, where
 * neighbouring pixels lie side by side, a band of rows after the other. Their outputs go back to their places in the image:
 * when a row of outputs is written, the rows of those channels that it needs have been copied.
 */
#include "depthwise_planes.h"

#include "lanes.h"
#include "step_depthwise.h"

#define GROUP 4u
#define KERNEL 3u

typedef struct {
    const nn_depthwise_planes_params *params;
    int8_t *planes;
    nn_plane_copy copy; /* but for image, plane and rows */
    uint32_t border;    /* a word of fill */
} work;

static work prepare(const nn_depthwise_planes_params *params, int8_t *planes) {
    const uint32_t pixels = params->lead + 2u * params->pairs + params->trail;
    const uint32_t copied_words = (uint32_t)params->lead + params->pairs + params->trail;
    work w;
    w.params = params;
    w.planes = planes;
    w.border = nn_lanes(params->fill, params->fill);
    w.copy.pixel_step = params->pixel_step;
    w.copy.plane_step = params->plane_bytes;
    w.copy.fill = 0x01010101u * (uint8_t)params->fill;
    w.copy.pairs = params->pairs;
    w.copy.lead = params->lead;
    w.copy.trail = params->trail;
    w.copy.row_step = (int32_t)params->image_row_step - (int32_t)(pixels * params->pixel_step);
    w.copy.plane_row_step = params->pitch - copied_words * (uint32_t)sizeof(uint32_t);
    return w;
}

static uint32_t *row_of(const work *w, uint32_t plane, uint32_t row) {
    return (uint32_t *)(void *)(w->planes + plane * w->params->plane_bytes + row * w->params->pitch);
}

/* Words are filled and moved four at a time: a plane's pitch is a multiple of that. */
typedef struct {
    uint32_t word[4];
} quad;

/* Rows outside the image, and once the words beside the pixels of all rows, which nothing overwrites. */
static void fill_rows(const work *w, uint32_t row, uint32_t count) {
    const quad border = {{w->border, w->border, w->border, w->border}};
    for (uint32_t plane = 0; plane < w->params->group; ++plane) {
        for (uint32_t i = row; i < row + count; ++i) {
            quad *to = (quad *)(void *)row_of(w, plane, i);
            for (int32_t left = w->params->row_words; left > 0; left -= 4) {
                *to++ = border;
            }
        }
    }
}

/* One channel's rows, as nn_planes_copy does it for four. */
static void copy_one(const nn_plane_copy *copy, int32_t fill) {
    const int8_t *image = copy->image;
    uint32_t *to = (uint32_t *)(void *)copy->plane;
    for (uint32_t row = 0; row < copy->rows; ++row) {
        if (copy->lead != 0u) {
            *to++ = nn_lanes(fill, *image);
            image += copy->pixel_step;
        }
        for (uint32_t pair = copy->pairs; pair > 0u; --pair) {
            *to++ = nn_lanes(image[0], image[copy->pixel_step]);
            image += 2u * copy->pixel_step;
        }
        if (copy->trail != 0u) {
            *to++ = nn_lanes(*image, fill);
            image += copy->pixel_step;
        }
        image += copy->row_step;
        to += copy->plane_row_step / sizeof *to;
    }
}

/* count rows of the image, the first of them image_row, to the planes' rows from `row` on. */
static void put_rows(work *w, const int8_t *image, int32_t image_row, uint32_t row, uint32_t count) {
    const nn_depthwise_planes_params *params = w->params;
    const int is_filled = params->band >= params->rows; /* where one band holds all, nothing overwrites these rows */
    if (image_row < 0) {
        const uint32_t above = (uint32_t)-image_row < count ? (uint32_t)-image_row : count;
        fill_rows(w, row, is_filled ? 0u : above);
        row += above;
        count -= above;
        image_row = 0;
    }
    const uint32_t left = image_row < params->image_rows ? params->image_rows - (uint32_t)image_row : 0u;
    const uint32_t inside = left < count ? left : count;
    if (inside > 0u) {
        w->copy.image = image + (uint32_t)image_row * params->image_row_step;
        w->copy.plane = (int16_t *)(void *)(row_of(w, 0u, row) + params->first_word);
        w->copy.rows = inside;
        if (params->group == GROUP) {
            nn_planes_copy(&w->copy);
        } else {
            copy_one(&w->copy, params->fill);
        }
    }
    fill_rows(w, row + inside, is_filled ? 0u : count - inside);
}

/* The last rows of a full band are the first of the next one. */
static void keep_rows(const work *w) {
    const uint32_t from = (uint32_t)w->params->band * w->params->stride;
    for (uint32_t plane = 0; plane < w->params->group; ++plane) {
        for (uint32_t row = 0; row < KERNEL - w->params->stride; ++row) {
            const quad *source = (const quad *)(const void *)row_of(w, plane, from + row);
            quad *to = (quad *)(void *)row_of(w, plane, row);
            for (int32_t left = w->params->row_words; left > 0; left -= 4) {
                *to++ = *source++;
            }
        }
    }
}

/* One channel without linear form, by the reference's output stage. */
static void compute_general(const work *w, uint32_t plane, uint32_t channel, uint32_t count, int8_t *output) {
    const nn_depthwise_planes_params *params = w->params;
    const uint32_t columns = params->words * (params->stride == 1u ? 2u : 1u) + params->alone;
    const uint32_t pitch = params->pitch / (uint32_t)sizeof(int16_t);
    const int8_t *taps = params->weights + 9u * channel;
    for (uint32_t row = 0; row < count; ++row, output += params->output_row_step) {
        const int16_t *x = (const int16_t *)(const void *)row_of(w, plane, row * params->stride);
        for (uint32_t column = 0; column < columns; ++column, x += params->stride) {
            int32_t sum = 0;
            for (uint32_t tap = 0; tap < KERNEL * KERNEL; ++tap) {
                sum += taps[tap] * x[tap / KERNEL * pitch + tap % KERNEL];
            }
            const uint32_t accumulator = (uint32_t)params->constants[2u * channel] + (uint32_t)sum;
            output[column * params->output_step] = nn_output(&params->stage, channel, accumulator);
        }
    }
}

/* Channels with linear form, first..last - 1 of a group that begins at channel begin. */
static void compute_linear(const work *w, uint32_t begin, uint32_t first, uint32_t last, uint32_t count, int8_t *output,
                           nn_plane_step step) {
    const nn_depthwise_planes_params *params = w->params;
    const uint32_t row_bytes = params->words * (uint32_t)sizeof(uint32_t);
    const uint32_t outputs = params->words * (params->stride == 1u ? 2u : 1u);
    const nn_plane_channels channels = {params->output_step,
                                        {0u, 0u},
                                        (int32_t)((uint32_t)params->stride * params->pitch - row_bytes),
                                        (int32_t)(params->output_row_step - outputs * params->output_step),
                                        params->words,
                                        params->alone,
                                        row_bytes,
                                        count,
                                        (const int16_t *)(const void *)row_of(w, first - begin, 0u),
                                        output + first,
                                        params->weights + 9u * first,
                                        params->constants + 2u * first,
                                        params->plane_bytes,
                                        last - first};
    step(&channels);
}

/* Rows of outputs, as many as count, to output. */
static void compute(const work *w, uint32_t begin, uint32_t first, uint32_t last, uint32_t count, int8_t *output,
                    nn_plane_step step) {
    const int32_t *constants = w->params->constants;
    while (first < last) {
        uint32_t end = first;
        while (end < last && constants[2u * end + 1u] != 0) {
            ++end;
        }
        if (end > first) {
            compute_linear(w, begin, first, end, count, output, step);
        } else {
            compute_general(w, first - begin, first, count, output + first);
            ++end;
        }
        first = end;
    }
}

/* All rows of some channels. */
static void convolve_group(work *w, uint32_t begin, uint32_t first, uint32_t last, const int8_t *input, int8_t *output,
                           nn_plane_step step) {
    const nn_depthwise_planes_params *params = w->params;
    const uint32_t stride = params->stride;
    for (uint32_t row = 0; row < params->rows; row += params->band) {
        const uint32_t left = params->rows - row;
        const uint32_t count = left < params->band ? left : params->band;
        const int32_t image_row = (int32_t)(row * stride) - params->before;
        if (row == 0u) {
            put_rows(w, input + begin, image_row, 0u, (count - 1u) * stride + KERNEL);
        } else {
            keep_rows(w);
            put_rows(w, input + begin, image_row + (int32_t)(KERNEL - stride), KERNEL - stride, count * stride);
        }
        compute(w, begin, first, last, count, output + row * params->output_row_step, step);
    }
}

static void clamp(int8_t *x, uint32_t count, int32_t min, int32_t max) {
    for (; count > 0u; --count, ++x) {
        *x = (int8_t)(*x < min ? min : *x > max ? max : *x);
    }
}

/* The last group of four begins so early that it does not reach over the image's end; channels that are done are skipped. */
static void convolve(const nn_depthwise_planes_params *params, const int8_t *input, int8_t *output, int8_t *scratch,
                     nn_plane_step step) {
    work w = prepare(params, scratch);
    fill_rows(&w, 0u, params->plane_bytes / params->pitch);
    for (uint32_t channel = 0; channel < params->channels; channel += params->group) {
        const uint32_t last = channel + params->group < params->channels ? channel + params->group : params->channels;
        convolve_group(&w, last - params->group, channel, last, input, output, step);
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
