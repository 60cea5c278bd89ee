/* 2-D convolution, int8, with Helium: two output pixels at a time are multiplied with all channels, read from the image where
 * their windows lie on it. Other windows, and those whose rows are no whole vectors, are copied first, with the zero point
 * outside.
 */
#include "conv2d_mve.h"

#include "patch.h"
#include "step_mve.h"

/* What stays the same during one call. */
typedef struct {
    const nn_conv2d_mve_params *params;
    const int8_t *input;
    uint32_t image_row; /* bytes */
    uint32_t row_bytes; /* of a window */
    uint32_t step;      /* bytes from the window of an output to that of the next in the row */
    uint32_t gap;       /* bytes from the end of a window's row on the image to its next one */
    int8_t *patch[2];   /* a copied window each */
    nn_mve_step all;    /* all channels but what is left of a last group */
    uint32_t left;      /* channels of that group */
    const uint32_t *last_record;
    const uint32_t *end;
} work;

/* y: where the windows of a row of outputs begin. Columns first..last - 1 have theirs on the image, the others are copied; both
 * begin at pairs. */
typedef struct {
    int32_t y;
    uint32_t first;
    uint32_t last;
} row_of_outputs;

static work prepare(const nn_conv2d_mve_params *params, const int8_t *input, int8_t *scratch, nn_mve_step step) {
    const nn_window *window = &params->window;
    const uint32_t records = (params->outputs + NN_MVE_GROUP - 1u) / NN_MVE_GROUP;
    work w;
    w.params = params;
    w.input = input;
    w.image_row = (uint32_t)window->input_w * window->channels;
    w.row_bytes = (uint32_t)window->kernel_w * window->channels;
    w.step = (uint32_t)window->stride_w * window->channels;
    w.gap = window->dilation_h * w.image_row - w.row_bytes;
    w.patch[0] = scratch;
    w.patch[1] = scratch + (window->kernel_h * w.row_bytes + 2u * NN_MVE_BYTES - 1u) / NN_MVE_BYTES * NN_MVE_BYTES;
    w.all = step;
    w.left = params->outputs % NN_MVE_GROUP;
    w.end = params->weights + params->words;
    w.last_record = w.left == 0u ? w.end : w.end - params->words / records;
    return w;
}

static uint32_t at_most(uint32_t x, uint32_t limit) { return x < limit ? x : limit; }

/* The windows of a row of outputs. */
static row_of_outputs find_row(const work *w, uint32_t row) {
    const nn_window *window = &w->params->window;
    const int32_t end_y = window->input_h - (window->kernel_h - 1) * window->dilation_h;
    const int32_t end_x = window->input_w - (window->kernel_w - 1) * window->dilation_w + window->padding_left;
    row_of_outputs found = {(int32_t)(row * window->stride_h) - window->padding_top, 0u, 0u};
    if (found.y >= 0 && found.y < end_y && end_x > 0) {
        found.first = (((uint32_t)window->padding_left + window->stride_w - 1u) / window->stride_w + 1u) & ~1u;
        found.last = at_most(((uint32_t)end_x + window->stride_w - 1u) / window->stride_w, window->output_w);
        found.last = found.last < window->output_w ? found.last & ~1u : found.last;
    }
    return found;
}

/* Where the window of an output begins that lies on the image. */
static const int8_t *first_pixel(const work *w, const row_of_outputs *row, uint32_t column) {
    const nn_window *window = &w->params->window;
    return w->input + (uint32_t)row->y * w->image_row + column * w->step - window->padding_left * window->channels;
}

/* A window to its patch. */
static void copy_window(const work *w, const row_of_outputs *row, uint32_t column, int8_t *to) {
    const nn_window *window = &w->params->window;
    const int32_t x = (int32_t)(column * window->stride_w) - window->padding_left;
    const int32_t room_y = window->input_h - (window->kernel_h - 1) * window->dilation_h - row->y;
    if (row->y >= 0 && x >= 0 && room_y > 0 && x + window->kernel_w <= window->input_w && window->dilation_w == 1u) {
        const int8_t *from = w->input + (uint32_t)row->y * w->image_row + (uint32_t)x * window->channels;
        nn_mve_copy_rows(from, window->dilation_h * w->image_row, to, w->row_bytes, w->row_bytes, window->kernel_h);
    } else {
        nn_copy_patch(window, w->input, row->y, x, window->kernel_h, window->kernel_w, w->params->fill, to);
    }
}

/* All channels of two pixels. */
static void compute(const work *w, nn_mve_block *block, int8_t *first, int8_t *second) {
    block->output[0] = first;
    block->output[1] = second;
    block->weights = w->params->weights;
    block->end = w->last_record;
    if (block->weights != block->end) {
        w->all(block);
    }
    if (w->left != 0u) {
        int8_t last[2][NN_MVE_GROUP];
        first = block->output[0];
        second = block->output[1];
        block->output[0] = last[0];
        block->output[1] = last[1];
        block->weights = w->last_record;
        block->end = w->end;
        w->all(block);
        for (uint32_t i = 0; i < w->left; ++i) {
            first[i] = last[0][i];
            second[i] = last[1][i];
        }
    }
}

