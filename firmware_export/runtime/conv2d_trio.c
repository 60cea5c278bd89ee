/* 2-D convolution, int8, on weights packed for step_trio.h: six output pixels at a time are expanded once and multiplied with
 * all channels. Where not all six windows lie on the image in one row, they are copied first, with the zero point outside.
 */
#include "conv2d_trio.h"

#include "output_pixels.h"
#include "patch.h"
#include "step_trio.h"

typedef void (*channels_step)(nn_trio_block *block);

/* What stays the same during one call, and the block that is at work. */
typedef struct {
    const nn_conv2d_trio_params *params;
    const int8_t *input;
    uint32_t image_row;  /* bytes */
    uint32_t pixel_step; /* bytes from an output's window to that of the next in the row */
    uint32_t gap;        /* bytes from a window's row to the next */
    uint32_t flip;       /* what was added to the weights */
    int32_t last_y;      /* windows that begin in rows 0..last_y and columns 0..last_x lie on the image */
    int32_t last_x;
    uint32_t *x;         /* expanded pixels */
    int8_t *patches;     /* copied windows */
    uint32_t patch_bytes;
    int8_t *tail; /* outputs of less than six pixels */
    channels_step step;
    nn_trio_block block;
} work;

static uint32_t round_up(uint32_t bytes) { return (bytes + 3u) & ~3u; }

static nn_trio_block first_block(const nn_conv2d_trio_params *params, const uint32_t *x) {
    const uint32_t outer = NN_TRIO_BIAS + (NN_TRIO_BIAS << 21);
    const uint32_t inner = NN_TRIO_BIAS + (NN_TRIO_BIAS << 10);
    const uint32_t over = params->depth % NN_TRIO_UNROLLED;
    const nn_trio_block block = {params->outputs,
                                 params->shift,
                                 0,
                                 (const int8_t *)params->weights + params->limit,
                                 params->rounding,
                                 x,
                                 params->depth,
                                 params->weights,
                                 {outer, inner, outer, inner},
                                 params->form,
                                 over == 0u ? 0u : NN_TRIO_UNROLLED - over};
    return block;
}

static work prepare(const nn_conv2d_trio_params *params, const int8_t *input, int8_t *scratch, channels_step step,
                    uint32_t flip) {
    const nn_window *window = &params->window;
    work w;
    w.params = params;
    w.input = input;
    w.image_row = (uint32_t)window->input_w * window->channels;
    w.pixel_step = (uint32_t)window->stride_w * window->channels;
    w.gap = window->kernel_h > 1u ? window->dilation_h * w.image_row - params->row_bytes : 0u;
    w.flip = flip;
    w.last_y = params->gathered != 0u ? -1 : window->input_h - 1 - (window->kernel_h - 1) * window->dilation_h;
    w.last_x = window->input_w - window->kernel_w;
    w.x = (uint32_t *)(void *)scratch;
    w.patches = scratch + params->depth * NN_TRIO_WORDS * sizeof(uint32_t);
    w.patch_bytes = (uint32_t)window->kernel_h * window->kernel_w * window->channels;
    w.tail = w.patches + round_up(NN_TRIO_PIXELS * w.patch_bytes);
    w.step = step;
    w.block = first_block(params, w.x);
    return w;
}

/* How often six pixels from here on lie in this row of outputs with all their windows on the image. */
static uint32_t sixes_inside(const work *w, const nn_output_pixel *at) {
    const nn_window *window = &w->params->window;
    if (at->y < 0 || at->x < 0 || at->y > w->last_y || at->x > w->last_x) {
        return 0u;
    }
    const uint32_t inside = (uint32_t)(w->last_x - at->x) / window->stride_w + 1u;
    const uint32_t pixels = window->output_w - at->column < inside ? window->output_w - at->column : inside;
    return pixels / NN_TRIO_PIXELS;
}

/* Expands one pass, and has the words start from what makes good the flip of the weights. */
static void expand(work *w, const nn_trio_source *source) {
    const uint32_t depth = source->rows * source->row_bytes;
    if (w->flip == 0u) {
        uint32_t unused[NN_TRIO_WORDS];
        nn_trio_expand(source, w->x, unused);
    } else {
        uint32_t sums[NN_TRIO_WORDS] = {0, 0, 0, 0};
        nn_trio_expand(source, w->x, sums);
        for (uint32_t i = 0; i < NN_TRIO_WORDS; ++i) {
            w->block.first[i] = NN_TRIO_BIAS + (i % 2u == 0u ? NN_TRIO_BIAS << 21 : NN_TRIO_BIAS << 10) - w->flip * sums[i];
        }
    }
    for (uint32_t i = depth * NN_TRIO_WORDS; i < w->params->depth * NN_TRIO_WORDS; ++i) {
        w->x[i] = 0u;
    }
}

