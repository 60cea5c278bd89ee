/* 3x3 convolution, int8, stride 1, by Winograd's F(2x2, 3x3) in integers: see step_winograd.h. The kernels' transforms are
 * made here, from weights of one byte each.
 */
#include "conv2d_winograd.h"

#include <stddef.h>

#include "patch.h"
#include "step_winograd.h"

#define TILE 4       /* pixels along an edge */
#define TILE_STEP 2u /* pixels from a tile to the next, outputs of one along an edge */
#define GROUP 4u     /* channels */
#define PAIR 2u      /* outputs, and tiles, that the inner step takes together */

/* Bytes of U or V of one output or tile: 16 positions, two bytes for each channel. */
#define TRANSFORMED_BYTES(channels) (NN_WINOGRAD_POSITIONS * 2u * (channels))

typedef struct {
    const nn_conv2d_winograd_params *params;
    const int8_t *input;
    int8_t *output;
    int8_t **outputs; /* [tiles][4]: of the tiles that are being computed */
    uint32_t *u;
    uint32_t *v;
    int8_t *patch; /* a tile's pixels, where it reaches over the image's edge */
    int8_t *spare; /* takes outputs that lie behind the edge */
    uint32_t tile_columns;
} work;

static work prepare(const nn_conv2d_winograd_params *params, const int8_t *input, int8_t *output, int8_t *scratch) {
    const nn_window *window = &params->window;
    const uint32_t transformed = TRANSFORMED_BYTES(window->channels);
    work w;
    w.params = params;
    w.input = input;
    w.output = output;
    w.outputs = (int8_t **)(void *)scratch;
    scratch += (size_t)params->tiles * NN_WINOGRAD_OUTPUTS * sizeof *w.outputs;
    w.u = (uint32_t *)(void *)scratch;
    scratch += transformed * (params->resident != 0u ? params->outputs : PAIR);
    w.v = (uint32_t *)(void *)scratch;
    scratch += transformed * params->tiles;
    w.patch = scratch;
    w.spare = scratch + TILE * TILE * window->channels;
    w.tile_columns = (window->output_w + TILE_STEP - 1u) / TILE_STEP;
    return w;
}

static int8_t *output_of(const work *w, uint32_t row, uint32_t column) {
    const nn_window *window = &w->params->window;
    if (row >= window->output_h || column >= window->output_w) {
        return w->spare;
    }
    return w->output + ((size_t)row * window->output_w + column) * w->params->outputs;
}

/* V of one tile to its half of a pair, and where its outputs go. */
static void transform_tile(const work *w, uint32_t row, uint32_t column, uint32_t place) {
    const nn_window *window = &w->params->window;
    const uint32_t channels = window->channels;
    const int32_t y = (int32_t)(row * TILE_STEP) - window->padding_top;
    const int32_t x = (int32_t)(column * TILE_STEP) - window->padding_left;
    uint32_t *v = w->v + place / PAIR * PAIR * TRANSFORMED_BYTES(channels) / sizeof *v + place % PAIR * PAIR;
    if (y >= 0 && x >= 0 && y + TILE <= window->input_h && x + TILE <= window->input_w) {
        const uint32_t image_row = window->input_w * channels;
        const int8_t *pixel = w->input + (uint32_t)y * image_row + (uint32_t)x * channels;
        nn_winograd_input(pixel, channels, image_row, channels / GROUP, v);
    } else {
        nn_copy_patch(window, w->input, y, x, TILE, TILE, w->params->fill, w->patch);
        nn_winograd_input(w->patch, channels, TILE * channels, channels / GROUP, v);
    }
    for (uint32_t i = 0; i < NN_WINOGRAD_OUTPUTS; ++i) {
        w->outputs[place * NN_WINOGRAD_OUTPUTS + i] =
            output_of(w, row * TILE_STEP + i / TILE_STEP, column * TILE_STEP + i % TILE_STEP);
    }
}

/* U of two outputs. */
static void transform_weights(const work *w, uint32_t output, uint32_t *u) {
    const uint32_t channels = w->params->window.channels;
    for (uint32_t i = 0; i < PAIR; ++i) {
        nn_winograd_weights(w->params->weights + (output + i) * 9u * channels, channels / GROUP, u + i * PAIR);
    }
}

