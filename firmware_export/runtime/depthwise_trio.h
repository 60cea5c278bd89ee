#ifndef NN_DEPTHWISE_TRIO_H
#define NN_DEPTHWISE_TRIO_H

#include <stdint.h>

#include "requantize.h"

/* A 3x3 depthwise convolution with one output channel for each input channel, in numbers that packing/depthwise_trio.py has
 * worked out. The rows of outputs are shared out among three places, which are computed together, channel by channel. Rows run
 * along the image's rows or, where that is better, along its columns; "row" and "pixel" mean it that way here.
 * weights: int8 [channels][9]. constants: [channels][2], or [channels][3] of the signed form: start, factor, negative.
 * runs: pairs of numbers: how many rows of pairs, and in which places (bits 0 to 2) they lie on the image.
 * begins: image row of the first row of pairs in each place. apart: bytes from an output of the first place to the others.
 * pixel_step, image_row_step, output_step, output_row_step: bytes from a pixel, row, output or row of outputs to the next.
 * rows: of outputs in each place. columns: outputs in a row. pixels: of a row of the image that are read. first: pairs before
 * them, which lie outside the image. x_columns, x_rows: pairs. shift, rounding: of the form. output_bytes: of all outputs.
 * fill: the input's zero point. min, max: what the fused activation leaves.
 */
typedef struct {
    const int8_t *weights;
    const int32_t *constants;
    const uint16_t *runs;
    int32_t begins[3];
    uint32_t apart[2];
    uint32_t pixel_step;
    uint32_t image_row_step;
    uint32_t output_step;
    uint32_t output_row_step;
    uint32_t output_bytes;
    int32_t rounding;
    uint16_t channels;
    uint16_t rows;
    uint16_t columns;
    uint16_t pixels;
    uint16_t first;
    uint16_t x_columns;
    uint16_t x_rows;
    uint8_t stride;
    uint8_t shift;
    int8_t fill;
    int8_t min;
    int8_t max;
} nn_depthwise_trio_params;

/* input: int8 [input_h, input_w, channels]. output: int8 [output_h, output_w, channels], the input's place or apart from it.
 * scratch: aligned to 4, 8 * x_columns * x_rows bytes. The name says how sums become int8 (packing/trio_forms.py).
 */
void nn_depthwise_trio_linear(const nn_depthwise_trio_params *params, const int8_t *input, int8_t *output, int8_t *scratch);
void nn_depthwise_trio_signed(const nn_depthwise_trio_params *params, const int8_t *input, int8_t *output, int8_t *scratch);

#endif
