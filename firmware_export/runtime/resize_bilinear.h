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

/* The rule of the arithmetic float32: weights in 1/2048, halves up.
 * rows, columns: for each row and column of the output its neighbours before and behind, and its distance from the first.
 * row_size: bytes of a row of the input.
 */
typedef struct {
    const uint16_t *rows;
    const uint16_t *columns;
    uint32_t height;
    uint32_t width;
    uint32_t row_size;
    uint32_t channels;
} nn_resize_bilinear_fine_params;

/* input, output: as above. */
void nn_resize_bilinear_fine(const nn_resize_bilinear_fine_params *params, const int8_t *input, int8_t *output);

#endif
