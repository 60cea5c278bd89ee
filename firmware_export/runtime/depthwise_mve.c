/* Depthwise convolution, int8, with Helium: strips of four image rows, interleaved with their border, give one row of outputs
 * or two. Of an odd number of rows, the last but one is computed again with the last.
 */
#include "depthwise_mve.h"

#include "step_depthwise_mve.h"
#include "step_mve.h"

#define WINDOW 3u
#define WORD 4u

/* What stays the same during one call. */
typedef struct {
    const nn_depthwise_mve_params *params;
    const int8_t *input;
    uint32_t columns;      /* of the strip */
    uint32_t image;        /* columns of them that come from the image */
    nn_strip_rows outside; /* rows of fill */
    int8_t *strip;
} work;

static work prepare(const nn_depthwise_mve_params *params, const int8_t *input, const int8_t *fill, int8_t *scratch) {
    work w;
    w.params = params;
    w.input = input;
    w.columns = (params->output_columns - 1u) * params->stride_columns + WINDOW;
    const uint32_t behind = w.columns > params->padding_columns ? w.columns - params->padding_columns : 0u;
    w.image = behind < params->size_columns ? behind : params->size_columns;
    for (uint32_t i = 0; i < NN_STRIP_ROWS; ++i) {
        w.outside.row[i] = fill;
        w.outside.step[i] = 0u;
    }
    w.strip = scratch;
    return w;
}

/* Four image rows from y on; those outside the image are fill. */
static nn_strip_rows find_rows(const work *w, int32_t y) {
    nn_strip_rows rows = w->outside;
    for (uint32_t i = 0; i < NN_STRIP_ROWS; ++i, ++y) {
        if (y >= 0 && y < w->params->size_rows) {
            rows.row[i] = w->input + (uint32_t)y * w->params->row_bytes;
            rows.step[i] = NN_MVE_BYTES;
        }
    }
    return rows;
}

/* Columns of fill, from a place in the strip. */
static void fill_columns(const work *w, uint32_t first, uint32_t count) {
    const uint32_t channels = w->params->channels;
    nn_strip_interleave(&w->outside, w->strip + WORD * first * channels, count * channels);
}

/* The image's columns where they are neighbours in memory, else one by one. */
static void copy_columns(const work *w, nn_strip_rows *rows) {
    const uint32_t channels = w->params->channels;
    int8_t *to = w->strip + WORD * w->params->padding_columns * channels;
    if (w->params->column_bytes == channels) {
        nn_strip_interleave(rows, to, w->image * channels);
        return;
    }
    for (uint32_t column = 0; column < w->image; ++column, to += WORD * channels) {
        nn_strip_interleave(rows, to, channels);
        for (uint32_t i = 0; i < NN_STRIP_ROWS; ++i) {
            rows->row[i] += rows->step[i] != 0u ? w->params->column_bytes : 0u;
        }
    }
}

static void load_strip(const work *w, uint32_t output_row) {
    const nn_depthwise_mve_params *params = w->params;
    nn_strip_rows rows = find_rows(w, (int32_t)(output_row * params->stride_rows) - params->padding_rows);
    const uint32_t before = params->padding_columns < w->columns ? params->padding_columns : w->columns;
    fill_columns(w, 0u, before);
    copy_columns(w, &rows);
    fill_columns(w, before + w->image, w->columns - before - w->image);
}

static nn_strip outputs_of(const work *w, uint32_t rows) {
    const nn_depthwise_mve_params *params = w->params;
    const uint32_t pitch = WORD * params->channels;
    const uint32_t row = params->output_row_bytes;
    const uint32_t column = params->output_column_bytes;
    const nn_strip two = {{0u, pitch, 2u * pitch, 3u * pitch}, {0u, row, column, row + column}, 0, 0, 0, 0u, 0u, 0u, 0u, 0};
    const nn_strip one = {{0u, pitch, 2u * pitch, 0u}, {0u, column, 2u * column, 3u * column}, 0, 0, 0, 0u, 0u, 0u, 0u, 0};
    nn_strip strip = rows == 2u ? two : one;
    strip.strip = w->strip;
    strip.records = params->records;
    strip.count = params->channels;
    strip.columns = params->output_columns;
    strip.column = column;
    strip.stride = pitch * params->stride_columns;
    strip.zero_point = params->zero_point;
    return strip;
}

static void convolve(const nn_depthwise_mve_params *params, const int8_t *input, int8_t *output, int8_t *scratch,
                     uint32_t rows, nn_strip_step step) {
    int8_t fill[NN_MVE_BYTES];
    for (uint32_t i = 0; i < NN_MVE_BYTES; ++i) {
        fill[i] = params->fill;
    }
    const work w = prepare(params, input, fill, scratch);
    nn_strip strip = outputs_of(&w, rows);
    for (uint32_t next = 0; next < params->output_rows; next += rows) {
        const uint32_t row = next + rows <= params->output_rows ? next : params->output_rows - rows;
        load_strip(&w, row);
        strip.output = output + row * params->output_row_bytes;
        step(&strip);
    }
    if (params->clamped != 0u) {
        nn_mve_clamp(output, (uint32_t)params->output_rows * params->output_columns * params->channels, params->min,
                     params->max);
    }
}

void nn_depthwise_mve_two_rows_plain(const nn_depthwise_mve_params *params, const int8_t *input, int8_t *output,
                                     int8_t *scratch) {
    convolve(params, input, output, scratch, 2u, nn_strip_two_rows_plain);
}

void nn_depthwise_mve_two_rows_signed(const nn_depthwise_mve_params *params, const int8_t *input, int8_t *output,
                                      int8_t *scratch) {
    convolve(params, input, output, scratch, 2u, nn_strip_two_rows_signed);
}

void nn_depthwise_mve_one_row_plain(const nn_depthwise_mve_params *params, const int8_t *input, int8_t *output,
                                    int8_t *scratch) {
    convolve(params, input, output, scratch, 1u, nn_strip_one_row_plain);
}

void nn_depthwise_mve_one_row_signed(const nn_depthwise_mve_params *params, const int8_t *input, int8_t *output,
                                     int8_t *scratch) {
    convolve(params, input, output, scratch, 1u, nn_strip_one_row_signed);
}
