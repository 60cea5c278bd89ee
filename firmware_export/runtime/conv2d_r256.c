/* 2-D convolution, int8, on weights packed for step_r256.h: three output pixels at a time are expanded once and multiplied
 * with all channels. Pixels whose window reaches over the image's edge are copied first, with the zero point outside.
 */
#include "conv2d_r256.h"

#include "output_pixels.h"
#include "patch.h"

typedef void (*channels_step)(const nn_r256_block *block);

typedef struct nn_conv2d_r256_work work;
struct nn_conv2d_r256_work {
    const nn_conv2d_r256_params *params;
    const int8_t *input;
    uint32_t image_row;            /* bytes */
    uint32_t pixel_step;           /* bytes from an output's window to that of the next in the row */
    uint32_t read;                 /* bytes of each row of a window that are read as words */
    int32_t last_y;                /* windows that begin in rows 0..last_y and columns 0..last_x lie on the image */
    int32_t last_x;
    const int8_t *last_pixel;      /* where the last window may begin so that no word reaches over the image's end */
    int is_nine;                   /* the rows of a window are two words and one byte */
    uint32_t *x;                   /* expanded pixels */
    int8_t *patch[NN_R256_PIXELS]; /* a copied window each */
    int8_t *tail[NN_R256_PIXELS];  /* the ends of its rows */
    channels_step channels;        /* of a short form */
    nn_conv2d_r256_stage stage;    /* in place of it, or around it; 0 for most layers */
    int32_t *sums;                 /* only of the general form and of loose channels */
};

static uint32_t round_up(uint32_t bytes) { return (bytes + 3u) & ~3u; }

/* Behind the expanded pixels: copied windows, row ends, sums. */
static void divide_scratch(work *w, int8_t *next) {
    const nn_window *window = &w->params->window;
    const uint32_t patch = round_up((uint32_t)window->kernel_h * window->kernel_w * window->channels);
    const uint32_t tail = round_up((uint32_t)w->params->rows * w->params->row_tail);
    for (uint32_t i = 0; i < NN_R256_PIXELS; ++i) {
        w->patch[i] = next;
        w->tail[i] = next + patch;
        next += patch + tail;
    }
    w->sums = (int32_t *)(void *)next;
}

static work prepare(const nn_conv2d_r256_params *params, const int8_t *input, int8_t *scratch) {
    const nn_window *window = &params->window;
    work w;
    w.params = params;
    w.input = input;
    w.image_row = (uint32_t)window->input_w * window->channels;
    w.pixel_step = (uint32_t)window->stride_w * window->channels;
    w.read = params->row_words * 4u;
    w.last_y = params->gathered != 0u ? -1 : window->input_h - 1 - (window->kernel_h - 1) * window->dilation_h;
    w.last_x = window->input_w - window->kernel_w;
    const uint32_t reach = (params->rows - 1u) * window->dilation_h * w.image_row + w.read;
    w.last_pixel = input + window->input_h * w.image_row - reach;
    w.is_nine = params->rows == 3u && params->row_words == 2u && params->row_tail == 1u;
    w.x = (uint32_t *)(void *)scratch;
    divide_scratch(&w, scratch + params->steps * NN_R256_STEP_WORDS * sizeof(uint32_t));
    return w;
}

static const int8_t *pixel_at(const work *w, const nn_output_pixel *at) {
    return w->input + (uint32_t)at->y * w->image_row + (uint32_t)at->x * w->params->window.channels;
}

/* How often three pixels from here on lie in this row of outputs with all their windows on the image. */
static uint32_t triples_inside(const work *w, const nn_output_pixel *at) {
    const nn_window *window = &w->params->window;
    if (at->y < 0 || at->x < 0 || at->y > w->last_y || at->x > w->last_x || pixel_at(w, at) > w->last_pixel) {
        return 0u;
    }
    uint32_t pixels = (uint32_t)(w->last_x - at->x) / window->stride_w + 1u;
    const uint32_t whole = (uint32_t)(w->last_pixel - pixel_at(w, at)) / w->pixel_step + 1u;
    pixels = whole < pixels ? whole : pixels;
    pixels = window->output_w - at->column < pixels ? window->output_w - at->column : pixels;
    return pixels / NN_R256_PIXELS;
}

