#ifndef NN_RESIZE_BILINEAR_H
#define NN_RESIZE_BILINEAR_H

#include <stdint.h>

/* One direction: pixels of input and output, input pixels for each of the output, and where output pixel 0 lies; the last
 * two in 1/1024 of a pixel.
 */
typedef struct {
    uint16_t input;
    uint16_t output;
    int32_t factor;
    int32_t start;
} nn_resize_direction;

typedef struct {
    nn_resize_direction height;
    nn_resize_direction width;
    uint32_t channels;
} nn_resize_bilinear_params;

/* input: int8 [height.input, width.input, channels]. output: int8 [height.output, width.output, channels]. */
void nn_resize_bilinear(const nn_resize_bilinear_params *params, const int8_t *input, int8_t *output);

#endif
