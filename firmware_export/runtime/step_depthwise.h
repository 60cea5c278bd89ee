/* The inner steps of the fast depthwise kernels: 3x3 windows over one channel that lies apart, as a plane of int16.
 * A plane's rows are NN_PLANE_PITCH bytes apart (the wide steps: twice that), aligned to 4, and hold the border.
 */
#ifndef NN_STEP_DEPTHWISE_H
#define NN_STEP_DEPTHWISE_H

#include <stdint.h>

#define NN_PLANE_PITCH 128u

/* Copies four channels that lie side by side in an image to four planes.
 * image: the first pixel's first of these channels. pixel_step, row_step: bytes from a pixel to the next, and from the last
 *     pixel of a row to the first of the next.
 * plane: where the first pair of pixels goes. plane_step: bytes to the next plane. plane_row_step: from behind a row's last
 *     pair to the next row's first.
 * lead: the first pair of a row is fill and one pixel. pairs: of two pixels. trail: the last pair is one pixel and fill.
 * fill: four times the same byte.
 */
typedef struct {
    const int8_t *image;
    int16_t *plane;
    uint32_t rows;
    uint32_t pixel_step;
    uint32_t plane_step;
    uint32_t fill;
    uint32_t pairs;
    uint32_t lead;
    uint32_t trail;
    int32_t row_step;
    uint32_t plane_row_step;
} nn_plane_copy;

void nn_planes_copy(const nn_plane_copy *copy);

/* Channels whose planes, weights and outputs follow each other, each row by row.
 * output_step: bytes from an output to the next.
 * plane_skip, output_skip: bytes from behind the words of a row, and from behind their outputs, to the next row.
 * words: of pixels in a row that give outputs: stride 1 gives two for each, stride 2 one. alone: whether the row has one more
 * output (stride 1 only). weights: int8 [channels][3][3], and three more bytes that can be read.
 * constants: [channels][2], start and factor of packing/requantize_forms.py's linear form.
 * state: room for the assembly, which works on a copy of this.
 */
typedef struct {
    uint32_t output_step;
    uint32_t state[2];
    int32_t plane_skip;
    int32_t output_skip;
    uint32_t words;
    uint32_t alone;
    uint32_t row_bytes; /* of the words */
    uint32_t rows;
    const int16_t *plane;
    int8_t *output;
    const int8_t *weights;
    const int32_t *constants;
    uint32_t plane_step; /* bytes */
    uint32_t channels;
} nn_plane_channels;

typedef void (*nn_plane_step)(const nn_plane_channels *channels);

/* s1, s2: stride. 7, 10: shift of the linear form. */
void nn_plane_s1_7(const nn_plane_channels *channels);
void nn_plane_s1_10(const nn_plane_channels *channels);
void nn_plane_s2_7(const nn_plane_channels *channels);
void nn_plane_s2_10(const nn_plane_channels *channels);
void nn_plane_s1_7_wide(const nn_plane_channels *channels);
void nn_plane_s1_10_wide(const nn_plane_channels *channels);
void nn_plane_s2_7_wide(const nn_plane_channels *channels);
void nn_plane_s2_10_wide(const nn_plane_channels *channels);

#endif
