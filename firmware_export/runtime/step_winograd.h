/* The inner steps of 3x3 convolution by Winograd's F(2x2, 3x3) in integers: 16 products for four outputs instead of 36.
 *
 * With V = B' d B of a 4x4 piece d of the image, U = G g G' of a kernel g, and M = U V element by element, summed over the
 * channels, A' M A is 4 times the four outputs. All of it is exact: V has 11 bits, U 12, sums wrap around modulo 2^32.
 *     B' = 1  0 -1  0     G = 1  0  0     A' = 2  1  1  0
 *          0  1  1  0         1  1  1          0  1 -1 -2
 *          0 -1  1  0         1 -1  1
 *          0  1  0 -1         0  0  1
 * Four channels are two words of 16-bit lanes, E = channels (0, 2) and O = (1, 3). U and V hold, for each of the 16 positions
 * and each group of four channels, two words of each of two output channels, or of each of two tiles.
 */
#ifndef NN_STEP_WINOGRAD_H
#define NN_STEP_WINOGRAD_H

#include <stdint.h>

#define NN_WINOGRAD_POSITIONS 16u
#define NN_WINOGRAD_OUTPUTS 4u /* of one tile */
#define NN_WINOGRAD_MAX_GROUPS 16u
#define NN_WINOGRAD_CONSTANTS 3u /* words of one output channel */

/* V of one tile. image: its first pixel and channel. steps in bytes. v: groups * 4 words for each position, of which a tile
 * takes the first or, from v + 2, the second two of every four. */
void nn_winograd_input(const int8_t *image, uint32_t pixel_step, uint32_t row_step, uint32_t groups, uint32_t *v);

/* U of one output channel. weights: int8 [3][3][4 * groups]. u: as v, for two channels. */
void nn_winograd_weights(const int8_t *weights, uint32_t groups, uint32_t *u);

/* Two output channels times two tiles, count times; after each time every pointer moves by its step (in bytes).
 * output: four pointers for each of two tiles: where channel 0 of its outputs (0, 0), (0, 1), (1, 0), (1, 1) goes.
 * constants: of two channels: start, factor, negative each. channel: the first of the two.
 */
typedef struct {
    const uint32_t *u;
    const uint32_t *v;
    int8_t *const *output;
    const int32_t *constants;
    uint32_t channel;
    uint32_t count;
    uint32_t u_step;
    uint32_t v_step;
    uint32_t output_step;
    uint32_t constants_step;
    uint32_t channel_step;
    int32_t rounding;
    uint32_t groups;
} nn_winograd_block;

typedef void (*nn_winograd_step)(const nn_winograd_block *block);

/* Requantized by packing/requantize_forms.py's signed form with the shift of the name; a linear form is one whose negative
 * and rounding are 0. */
void nn_winograd_shift_7(const nn_winograd_block *block);
void nn_winograd_shift_10(const nn_winograd_block *block);
void nn_winograd_shift_13(const nn_winograd_block *block);

#endif