/* All outputs of the tiles in V. */
static void compute_tiles(const work *w, uint32_t pairs, nn_winograd_step step) {
    const nn_conv2d_winograd_params *params = w->params;
    const uint32_t pair_bytes = PAIR * TRANSFORMED_BYTES(params->window.channels);
    const uint32_t constants_bytes = PAIR * NN_WINOGRAD_CONSTANTS * (uint32_t)sizeof(int32_t);
    nn_winograd_block block = {w->u, w->v, w->outputs, params->constants, 0u, pairs, 0u, pair_bytes,
                               PAIR * NN_WINOGRAD_OUTPUTS * (uint32_t)sizeof(int8_t *), 0u, 0u, params->rounding,
                               params->window.channels / GROUP};
    if (params->resident != 0u) { /* one pair of tiles after the other, with all outputs */
        block.count = params->outputs / PAIR;
        block.u_step = pair_bytes;
        block.v_step = 0u;
        block.output_step = 0u;
        block.constants_step = constants_bytes;
        block.channel_step = PAIR;
        for (uint32_t pair = 0; pair < pairs; ++pair) {
            step(&block);
            block.v += pair_bytes / sizeof *block.v;
            block.output += PAIR * NN_WINOGRAD_OUTPUTS;
        }
        return;
    }
    for (; block.channel < params->outputs; block.channel += PAIR) { /* one pair of outputs after the other, with all tiles */
        transform_weights(w, block.channel, w->u);
        step(&block);
        block.constants += constants_bytes / sizeof *block.constants;
    }
}

static void clamp(int8_t *x, uint32_t count, int32_t min, int32_t max) {
    for (; count > 0u; --count, ++x) {
        *x = (int8_t)(*x < min ? min : *x > max ? max : *x);
    }
}

static void convolve(const nn_conv2d_winograd_params *params, const int8_t *input, int8_t *output, int8_t *scratch,
                     nn_winograd_step step) {
    const nn_window *window = &params->window;
    const work w = prepare(params, input, output, scratch);
    const uint32_t tiles = w.tile_columns * ((window->output_h + TILE_STEP - 1u) / TILE_STEP);
    if (params->resident != 0u) {
        for (uint32_t i = 0; i < params->outputs; i += PAIR) {
            transform_weights(&w, i, w.u + i * TRANSFORMED_BYTES(window->channels) / sizeof *w.u);
        }
    }
    uint32_t row = 0, column = 0;
    for (uint32_t done = 0; done < tiles; done += params->tiles) {
        const uint32_t count = tiles - done < params->tiles ? tiles - done : params->tiles;
        for (uint32_t i = 0; i < count; ++i) {
            transform_tile(&w, row, column, i);
            if (i + 1u == count && count % PAIR != 0u) { /* the other half of the last pair: the same tile once more */
                transform_tile(&w, row, column, count);
            }
            if (++column == w.tile_columns) {
                column = 0;
                ++row;
            }
        }
        compute_tiles(&w, (count + PAIR - 1u) / PAIR, step);
    }
    if (params->min > INT8_MIN || params->max < INT8_MAX) {
        clamp(output, (uint32_t)window->output_h * window->output_w * params->outputs, params->min, params->max);
    }
}

void nn_conv2d_winograd_shift_7(const nn_conv2d_winograd_params *params, const int8_t *input, int8_t *output,
                                int8_t *scratch) {
    convolve(params, input, output, scratch, nn_winograd_shift_7);
}

void nn_conv2d_winograd_shift_10(const nn_conv2d_winograd_params *params, const int8_t *input, int8_t *output,
                                 int8_t *scratch) {
    convolve(params, input, output, scratch, nn_winograd_shift_10);
}

void nn_conv2d_winograd_shift_13(const nn_conv2d_winograd_params *params, const int8_t *input, int8_t *output,
                                 int8_t *scratch) {
    convolve(params, input, output, scratch, nn_winograd_shift_13);
}