/* Columns begin..end - 1 through copies of their windows. The last pixel is done twice where no two are left. */
static void compute_copied(const work *w, const row_of_outputs *row, uint32_t begin, uint32_t end, int8_t *output,
                           nn_mve_block *block) {
    block->pixel[0] = w->patch[0];
    block->gap = 0u;
    for (; begin < end; begin += 2u) {
        const uint32_t second = begin + 1u < end ? 1u : 0u;
        copy_window(w, row, begin, w->patch[0]);
        if (second != 0u) {
            copy_window(w, row, begin + 1u, w->patch[1]);
        }
        block->pixel[1] = w->patch[second];
        compute(w, block, output + begin * w->params->outputs, output + (begin + second) * w->params->outputs);
    }
}

/* How many pairs of columns from row->first on have windows of short rows whose last vectors end on the image. */
static uint32_t short_pairs(const work *w, const row_of_outputs *row, const int8_t *pixel) {
    const nn_window *window = &w->params->window;
    if (w->row_bytes > NN_MVE_BYTES || window->dilation_w != 1u) {
        return 0u;
    }
    const uint32_t reach = (window->kernel_h - 1u) * window->dilation_h * w->image_row + w->step + NN_MVE_BYTES;
    const uint32_t rest = (uint32_t)(w->input + window->input_h * w->image_row - pixel);
    const uint32_t pairs = rest < reach ? 0u : (rest - reach) / (2u * w->step) + 1u;
    return at_most(pairs, (row->last - row->first) / 2u);
}

/* Pairs of windows of short rows, copied together. Gives the column behind them. */
static uint32_t compute_short(const work *w, const row_of_outputs *row, int8_t *output, nn_mve_block *block) {
    const nn_window *window = &w->params->window;
    const uint32_t outputs = w->params->outputs;
    const int8_t *pixel = first_pixel(w, row, row->first);
    const uint32_t pairs = short_pairs(w, row, pixel);
    nn_mve_two two = {{pixel, pixel + w->step}, {w->patch[0], w->patch[1]}, w->row_bytes, window->dilation_h * w->image_row};
    block->gap = 0u;
    block->pixel[0] = w->patch[0];
    block->pixel[1] = w->patch[1];
    output += row->first * outputs;
    for (uint32_t i = 0; i < pairs; ++i, output += 2u * outputs) {
        nn_mve_copy_two(&two, window->kernel_h);
        two.from[0] += 2u * w->step;
        two.from[1] += 2u * w->step;
        compute(w, block, output, output + outputs);
    }
    return row->first + 2u * pairs;
}

/* The columns whose windows lie on the image. Gives the column behind them. */
static uint32_t compute_inside(const work *w, const row_of_outputs *row, int8_t *output, nn_mve_block *block) {
    const int8_t *pixel = first_pixel(w, row, row->first);
    output += row->first * w->params->outputs;
    block->gap = w->gap;
    for (uint32_t column = row->first; column < row->last; column += 2u) {
        const uint32_t second = column + 1u < row->last ? 1u : 0u;
        block->pixel[0] = pixel;
        block->pixel[1] = pixel + second * w->step;
        compute(w, block, output, output + second * w->params->outputs);
        pixel += 2u * w->step;
        output += 2u * w->params->outputs;
    }
    return row->last;
}

static void convolve(const nn_conv2d_mve_params *params, const int8_t *input, int8_t *output, int8_t *scratch,
                     nn_mve_step step) {
    const work w = prepare(params, input, scratch, step);
    const uint32_t columns = params->window.output_w;
    const uint32_t row_bytes = columns * params->outputs;
    nn_mve_block block = {{input, input}, {output, output}, params->weights, params->weights, params->rows,
                          params->vectors, params->tail, 0u, params->zero_point, {0u, 0u}};
    for (uint32_t y = 0; y < params->window.output_h; ++y) {
        const row_of_outputs row = find_row(&w, y);
        int8_t *to = output + y * row_bytes;
        uint32_t next = 0u;
        if (row.first < row.last) {
            compute_copied(&w, &row, 0u, row.first, to, &block);
            next = params->gathered != 0u ? compute_short(&w, &row, to, &block) : compute_inside(&w, &row, to, &block);
        }
        compute_copied(&w, &row, next, columns, to, &block);
    }
    if (params->clamped != 0u) {
        nn_mve_clamp(output, params->window.output_h * row_bytes, params->min, params->max);
    }
}

void nn_conv2d_mve_plain(const nn_conv2d_mve_params *params, const int8_t *input, int8_t *output, int8_t *scratch) {
    convolve(params, input, output, scratch, nn_mve_pair_plain);
}

void nn_conv2d_mve_signed(const nn_conv2d_mve_params *params, const int8_t *input, int8_t *output, int8_t *scratch) {
    convolve(params, input, output, scratch, nn_mve_pair_signed);
}

void nn_conv2d_mve_general(const nn_conv2d_mve_params *params, const int8_t *input, int8_t *output, int8_t *scratch) {
    convolve(params, input, output, scratch, nn_mve_pair_general);
}