/* All channels of six pixels to output. */
static void compute(work *w, const nn_trio_source *source, int8_t *output) {
    expand(w, source);
    w->block.output = output;
    w->step(&w->block);
}

/* The sums of a pass, of so many trios, to the others; is_first: there are no others. */
static void add_sums(const uint32_t *words, uint32_t trios, int is_first, int32_t *sums) {
    for (; trios > 0u; --trios, words += 2, sums += 3) {
        int32_t three[3];
        nn_trio_sums(words[0], words[1], three);
        sums[0] = is_first ? three[0] : sums[0] + three[0];
        sums[1] = is_first ? three[1] : sums[1] + three[1];
        sums[2] = is_first ? three[2] : sums[2] + three[2];
    }
}

/* packing/trio_forms.py with 8 fraction bits. */
static inline int8_t wide_value(int32_t sum, const int32_t *constants, int32_t rounding, uint32_t shift) {
    const int32_t value = nn_multiply_high((int32_t)((uint32_t)sum << 8) + constants[0], constants[1]);
    return nn_saturate((value + rounding - (value < 0 ? constants[2] : 0)) >> shift);
}

/* The values of all channels of six pixels from their sums [channel][odd or even pixel][3]. */
static void store_wide(const nn_conv2d_trio_params *params, const int32_t *sums, int8_t *output) {
    const uint32_t step = params->outputs;
    const uint32_t shift = params->shift;
    const int32_t rounding = params->rounding;
    const int32_t *constants = params->constants;
    for (uint32_t channel = 0; channel < step; ++channel, constants += 3, ++output) {
        for (uint32_t odd = 0; odd < 2u; ++odd, sums += 3) {
            int8_t *trio = output + odd * step;
            trio[0] = wide_value(sums[0], constants, rounding, shift);
            trio[2u * step] = wide_value(sums[1], constants, rounding, shift);
            trio[4u * step] = wide_value(sums[2], constants, rounding, shift);
        }
    }
}

/* The same by the reference's output stage; constants: what is added to the sums. */
static void store_general(const nn_conv2d_trio_params *params, const int32_t *sums, int8_t *output) {
    for (uint32_t channel = 0; channel < params->outputs; ++channel) {
        for (uint32_t odd = 0; odd < 2u; ++odd) {
            for (uint32_t i = 0; i < 3u; ++i) {
                const uint32_t sum = (uint32_t)*sums++ + (uint32_t)params->constants[channel];
                output[(2u * i + odd) * params->outputs + channel] = nn_output(&params->stage, channel, sum);
            }
        }
    }
}

/* The same with wide sums: the words of all channels, then the sums behind them. */
static void compute_wide(work *w, const nn_trio_source *source, int8_t *output) {
    const nn_conv2d_trio_params *params = w->params;
    const uint32_t trios = 2u * params->outputs;
    uint32_t *words = (uint32_t *)(void *)(w->tail + round_up(NN_TRIO_PIXELS * params->outputs));
    int32_t *sums = (int32_t *)(void *)words + 2u * (trios + trios % 4u);
    nn_trio_source part = *source;
    w->block.form = NN_TRIO_RAW;
    for (uint32_t pass = 0; pass < params->passes; ++pass) {
        expand(w, &part);
        w->block.weights = (const int8_t *)params->weights + pass * params->pass_bytes;
        w->block.limit = (const int8_t *)w->block.weights + params->limit;
        w->block.output = (int8_t *)words;
        w->step(&w->block);
        add_sums(words, trios, pass == 0u, sums);
        part.pixel += part.rows * (part.row_bytes + part.gap);
    }
    if (params->form == NN_TRIO_RAW) {
        store_general(params, sums, output);
    } else {
        store_wide(params, sums, output);
    }
}

typedef void (*computation)(work *w, const nn_trio_source *source, int8_t *output);