/* Where the window of pixel i begins: on the image, or copied to its patch. */
static void find_window(const work *w, const nn_output_pixel *at, uint32_t i, nn_r256_source *source) {
    const nn_window *window = &w->params->window;
    if (at->y >= 0 && at->x >= 0 && at->y <= w->last_y && at->x <= w->last_x && pixel_at(w, at) <= w->last_pixel) {
        source->pixel[i] = pixel_at(w, at);
        source->gap[i] = window->dilation_h * w->image_row - w->read;
        return;
    }
    nn_copy_patch(window, w->input, at->y, at->x, window->kernel_h, window->kernel_w, w->params->fill, w->patch[i]);
    source->pixel[i] = w->patch[i];
    source->gap[i] = (uint32_t)window->kernel_w * window->channels - w->read;
}

/* The bytes of the kernel's rows that are no whole word, together. */
static void expand_tails(const work *w, const nn_r256_source *source, uint32_t *x) {
    const nn_conv2d_r256_params *params = w->params;
    for (uint32_t i = 0; i < NN_R256_PIXELS; ++i) {
        const int8_t *from = source->pixel[i] + w->read;
        int8_t *to = w->tail[i];
        for (uint32_t row = 0; row < params->rows; ++row) {
            for (uint32_t byte = 0; byte < params->row_tail; ++byte) {
                *to++ = from[byte];
            }
            from += w->read + source->gap[i];
        }
    }
    const nn_r256_source tails = {
        {w->tail[0], w->tail[1], w->tail[2]}, ((uint32_t)params->rows * params->row_tail + 3u) / 4u, 1u, {0u, 0u, 0u}};
    nn_r256_expand(&tails, x);
}

static void clamp(int8_t *x, uint32_t count, int32_t min, int32_t max) {
    for (; count > 0u; --count, ++x) {
        *x = nn_clamp(*x, min, max);
    }
}

/* All channels of three pixels to block->output. */
static void compute(const work *w, const nn_r256_source *source, const nn_r256_block *block) {
    if (w->is_nine) {
        nn_r256_expand_nine(source, w->x);
    } else {
        uint32_t *x = nn_r256_expand(source, w->x);
        if (w->params->row_tail != 0u) {
            expand_tails(w, source, x);
        }
    }
    if (w->stage == 0) {
        w->channels(block);
    } else {
        w->stage(w, block);
    }
}

/* Three pixels after the other in one row, their windows on the image. */
static void compute_inside(const work *w, const nn_output_pixel *at, uint32_t triples, nn_r256_source *source,
                           nn_r256_block *block) {
    const uint32_t gap = w->params->window.dilation_h * w->image_row - w->read;
    const uint32_t pixel_step = w->pixel_step;
    const uint32_t outputs = w->params->outputs;
    const int8_t *pixel = pixel_at(w, at);
    int8_t *output = block->output[0];
    source->gap[0] = source->gap[1] = source->gap[2] = gap;
    for (; triples > 0u; --triples) {
        source->pixel[0] = pixel;
        source->pixel[1] = pixel + pixel_step;
        source->pixel[2] = pixel + 2u * pixel_step;
        block->output[0] = output;
        block->output[1] = output + outputs;
        block->output[2] = output + 2u * outputs;
        compute(w, source, block);
        pixel += NN_R256_PIXELS * pixel_step;
        output += NN_R256_PIXELS * outputs;
    }
}

/* Three pixels one by one, wherever they lie; the last pixel again where there are no three left. */
static void compute_any(const work *w, nn_output_pixel *at, nn_r256_source *source, nn_r256_block *block) {
    int8_t *output = block->output[0];
    for (uint32_t i = 0; i < NN_R256_PIXELS; ++i) {
        find_window(w, at, i, source);
        block->output[i] = output;
        if (at->left > 1u) {
            nn_advance(at, &w->params->window, 1u);
            output += w->params->outputs;
        }
    }
    compute(w, source, block);
}

/* The image with its border, as params->window describes it, in the scratch. */
static int8_t *copy_with_border(const nn_conv2d_r256_params *params, const int8_t *image, int8_t *to) {
    nn_window window = params->window;
    window.input_h = params->image_h;
    window.input_w = params->image_w;
    window.dilation_h = window.dilation_w = 1u;
    nn_copy_patch(&window, image, -(int32_t)params->border_top, -(int32_t)params->border_left, params->window.input_h,
                  params->window.input_w, params->fill, to);
    return to;
}

