/* The inner steps of the dense kernels for cores without DSP extension: six int8 pixels times packed weights of all channels.
 *
 * Three pixels a, b, c share two words: X = a + 2^21 b and Y = c + 2^10 b. Multiplied with a weight and added up modulo 2^32
 * these give U = A + 2^21 B and V = C + 2^10 B of the three sums A, B, C, which are found again as long as each is within
 * 21 bits: with 2^20 added to all of them, A and the low 11 bits of B are fields of U; V less 2^10 times the latter has C and
 * the high bits of B as its fields. So two multiplications do three products, and nothing overflows on the way.
 * Of six neighbouring pixels the even ones are one trio, the odd ones the other.
 * firmware_export/packing/trio.py makes the packed weights.
 */
#ifndef NN_STEP_TRIO_H
#define NN_STEP_TRIO_H

#include <stdint.h>

#include "lanes.h"

#define NN_TRIO_PIXELS 6u
/* X and Y of the even pixels, X and Y of the odd ones. */
#define NN_TRIO_WORDS 4u
#define NN_TRIO_BIAS ((uint32_t)1 << 20)
/* The elements of the assembly's unrolled loop: what nn_trio_block needs to know. */
#if NN_V6M
#define NN_TRIO_UNROLLED 12u
#else
#define NN_TRIO_UNROLLED 16u
#endif

/* Six pixels to expand, step bytes apart; gap: from the end of a row of a pixel's window to the begin of the next. */
typedef struct {
    const int8_t *pixel;
    uint32_t step;
    uint32_t row_bytes;
    uint32_t rows;
    uint32_t gap;
} nn_trio_source;

/* Appends rows * row_bytes * NN_TRIO_WORDS words to x and adds them up in sums; gives the new end of x. The assembly of
 * ARMv7-M, which needs no sums, leaves them alone. */
uint32_t *nn_trio_expand(const nn_trio_source *source, uint32_t *x, uint32_t *sums);

typedef enum { NN_TRIO_LINEAR = 0, NN_TRIO_SIGNED = 1, NN_TRIO_RAW = 2 } nn_trio_form;

/* Six expanded pixels and what to do with them. Used up by the call.
 * output: where the first channel of the first pixel goes; output_step: bytes to the next pixel.
 * x: depth * NN_TRIO_WORDS words. depth: even. skipped: -depth modulo NN_TRIO_UNROLLED.
 * weights: one record for every two channels: depth x (a byte of each channel), then of the first and of the second channel
 *     start, factor, and for the signed form negative (packing/trio_forms.py). Raw records have weights only.
 * limit: if the number of channels is odd, the end of the first channel's constants in the last record, else one byte less
 *     than the end of the records.
 * first: what the sums of the words start from, NN_TRIO_BIAS in all sums included.
 * form: raw ones store the words of each channel, uint32 [channels][NN_TRIO_WORDS], to output.
 */
typedef struct {
    uint32_t output_step;
    uint32_t shift;
    int8_t *output;
    const void *limit;
    int32_t rounding;
    const uint32_t *x;
    uint32_t depth;
    const void *weights;
    uint32_t first[NN_TRIO_WORDS];
    uint32_t form;
    uint32_t skipped;
} nn_trio_block;

/* All channels. The weights are int8 as they are or, flipped, with the highest bit inverted, which is to be made good in
 * first. ARMv7-M takes the former only, ARMv6-M the latter, because it can load bytes from a pointer only without sign. */
#if !NN_V6M
void nn_trio_channels(nn_trio_block *block);
#endif
#if !NN_V7M
void nn_trio_channels_flipped(nn_trio_block *block);
#endif

/* The three sums in U and V, less NN_TRIO_BIAS. */
static inline void nn_trio_sums(uint32_t u, uint32_t v, int32_t *sums) {
    const uint32_t low = u >> 21;
    v -= low << 10;
    sums[0] = (int32_t)((u & 0x1fffffu) - NN_TRIO_BIAS);
    sums[1] = (int32_t)((v >> 21 << 11) + low - NN_TRIO_BIAS);
    sums[2] = (int32_t)((v & 0x1fffffu) - NN_TRIO_BIAS);
}

#endif