/* Six pixels after the other in one row, their windows on the image. */
static void compute_inside(work *w, const nn_output_pixel *at, uint32_t sixes, int8_t *output, computation all) {
    const nn_conv2d_trio_params *params = w->params;
    nn_trio_source source = {w->input + (uint32_t)at->y * w->image_row + (uint32_t)at->x * params->window.channels,
                             w->pixel_step, params->row_bytes, params->rows, w->gap};
    for (; sixes > 0u; --sixes) {
        all(w, &source, output);
        source.pixel += NN_TRIO_PIXELS * w->pixel_step;
        output += NN_TRIO_PIXELS * params->outputs;
    }
}

/* Six pixels in one row by a copy of what lies under their windows together. */
static void compute_strip(work *w, nn_output_pixel *at, int8_t *output, computation all) {
    const nn_conv2d_trio_params *params = w->params;
    const nn_window *window = &params->window;
    const uint32_t columns = (NN_TRIO_PIXELS - 1u) * window->stride_w + window->kernel_w;
    const uint32_t gap = window->kernel_h > 1u ? columns * window->channels - params->row_bytes : 0u;
    const nn_trio_source source = {w->patches, w->pixel_step, params->row_bytes, params->rows, gap};
    nn_copy_patch(window, w->input, at->y, at->x, window->kernel_h, columns, params->fill, w->patches);
    all(w, &source, output);
    nn_advance(at, window, NN_TRIO_PIXELS);
}

/* Six pixels by copies of their windows, wherever they lie; the last pixel again where there are no six left. */
static void compute_copied(work *w, nn_output_pixel *at, int8_t *output, computation all) {
    const nn_conv2d_trio_params *params = w->params;
    const nn_window *window = &params->window;
    const nn_trio_source source = {w->patches, w->patch_bytes, params->row_bytes, params->rows, 0u};
    const uint32_t pixels = at->left < NN_TRIO_PIXELS ? at->left : NN_TRIO_PIXELS;
    for (uint32_t i = 0; i < NN_TRIO_PIXELS; ++i) {
        nn_copy_patch(window, w->input, at->y, at->x, window->kernel_h, window->kernel_w, params->fill,
                      w->patches + i * w->patch_bytes);
        if (i + 1u < pixels) {
            nn_advance(at, window, 1u);
        }
    }
    nn_advance(at, window, 1u);
    if (pixels == NN_TRIO_PIXELS) {
        all(w, &source, output);
    } else {
        all(w, &source, w->tail);
        __builtin_memcpy(output, w->tail, pixels * params->outputs);
    }
}

static void convolve(work w, int8_t *output, computation all) {
    const nn_conv2d_trio_params *params = w.params;
    nn_output_pixel at = nn_first_pixel(&params->window);
    const uint32_t size = at.left * params->outputs;
    const int has_strips = params->gathered == 0u && params->window.stride_w <= params->window.kernel_w;
    int8_t *next = output;
    while (at.left > 0u) {
        const uint32_t sixes = sixes_inside(&w, &at);
        if (sixes > 0u) {
            compute_inside(&w, &at, sixes, next, all);
            nn_advance(&at, &params->window, NN_TRIO_PIXELS * sixes);
        } else if (has_strips && at.column + NN_TRIO_PIXELS <= params->window.output_w) {
            compute_strip(&w, &at, next, all);
        } else {
            compute_copied(&w, &at, next, all);
        }
        next = output + size - at.left * params->outputs;
    }
    if (params->min > INT8_MIN || params->max < INT8_MAX) {
        for (uint32_t i = 0; i < size; ++i) {
            output[i] = nn_clamp(output[i], params->min, params->max);
        }
    }
}

#if !NN_V6M
void nn_conv2d_trio(const nn_conv2d_trio_params *params, const int8_t *input, int8_t *output, int8_t *scratch) {
    convolve(prepare(params, input, scratch, nn_trio_channels, 0u), output, compute);
}

void nn_conv2d_trio_wide(const nn_conv2d_trio_params *params, const int8_t *input, int8_t *output, int8_t *scratch) {
    convolve(prepare(params, input, scratch, nn_trio_channels, 0u), output, compute_wide);
}
#endif

#if !NN_V7M
void nn_conv2d_trio_flipped(const nn_conv2d_trio_params *params, const int8_t *input, int8_t *output, int8_t *scratch) {
    convolve(prepare(params, input, scratch, nn_trio_channels_flipped, 0x80u), output, compute);
}

void nn_conv2d_trio_wide_flipped(const nn_conv2d_trio_params *params, const int8_t *input, int8_t *output, int8_t *scratch) {
    convolve(prepare(params, input, scratch, nn_trio_channels_flipped, 0x80u), output, compute_wide);
}
#endif
