#ifndef NN_CONV2D_TRIO_H
#define NN_CONV2D_TRIO_H

#include <stdint.h>

#include "requantize.h"
#include "window.h"

/* weights: records as step_trio.h describes them; limit as there, counted in bytes from the start of weights.
 * What lies under the window is read as passes x rows x row_bytes; gathered: the window is copied first, because it is not
 * rows in the image, and is read as if it were.
 * depth: of one pass, even. skipped, form, shift, rounding: as in nn_trio_block.
 * wide: the weights are raw records, pass_bytes for each pass, with what limit means in each. The sums of all passes become
 *     int8 with the constants: start, factor, negative of each channel, at 8 fraction bits (packing/trio_forms.py); or with
 *     the stage if form is NN_TRIO_RAW.
 * fill: the input's zero point. min, max: what the fused activation leaves.
 */
typedef struct {
    nn_window window;
    const void *weights;
    const int32_t *constants;
    uint32_t limit;
    uint32_t pass_bytes;
    uint32_t row_bytes;
    uint32_t depth;
    uint16_t outputs;
    uint16_t rows;
    uint16_t passes;
    uint8_t gathered;
    uint8_t form;
    uint8_t shift;
    int8_t fill;
    int8_t min;
    int8_t max;
    int32_t rounding;
    nn_output_stage stage;
} nn_conv2d_trio_params;

/* 2-D convolution, any window. input: int8 [input_h, input_w, channels]. output: int8 [output_h, output_w, outputs].
 * scratch: aligned to 4; as many bytes as packing/conv2d_trio.py says. The output may lie over the input as far as its distance
 * allows. flipped: with weights as ARMv6-M needs them; the others are for ARMv7-M. wide: sums of more than 21 bits.
 */
void nn_conv2d_trio(const nn_conv2d_trio_params *params, const int8_t *input, int8_t *output, int8_t *scratch);
void nn_conv2d_trio_flipped(const nn_conv2d_trio_params *params, const int8_t *input, int8_t *output, int8_t *scratch);
void nn_conv2d_trio_wide(const nn_conv2d_trio_params *params, const int8_t *input, int8_t *output, int8_t *scratch);
void nn_conv2d_trio_wide_flipped(const nn_conv2d_trio_params *params, const int8_t *input, int8_t *output, int8_t *scratch);

#endif
