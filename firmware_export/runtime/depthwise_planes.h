#ifndef NN_DEPTHWISE_PLANES_H
#define NN_DEPTHWISE_PLANES_H

#include <stdint.h>

#include "requantize.h"

/* A 3x3 depthwise convolution with one output channel for each input channel, in numbers that packing/depthwise_planes.py
 * has worked out. A few channels lie as planes, a band of rows at a time. A plane's rows run along the image's rows or, where
 * that is longer, along its columns; "row" and "pixel" mean it that way here.
 * weights: int8 [channels][3][3], and three bytes more. constants: [channels][2], start and factor of the linear form; a
 * factor of 0 is a channel that has no such form: it takes stage, and its start is the bias with the zero point folded in.
 * group: channels copied at a time: 4, or 1 to save scratch or where the image has fewer than 4.
 * plane_bytes: of one plane. pitch: bytes from a plane's row to the next. row_words: words of a row that are read.
 * first_word: where in a row the first pair of pixels goes. lead, pairs, trail: as in nn_plane_copy.
 * stride: 1 or 2. band: output rows that a plane holds windows for. rows: of outputs. before: rows of padding.
 * image_rows: of the image. pixel_step, image_row_step, output_step, output_row_step: bytes from a pixel, row, output or row of
 * outputs to the next. words, alone: as in nn_plane_channel. output_bytes: of the whole output.
 * fill: the input's zero point. min, max: what the fused activation leaves; the form saturates to int8 by itself.
 */
typedef struct {
    const int8_t *weights;
    const int32_t *constants;
    nn_output_stage stage;
    uint32_t plane_bytes;
    uint32_t pixel_step;
    uint32_t image_row_step;
    uint32_t output_step;
    uint32_t output_row_step;
    uint32_t output_bytes;
    uint16_t channels;
    uint16_t pitch;
    uint16_t row_words;
    uint16_t first_word;
    uint16_t pairs;
    uint16_t band;
    uint16_t rows;
    uint16_t before;
    uint16_t image_rows;
    uint16_t words;
    uint8_t stride;
    uint8_t group;
    uint8_t lead;
    uint8_t trail;
    uint8_t alone;
    int8_t fill;
    int8_t min;
    int8_t max;
} nn_depthwise_planes_params;

/* input: int8 [input_h, input_w, channels]. output: int8 [output_h, output_w, channels], the input's place or apart from it.
 * scratch: aligned to 4, group * plane_bytes. s1, s2: stride. 7, 10: shift of the form. wide: rows of more than 32 words.
 */
void nn_depthwise_planes_s1_7(const nn_depthwise_planes_params *params, const int8_t *input, int8_t *output, int8_t *scratch);
void nn_depthwise_planes_s1_10(const nn_depthwise_planes_params *params, const int8_t *input, int8_t *output, int8_t *scratch);
void nn_depthwise_planes_s2_7(const nn_depthwise_planes_params *params, const int8_t *input, int8_t *output, int8_t *scratch);
void nn_depthwise_planes_s2_10(const nn_depthwise_planes_params *params, const int8_t *input, int8_t *output, int8_t *scratch);
void nn_depthwise_planes_s1_7_wide(const nn_depthwise_planes_params *params, const int8_t *input, int8_t *output,
                                   int8_t *scratch);
void nn_depthwise_planes_s1_10_wide(const nn_depthwise_planes_params *params, const int8_t *input, int8_t *output,
                                    int8_t *scratch);
void nn_depthwise_planes_s2_7_wide(const nn_depthwise_planes_params *params, const int8_t *input, int8_t *output,
                                   int8_t *scratch);
void nn_depthwise_planes_s2_10_wide(const nn_depthwise_planes_params *params, const int8_t *input, int8_t *output,
                                    int8_t *scratch);

#endif