static void convolve(const nn_conv2d_r256_params *params, const int8_t *input, int8_t *output, int8_t *scratch,
                     channels_step channels, nn_conv2d_r256_stage stage) {
    const nn_window *window = &params->window;
    if (params->padded != 0u) {
        input = copy_with_border(params, input, scratch);
        scratch += round_up((uint32_t)window->input_h * window->input_w * window->channels);
    }
    work w = prepare(params, input, scratch);
    w.channels = channels;
    w.stage = stage;
    nn_r256_block block = {{output, output, output}, w.x,
                           params->steps,            params->weights + params->limit,
                           params->rounding,         params->weights};
    nn_r256_source source = {{input, input, input}, params->row_words, params->rows, {0u, 0u, 0u}};
    nn_output_pixel at = nn_first_pixel(window);
    const uint32_t pixels = at.left;
    uint32_t done = 0;
    while (done < pixels) {
        const uint32_t triples = triples_inside(&w, &at);
        block.output[0] = output + done * params->outputs;
        if (triples > 0u) {
            compute_inside(&w, &at, triples, &source, &block);
            done += NN_R256_PIXELS * triples;
            nn_advance(&at, window, NN_R256_PIXELS * triples);
        } else {
            compute_any(&w, &at, &source, &block);
            done += NN_R256_PIXELS;
        }
    }
    if (params->min > INT8_MIN || params->max < INT8_MAX) {
        clamp(output, pixels * params->outputs, params->min, params->max);
    }
}

void nn_conv2d_r256_linear_7(const nn_conv2d_r256_params *params, const int8_t *input, int8_t *output, int8_t *scratch) {
    convolve(params, input, output, scratch, nn_r256_linear_7, params->loose_stage);
}

void nn_conv2d_r256_linear_10(const nn_conv2d_r256_params *params, const int8_t *input, int8_t *output, int8_t *scratch) {
    convolve(params, input, output, scratch, nn_r256_linear_10, params->loose_stage);
}

void nn_conv2d_r256_linear_13(const nn_conv2d_r256_params *params, const int8_t *input, int8_t *output, int8_t *scratch) {
    convolve(params, input, output, scratch, nn_r256_linear_13, params->loose_stage);
}

void nn_conv2d_r256_linear_16(const nn_conv2d_r256_params *params, const int8_t *input, int8_t *output, int8_t *scratch) {
    convolve(params, input, output, scratch, nn_r256_linear_16, params->loose_stage);
}

void nn_conv2d_r256_signed_7(const nn_conv2d_r256_params *params, const int8_t *input, int8_t *output, int8_t *scratch) {
    convolve(params, input, output, scratch, nn_r256_signed_7, params->loose_stage);
}

void nn_conv2d_r256_signed_10(const nn_conv2d_r256_params *params, const int8_t *input, int8_t *output, int8_t *scratch) {
    convolve(params, input, output, scratch, nn_r256_signed_10, params->loose_stage);
}

void nn_conv2d_r256_signed_13(const nn_conv2d_r256_params *params, const int8_t *input, int8_t *output, int8_t *scratch) {
    convolve(params, input, output, scratch, nn_r256_signed_13, params->loose_stage);
}

void nn_conv2d_r256_signed_16(const nn_conv2d_r256_params *params, const int8_t *input, int8_t *output, int8_t *scratch) {
    convolve(params, input, output, scratch, nn_r256_signed_16, params->loose_stage);
}

void nn_conv2d_r256_loose(const work *w, const nn_r256_block *block) {
    const nn_conv2d_r256_params *params = w->params;
    const int32_t *sums = w->sums;
    nn_r256_block to_sums = *block;
    w->channels(block);
    to_sums.output[0] = (int8_t *)w->sums;
    to_sums.weights = params->loose_weights;
    to_sums.limit = params->loose_weights + params->loose_limit;
    nn_r256_sums(&to_sums);
    for (uint32_t loose = 0; loose < params->loose; ++loose) {
        const uint32_t channel = params->loose_channels[loose];
        for (uint32_t i = 0; i < NN_R256_PIXELS; ++i) {
            block->output[i][channel] = nn_output(&params->stage, channel, (uint32_t)(*sums++ >> 8));
        }
    }
}

/* Sums [channel pair][channel][pixel], 256 times too large, then the reference's output stage. */
static void compute_general(const work *w, const nn_r256_block *block) {
    const int32_t *sums = w->sums;
    nn_r256_block to_sums = *block;
    to_sums.output[0] = (int8_t *)w->sums;
    nn_r256_sums(&to_sums);
    for (uint32_t channel = 0; channel < w->params->outputs; ++channel) {
        for (uint32_t i = 0; i < NN_R256_PIXELS; ++i) {
            block->output[i][channel] = nn_output(&w->params->stage, channel, (uint32_t)(*sums++ >> 8));
        }
    }
}

void nn_conv2d_r256_general(const nn_conv2d_r256_params *params, const int8_t *input, int8_t *output, int8_t *scratch) {
    convolve(params, input, output, scratch, 0, compute_general);
}
