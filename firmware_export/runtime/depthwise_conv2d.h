#ifndef NN_DEPTHWISE_CONV2D_H
#define NN_DEPTHWISE_CONV2D_H

#include "requantize.h"
#include "window.h"

/* weights: int8 [kernel_h, kernel_w, channels * multiplier]; output channel o reads input channel o / multiplier.
 * bias: int32 [channels * multiplier], input zero point folded in: bias - zero_point * sum(weights of the channel).
 * fill: the zero point of the input, which stands for 0 outside the image.
 */
typedef struct {
    nn_window window;
    const int8_t *weights;
    const int32_t *bias;
    nn_output_stage stage;
    uint16_t multiplier;
    int8_t fill;
} nn_depthwise_conv2d_params;

/* input: int8 [input_h, input_w, channels]. output: int8 [output_h, output_w, channels * multiplier].
 * patch: scratch, kernel_h * kernel_w * channels bytes.
 */
void nn_depthwise_conv2d(const nn_depthwise_conv2d_params *params, const int8_t *input, int8_t *output, int8_t *patch);

#endif
