/* The inner steps of the dense kernels for cores with Helium (MVE): int8 activations times packed weights of all channels.
 *
 * Channels come in groups of eight, as two blocks of four: channels 0 2 4 6, then 1 3 5 7, so that narrowing two vectors of
 * sums into one puts the channels in order. firmware_export/packing/mve.py makes a group's record:
 *   for each block: int32 start[4], then for every vector of 16 activations int8 weights[4][16], then weights[4][tail];
 *   for each block: int32 multiplier[4], int8 shift[4]; a positive shift goes left.
 * The names say how a sum is requantized, after gemmlowp's high_mul (VQRDMULH):
 *   plain: halves are rounded up, which is the reference where negative results are clamped away; shifts <= 0.
 *   signed: halves are rounded away from zero; shifts < 0.
 *   general: the same, any shift.
 */
#ifndef NN_STEP_MVE_H
#define NN_STEP_MVE_H

#include <stdint.h>

#if defined(__ARM_FEATURE_MVE)
#define NN_MVE 1
#else
#define NN_MVE 0
#endif

#define NN_MVE_BYTES 16u
#define NN_MVE_GROUP 8u

/* Two pixels and what to do with them; the assembly knows the places of the members.
 * pixel: what lies under each window: rows of vectors * 16 bytes, gap bytes apart; tail more bytes if there is one row.
 *     nn_mve_single_*: only the first.
 * output: where the channels of each pixel go; moves on.
 * weights, end: records.
 * entry: 0 before the first call of nn_mve_pair_*, which keep something there while rows, vectors and tail are the same.
 */
typedef struct {
    const int8_t *pixel[2];
    int8_t *output[2];
    const uint32_t *weights;
    const uint32_t *end;
    uint32_t rows;
    uint32_t vectors;
    uint32_t tail;
    uint32_t gap;
    int32_t zero_point;
    uint32_t entry[2];
} nn_mve_block;

typedef void (*nn_mve_step)(nn_mve_block *block);

void nn_mve_pair_plain(nn_mve_block *block);
void nn_mve_pair_signed(nn_mve_block *block);
void nn_mve_pair_general(nn_mve_block *block);

/* One pixel; its rows lie side by side: rows is 1. */
void nn_mve_single_plain(nn_mve_block *block);
void nn_mve_single_signed(nn_mve_block *block);
void nn_mve_single_general(nn_mve_block *block);

/* x: int8 [count], each at least min and at most max afterwards. */
void nn_mve_clamp(int8_t *x, uint32_t count, int32_t min, int32_t max);

/* Two windows to copy: rows of up to 16 bytes, step bytes apart, close together. 16 bytes of every row are read and written. */
typedef struct {
    const int8_t *from[2];
    int8_t *to[2];
    uint32_t bytes;
    uint32_t step;
} nn_mve_two;

void nn_mve_copy_two(const nn_mve_two *two, uint32_t rows);

/* Copies rows of `bytes` bytes that begin `from_step` bytes apart to places `to_step` bytes apart. */
void nn_mve_copy_rows(const int8_t *from, uint32_t from_step, int8_t *to, uint32_t to_step, uint32_t bytes, uint32_t rows);

#endif
