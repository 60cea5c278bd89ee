/* The inner steps of the fast dense kernels: int8 activations of three pixels times packed weights of all channels.
 *
 * Four activations k0 k1 k2 k3 of a pixel become two words of 16-bit lanes: A = (k0, k2) and B = (256 k1 + 127 - k0,
 * 256 k3 + 127 - k2), which is the word itself with 7 bits of every other byte flipped. Four weights w0 w1 w2 w3 of a
 * channel are one word of lanes R = (256 w0 + w1, 256 w2 + w3); its low bytes, sign-extended, are S = (w1, w3). Then
 * R.A + S.B = 256 (w0 k0 + w1 k1 + w2 k2 + w3 k3) + 127 (w1 + w3): two multiplications and one unpacking for four
 * products, one byte of flash for each weight. The constants go into the start values; sums wrap around modulo 2^32.
 * firmware_export/packing/r256.py makes the packed weights.
 */
#ifndef NN_STEP_R256_H
#define NN_STEP_R256_H

#include <stdint.h>

#include "lanes.h"

#define NN_R256_PIXELS 3u
/* Words of expanded activations for one step: A of three pixels, B of three pixels. */
#define NN_R256_STEP_WORDS 6u

/* Three pixels to expand. words: of 4 elements in each row, at any address. gap: bytes from a row's end to the next row. */
typedef struct {
    const int8_t *pixel[NN_R256_PIXELS];
    uint32_t words;
    uint32_t rows;
    uint32_t gap[NN_R256_PIXELS];
} nn_r256_source;

/* Three expanded pixels and what to do with them.
 * output: where the first channel of each pixel goes; the others follow. Two may be the same.
 * x: expanded activations, steps * NN_R256_STEP_WORDS words, aligned to 4.
 * weights: one record for every two channels: start[2], steps x word[2], factor[2], for the signed forms negative[2].
 * limit: end of the weights if the number of channels is odd (the second channel of the last record is not stored),
 *     one word before it if it is even.
 */
typedef struct {
    int8_t *output[NN_R256_PIXELS];
    const uint32_t *x;
    uint32_t steps;
    const uint32_t *limit;
    int32_t rounding;
    const uint32_t *weights;
} nn_r256_block;

/* Appends words * rows steps to x; gives its new end. */
uint32_t *nn_r256_expand(const nn_r256_source *source, uint32_t *x);

/* The same for three rows of two words and one byte each, as 3x3 windows of three channels have them; the three bytes come
 * last, as a seventh step. */
uint32_t *nn_r256_expand_nine(const nn_r256_source *source, uint32_t *x);

/* One step of words that are at hand, four elements of each pixel. */
static inline void nn_r256_expand_words(const uint32_t *words, uint32_t *x) {
    for (uint32_t i = 0; i < NN_R256_PIXELS; ++i) {
        x[i] = nn_even_bytes(words[i]);
        x[NN_R256_PIXELS + i] = words[i] ^ 0x007f007fu;
    }
}

/* All channels, requantized by packing/requantize_forms.py's linear or signed form with the shift of the name. */
void nn_r256_linear_7(const nn_r256_block *block);
void nn_r256_linear_10(const nn_r256_block *block);
void nn_r256_linear_13(const nn_r256_block *block);
void nn_r256_linear_16(const nn_r256_block *block);
void nn_r256_signed_7(const nn_r256_block *block);
void nn_r256_signed_10(const nn_r256_block *block);
void nn_r256_signed_13(const nn_r256_block *block);
void nn_r256_signed_16(const nn_r256_block *block);

/* All channels, not requantized: output[0] is an int32 [record, 2 channels, 3 pixels] array of 256 times the sums; the
 * records have no factors and limit is one word before the end of the weights. */
void nn_r256_sums(const nn_r256_block *block);

#endif
