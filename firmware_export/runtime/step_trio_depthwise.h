/* The inner steps of the depthwise kernels for cores without DSP extension: 3x3 windows over one channel in which the pixels
 * of three rows of the image share two words, as in step_trio.h: X = a + 2^21 b, Y = c + 2^10 b.
 */
#ifndef NN_STEP_TRIO_DEPTHWISE_H
#define NN_STEP_TRIO_DEPTHWISE_H

#include "step_trio.h"

/* Rows of one channel to put together. The assembly knows the places of the members of these structs.
 * pixel: where a row begins in each of the three places. step: bytes to the next pixel. gap: bytes from the end of a row to the
 * next; 0 and 0 repeat one byte, for what lies outside the image.
 * x: where the pairs X, Y go; x_gap: bytes from the end of a row to the next.
 */
typedef struct {
    const int8_t *pixel[3];
    uint32_t step[3];
    int32_t gap[3];
    uint32_t *x;
    uint32_t x_gap;
    uint32_t pixels;
    uint32_t rows;
} nn_trio_rows;

void nn_trio_gather(const nn_trio_rows *rows);

/* One channel to compute. Used up by the call.
 * start, factor, negative, shift, rounding: as packing/trio_forms.py has them.
 * apart: bytes from an output of the first place to those of the others. output_step, output_gap: bytes to the next in a row,
 * and from the end of a row to the next. row_bytes: of a row of outputs, gap not included.
 * x: what lies under the first window. x_step: bytes from a window to the next less two pitches. x_gap: bytes from behind the
 * last window of a row to the next row of windows. pitch: bytes from a row of pairs to the next.
 * weights: of the window. rows: of outputs.
 */
typedef struct {
    int32_t start;
    int32_t factor;
    uint32_t apart[2];
    uint32_t shift;
    int32_t negative;
    int32_t rounding;
    int8_t *output;
    uint32_t output_step;
    const int8_t *row_end;
    uint32_t x_step;
    uint32_t row_bytes;
    int32_t output_gap;
    uint32_t x_gap;
    uint32_t pitch;
    const uint32_t *x;
    uint32_t rows;
    int32_t weights[9];
} nn_trio_plane;

void nn_trio_plane_linear(nn_trio_plane *plane);
void nn_trio_plane_signed(nn_trio_plane *plane);

#endif
