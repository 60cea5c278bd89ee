/* The inner steps of depthwise convolution for cores with Helium (MVE), windows up to 3x3.
 *
 * A strip holds four rows of an image, a word for every element of a row: its byte i comes from row i. A vector gathered from
 * four neighbouring columns is a 4x4 piece of one channel; each output in it is one VMLADAV with the weights at its place.
 * firmware_export/packing/depthwise_mve.py makes a channel's record: int8 weights[3 columns][4], of which the first three
 * are rows; weights[0][3] is the shift; int32 start, int32 multiplier.
 * plain, signed: how a sum is requantized, as in step_mve.h.
 */
#ifndef NN_STEP_DEPTHWISE_MVE_H
#define NN_STEP_DEPTHWISE_MVE_H

#include <stdint.h>

#define NN_STRIP_ROWS 4u

/* Four rows to interleave: where each begins and how many bytes on from there its next 16 elements lie (0: the same again). */
typedef struct {
    const int8_t *row[NN_STRIP_ROWS];
    uint32_t step[NN_STRIP_ROWS];
} nn_strip_rows;

/* Outputs of a strip; the assembly knows the places of the members.
 * gather: bytes from a word to that of the same channel in the next columns; of three columns, then 0, unless outputs come by
 *     two rows. scatter: places of four outputs. column: bytes between outputs of neighbouring columns.
 * stride: bytes in the strip between the windows of neighbouring columns.
 * count: of channels, neighbours in strip and output.
 */
typedef struct {
    uint32_t gather[4];
    uint32_t scatter[4];
    const int8_t *strip;
    int8_t *output;
    const uint32_t *records;
    uint32_t count;
    uint32_t columns;
    uint32_t column;
    uint32_t stride;
    int32_t zero_point;
} nn_strip;

/* Appends count words to `to`; 64 bytes are written for every 16 or less of them. */
void nn_strip_interleave(const nn_strip_rows *rows, int8_t *to, uint32_t count);

typedef void (*nn_strip_step)(const nn_strip *strip);

/* Stride 1, at least two columns, two rows of outputs; scatter: 0, next row, next column, both. */
void nn_strip_two_rows_plain(const nn_strip *strip);
void nn_strip_two_rows_signed(const nn_strip *strip);

/* One row of outputs; scatter: columns 0, 1, 2, 3. For less than four columns, four windows are read anyway. */
void nn_strip_one_row_plain(const nn_strip *strip);
void nn_strip_one_row_signed(const nn_strip *strip);

#endif
