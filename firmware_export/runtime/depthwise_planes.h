#ifndef NN_DEPTHWISE_PLANES_H
#define NN_DEPTHWISE_PLANES_H

#include <stdint.h>

/* A 3x3 depthwise convolution with one output channel for each input channel, in numbers that packing/depthwise_planes.py
 * has worked out. A plane's rows run along the image's rows or, where that is longer, along its columns.
 * weights: int8 [channels][3][3], and three bytes more. constants: [channels][2], start and factor of the linear form.
 * output_bytes: of the whole output. plane_bytes: of one plane, its border included.
 * first: byte in a plane where the first pair of pixels goes.
 * border_words: between the pixels of two rows that are read.
 * group: channels copied at a time: 4, or 1 to save scratch or where the image has fewer than 4.
 * copy_rows ... plane_row_step: as in nn_plane_copy. words ... alone: as in nn_plane_channel.
 * fill: the input's zero point. min, max: what the fused activation leaves; the form saturates to int8 by itself.
 */
typedef struct {
    const int8_t *weights;
    const int32_t *constants;
    uint32_t output_bytes;
    uint32_t plane_bytes;
    uint32_t first;
    uint32_t pixel_step;
    int32_t row_step;
    uint32_t plane_row_step;
    uint32_t output_step;
    int32_t output_skip;
    int32_t plane_skip;
    uint16_t channels;
    uint16_t copy_rows;
    uint16_t pairs;
    uint16_t words;
    uint16_t rows;
    uint16_t border_words;
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
