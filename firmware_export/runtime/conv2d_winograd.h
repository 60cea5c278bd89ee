#ifndef NN_CONV2D_WINOGRAD_H
#define NN_CONV2D_WINOGRAD_H

#include <stdint.h>

#include "window.h"

/* A 3x3 convolution with stride 1 and dilation 1; channels a multiple of 4, at most 64, outputs a multiple of 2.
 * weights: int8 [outputs][3][3][channels]. constants: int32 [outputs][3], start, factor and negative of the signed form.
 * tiles: of 2x2 outputs that are transformed at a time, a multiple of 2. resident: whether U of all outputs is made once and
 * kept, else it is made anew for every two outputs and every `tiles` tiles.
 * fill: the input's zero point. rounding: of the form. min, max: what the fused activation leaves.
 */
typedef struct {
    nn_window window;
    const int8_t *weights;
    const int32_t *constants;
    uint16_t outputs;
    uint16_t tiles;
    uint8_t resident;
    int8_t fill;
    int8_t min;
    int8_t max;
    int32_t rounding;
} nn_conv2d_winograd_params;

/* input: int8 [h, w, channels]. output: int8 [output_h, output_w, outputs]. scratch: aligned to 8, as many bytes as
 * packing/conv2d_winograd.py says; its distance says how far the output may lie over the input. The name
 * says the form's shift.
 */
void nn_conv2d_winograd_shift_7(const nn_conv2d_winograd_params *params, const int8_t *input, int8_t *output,
                                int8_t *scratch);
void nn_conv2d_winograd_shift_10(const nn_conv2d_winograd_params *params, const int8_t *input, int8_t *output,
                                 int8_t *scratch);
void nn_conv2d_winograd_shift_13(const nn_conv2d_winograd_params *params, const int8_t *input, int8_t *output,
                                 int8_t *scratch);

#endif
