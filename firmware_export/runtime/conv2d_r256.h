#ifndef NN_CONV2D_R256_H
#define NN_CONV2D_R256_H

#include <stdint.h>

#include "requantize.h"
#include "step_r256.h"
#include "window.h"

/* What stays the same during one call. */
struct nn_conv2d_r256_work;

/* weights: records as step_r256.h describes them; limit as in nn_r256_block, counted in words from the start of weights.
 * What lies under the window is expanded as rows x row_words words, taken from the image, then the row_tail bytes left over
 * of every row, together; gathered: the window is copied first and is one row (dilation in width, or one pixel of which
 * the last word would reach over the image's end).
 * steps: of 4 elements, in all. fill: the input's zero point. rounding: of the signed forms.
 * padded: whether the image is first copied to the scratch with its border, so that no window leaves it. window describes
 *     the image with that border then; image_h, image_w: without it; border_top, border_left: what lies before it.
 * min, max: what the fused activation leaves; the linear and signed forms saturate to int8 by themselves.
 * stage: only for nn_conv2d_r256_general, and for loose channels.
 * loose: how many channels have no short form: loose_channels; loose_weights: their records as the general form has them,
 *     limit loose_limit. What the short form makes of them is written over by loose_stage, which is nn_conv2d_r256_loose, and 0
 *     where there are none, so that an image without such layers does not hold it.
 */
typedef void (*nn_conv2d_r256_stage)(const struct nn_conv2d_r256_work *work, const nn_r256_block *block);

typedef struct {
    nn_window window;
    const uint32_t *weights;
    uint32_t limit;
    uint16_t outputs;
    uint16_t steps;
    uint16_t rows;
    uint16_t row_words;
    uint8_t row_tail;
    uint8_t gathered;
    uint8_t padded;
    uint16_t image_h;
    uint16_t image_w;
    uint16_t border_top;
    uint16_t border_left;
    int8_t fill;
    int8_t min;
    int8_t max;
    int32_t rounding;
    nn_output_stage stage;
    const uint32_t *loose_weights;
    const uint16_t *loose_channels;
    uint32_t loose_limit;
    uint32_t loose;
    nn_conv2d_r256_stage loose_stage;
} nn_conv2d_r256_params;

/* All channels in their short form, then those of loose_channels in the reference's. */
void nn_conv2d_r256_loose(const struct nn_conv2d_r256_work *work, const nn_r256_block *block);

/* 2-D convolution, any window. input: int8 [input_h, input_w, channels]. output: int8 [output_h, output_w, outputs].
 * scratch: aligned to 4; as many bytes as packing/conv2d_r256.py says. The output may lie over the input as far as
 * packing/conv2d_r256.py's distance allows. The name says how sums become int8.
 */
void nn_conv2d_r256_linear_7(const nn_conv2d_r256_params *params, const int8_t *input, int8_t *output, int8_t *scratch);
void nn_conv2d_r256_linear_10(const nn_conv2d_r256_params *params, const int8_t *input, int8_t *output, int8_t *scratch);
void nn_conv2d_r256_linear_13(const nn_conv2d_r256_params *params, const int8_t *input, int8_t *output, int8_t *scratch);
void nn_conv2d_r256_linear_16(const nn_conv2d_r256_params *params, const int8_t *input, int8_t *output, int8_t *scratch);
void nn_conv2d_r256_signed_7(const nn_conv2d_r256_params *params, const int8_t *input, int8_t *output, int8_t *scratch);
void nn_conv2d_r256_signed_10(const nn_conv2d_r256_params *params, const int8_t *input, int8_t *output, int8_t *scratch);
void nn_conv2d_r256_signed_13(const nn_conv2d_r256_params *params, const int8_t *input, int8_t *output, int8_t *scratch);
void nn_conv2d_r256_signed_16(const nn_conv2d_r256_params *params, const int8_t *input, int8_t *output, int8_t *scratch);
void nn_conv2d_r256_general(const nn_conv2d_r256_params *params, const int8_t *input, int8_t *output, int8_t *scratch);

#endif
