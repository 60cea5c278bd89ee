#ifndef NN_CONV2D_MVE_H
#define NN_CONV2D_MVE_H

#include <stdint.h>

#include "window.h"

/* weights: records as step_mve.h describes them, words of them.
 * What lies under the window is read as rows of vectors * 16 bytes; tail: more bytes of the only row.
 * gathered: the window is copied first and is one row.
 * outputs: channels; the records are for the next multiple of 8.
 * zero_point: of the output. fill: the input's.
 * clamped: whether min and max are more than int8 is anyway.
 */
typedef struct {
    nn_window window;
    const uint32_t *weights;
    uint32_t words;
    uint16_t outputs;
    uint16_t rows;
    uint16_t vectors;
    uint8_t tail;
    uint8_t gathered;
    int16_t zero_point;
    int8_t fill;
    int8_t min;
    int8_t max;
    uint8_t clamped;
} nn_conv2d_mve_params;

/* 2-D convolution, any window. input: int8 [input_h, input_w, channels]. output: int8 [output_h, output_w, outputs].
 * scratch: as many bytes as packing/conv2d_mve.py says. The output may lie over the input as far as its distance allows.
 * The name says how sums become int8, see step_mve.h.
 */
void nn_conv2d_mve_plain(const nn_conv2d_mve_params *params, const int8_t *input, int8_t *output, int8_t *scratch);
void nn_conv2d_mve_signed(const nn_conv2d_mve_params *params, const int8_t *input, int8_t *output, int8_t *scratch);
void nn_conv2d_mve_general(const nn_conv2d_mve_params *params, const int8_t *input, int8_t *output, int8_t *scratch);

#endif
