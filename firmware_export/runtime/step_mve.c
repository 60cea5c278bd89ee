/* See step_mve.h. Cores with Helium get assembly, all others the same steps in C on the same data. */
#include "step_mve.h"

#include "lanes.h"
#include "requantize.h"

#if NN_MVE

/* r0 r2 r4 r6: sums of the first pixel, r8 r10 r12 lr: of the second (VMLADAVA takes even registers only), r1: weights,
 * r3 r5: pixels, r7: vectors left, r9: rows left, r11: block. 14 instructions, 56 bytes.
 */
#define PAIR_VECTOR                                                                                                           \
    "vldrb.u8 q0, [r3], #16\n"                                                                                                \
    "vldrb.u8 q2, [r1], #16\n"                                                                                                \
    "vmladava.s8 r0, q0, q2\n"                                                                                                \
    "vldrb.u8 q1, [r5], #16\n"                                                                                                \
    "vmladava.s8 r8, q1, q2\n"                                                                                                \
    "vldrb.u8 q3, [r1], #16\n"                                                                                                \
    "vmladava.s8 r2, q0, q3\n"                                                                                                \
    "vmladava.s8 r10, q1, q3\n"                                                                                               \
    "vldrb.u8 q2, [r1], #16\n"                                                                                                \
    "vmladava.s8 r4, q0, q2\n"                                                                                                \
    "vmladava.s8 r12, q1, q2\n"                                                                                               \
    "vldrb.u8 q3, [r1], #16\n"                                                                                                \
    "vmladava.s8 r6, q0, q3\n"                                                                                                \
    "vmladava.s8 lr, q1, q3\n"

/* What is left of a row, r7 bytes: the vector loads give 0 behind it. */
#define PAIR_TAIL_CHANNEL(first, second)                                                                                      \
    "vldrb.u8 q2, [r1]\n"                                                                                                     \
    "add r1, r1, r7\n"                                                                                                        \
    "vmladava.s8 " first ", q0, q2\n"                                                                                         \
    "vmladava.s8 " second ", q1, q2\n"

/* Four channels of two pixels. entry: place of the block's member that says where a row begins: at one of the four unrolled
 * vectors from label on, or, if it has none, at label8, its tail. */
#define PAIR_BLOCK(label, entry)                                                                                              \
    "ldm r1!, {r0, r2, r4, r6}\n"                                                                                             \
    "ldrd r3, r5, [r11]\n"                                                                                                    \
    "ldrd r9, r7, [r11, #24]\n"                                                                                               \
    "mov r8, r0\n"                                                                                                            \
    "mov r10, r2\n"                                                                                                           \
    "mov r12, r4\n"                                                                                                           \
    "mov lr, r6\n"                                                                                                            \
    "ldr pc, [r11, #" entry "]\n"                                                                                             \
    ".balign 4\n"                                                                                                             \
    label ":\n"                                                                                                               \
    ".rept 4\n" PAIR_VECTOR ".endr\n"                                                                                         \
    "subs r7, r7, #4\n"                                                                                                       \
    "bgt " label "b\n"                                                                                                        \
    "subs r9, r9, #1\n"                                                                                                       \
    "beq 8f\n"                                                                                                                \
    "ldr r7, [r11, #36]\n"                                                                                                    \
    "add r3, r3, r7\n"                                                                                                        \
    "add r5, r5, r7\n"                                                                                                        \
    "ldr r7, [r11, #28]\n"                                                                                                    \
    "ldr pc, [r11, #" entry "]\n"                                                                                             \
    label "8:\n"                                                                                                              \
    "8:\n"                                                                                                                    \
    "ldr r7, [r11, #32]\n"                                                                                                    \
    "cbz r7, 9f\n"                                                                                                            \
    "vctp.8 r7\n"                                                                                                             \
    "vpstt\n"                                                                                                                 \
    "vldrbt.u8 q0, [r3]\n"                                                                                                    \
    "vldrbt.u8 q1, [r5]\n"                                                                                                    \
    PAIR_TAIL_CHANNEL("r0", "r8")                                                                                             \
    PAIR_TAIL_CHANNEL("r2", "r10")                                                                                            \
    PAIR_TAIL_CHANNEL("r4", "r12")                                                                                            \
    PAIR_TAIL_CHANNEL("r6", "lr")                                                                                             \
    "9:\n"

#define SUMS_TO(vector, a, b, c, d)                                                                                           \
    "vmov " vector "[2], " vector "[0], " a ", " c "\n"                                                                       \
    "vmov " vector "[3], " vector "[1], " b ", " d "\n"

/* q0, q1: multipliers and shifts of a block, q2, q3: free. */
#define LOAD_PLAIN                                                                                                            \
    "vldrw.u32 q0, [r1], #16\n"                                                                                               \
    "vldrb.s32 q1, [r1], #4\n"
#define LOAD_SIGNED LOAD_PLAIN
#define LOAD_GENERAL                                                                                                          \
    LOAD_PLAIN                                                                                                                \
    "vmov.i32 q2, #0\n"                                                                                                       \
    "vmax.s32 q3, q1, q2\n"                                                                                                   \
    "vmin.s32 q1, q1, q2\n"

#define REQUANTIZE_PLAIN(q)                                                                                                   \
    "vqrdmulh.s32 " q ", " q ", q0\n"                                                                                         \
    "vrshl.s32 " q ", " q ", q1\n"
#define REQUANTIZE_SIGNED(q)                                                                                                  \
    "vqrdmulh.s32 " q ", " q ", q0\n"                                                                                         \
    "vshr.s32 q2, " q ", #31\n"                                                                                               \
    "vqadd.s32 " q ", " q ", q2\n"                                                                                            \
    "vrshl.s32 " q ", " q ", q1\n"
#define REQUANTIZE_GENERAL(q)                                                                                                 \
    "vshl.s32 " q ", " q ", q3\n"                                                                                             \
    "vqrdmulh.s32 " q ", " q ", q0\n"                                                                                         \
    "vand q2, " q ", q1\n"                                                                                                    \
    "vshr.s32 q2, q2, #31\n"                                                                                                  \
    "vqadd.s32 " q ", " q ", q2\n"                                                                                            \
    "vrshl.s32 " q ", " q ", q1\n"

/* Two vectors of int32 become eight saturated bytes, the zero point in r7 added. */
#define NARROW(even, odd)                                                                                                     \
    "vqmovnb.s32 " even ", " even "\n"                                                                                        \
    "vqmovnt.s32 " even ", " odd "\n"                                                                                         \
    "vqadd.s16 " even ", " even ", r7\n"                                                                                      \
    "vqmovnb.s16 " even ", " even "\n"

#define ENTER                                                                                                                 \
    ".syntax unified\n"                                                                                                       \
    "push {r4-r11, lr}\n"                                                                                                     \
    "vpush {d8-d15}\n"                                                                                                        \
    "mov r11, r0\n"                                                                                                           \
    "ldr r1, [r11, #16]\n"
#define LEAVE                                                                                                                 \
    "vpop {d8-d15}\n"                                                                                                         \
    "pop {r4-r11, pc}\n"

#define PAIR(form)                                                                                                            \
    ENTER                                                                                                                     \
    "ldr r7, [r11, #44]\n"                                                                                                    \
    "cbnz r7, 1f\n"                                                                                                           \
    "ldr r7, [r11, #28]\n"                                                                                                    \
    "adr.w r3, 28f\n"                                                                                                         \
    "adr.w r5, 38f\n"                                                                                                         \
    "cbz r7, 6f\n"                                                                                                            \
    "rsb r7, r7, #0\n"                                                                                                        \
    "and r7, r7, #3\n"                                                                                                        \
    "movs r0, #56\n"                                                                                                          \
    "mul r7, r7, r0\n"                                                                                                        \
    "adr.w r3, 2f\n"                                                                                                          \
    "add r3, r3, r7\n"                                                                                                        \
    "adr.w r5, 3f\n"                                                                                                          \
    "add r5, r5, r7\n"                                                                                                        \
    "6:\n"                                                                                                                    \
    "adds r3, r3, #1\n"                                                                                                       \
    "adds r5, r5, #1\n"                                                                                                       \
    "strd r3, r5, [r11, #44]\n"                                                                                               \
    "1:\n"                                                                                                                    \
    PAIR_BLOCK("2", "44")                                                                                                      \
    SUMS_TO("q4", "r0", "r2", "r4", "r6")                                                                                     \
    SUMS_TO("q5", "r8", "r10", "r12", "lr")                                                                                   \
    PAIR_BLOCK("3", "48")                                                                                                     \
    SUMS_TO("q6", "r0", "r2", "r4", "r6")                                                                                     \
    SUMS_TO("q7", "r8", "r10", "r12", "lr")                                                                                   \
    LOAD_##form                                                                                                               \
    REQUANTIZE_##form("q4")                                                                                                   \
    REQUANTIZE_##form("q5")                                                                                                   \
    LOAD_##form                                                                                                               \
    REQUANTIZE_##form("q6")                                                                                                   \
    REQUANTIZE_##form("q7")                                                                                                   \
    "ldr r7, [r11, #40]\n"                                                                                                    \
    "ldrd r3, r5, [r11, #8]\n"                                                                                                \
    NARROW("q4", "q6")                                                                                                        \
    NARROW("q5", "q7")                                                                                                        \
    "vstrb.16 q4, [r3], #8\n"                                                                                                 \
    "vstrb.16 q5, [r5], #8\n"                                                                                                 \
    "ldr r7, [r11, #20]\n"                                                                                                    \
    "strd r3, r5, [r11, #8]\n"                                                                                                \
    "cmp r1, r7\n"                                                                                                            \
    "blo.w 1b\n"                                                                                                              \
    LEAVE

/* r0 r2 r4 r6: sums of the first block, r8 r10 r12 lr: of the second, r1, r5: their weights, r3: pixel, r7: vectors left,
 * r9: tail. */
#define SINGLE_CHANNEL(first, second)                                                                                         \
    "vldrb.u8 q1, [r1], #16\n"                                                                                                \
    "vmladava.s8 " first ", q0, q1\n"                                                                                         \
    "vldrb.u8 q2, [r5], #16\n"                                                                                                \
    "vmladava.s8 " second ", q0, q2\n"
#define SINGLE_TAIL_CHANNEL(first, second)                                                                                    \
    "vldrb.u8 q1, [r1]\n"                                                                                                     \
    "add r1, r1, r9\n"                                                                                                        \
    "vmladava.s8 " first ", q0, q1\n"                                                                                         \
    "vldrb.u8 q2, [r5]\n"                                                                                                     \
    "add r5, r5, r9\n"                                                                                                        \
    "vmladava.s8 " second ", q0, q2\n"

#define SINGLE(form)                                                                                                          \
    ENTER                                                                                                                     \
    "1:\n"                                                                                                                    \
    "ldrd r7, r9, [r11, #28]\n"                                                                                               \
    "ldr r3, [r11]\n"                                                                                                         \
    "add r5, r1, #16\n"                                                                                                       \
    "add r5, r5, r7, lsl #6\n"                                                                                                \
    "add r5, r5, r9, lsl #2\n"                                                                                                \
    "ldm r1!, {r0, r2, r4, r6}\n"                                                                                             \
    "ldm r5!, {r8, r10, r12, lr}\n"                                                                                           \
    "cbz r7, 3f\n"                                                                                                            \
    "2:\n"                                                                                                                    \
    "vldrb.u8 q0, [r3], #16\n"                                                                                                \
    SINGLE_CHANNEL("r0", "r8")                                                                                                \
    SINGLE_CHANNEL("r2", "r10")                                                                                               \
    SINGLE_CHANNEL("r4", "r12")                                                                                               \
    SINGLE_CHANNEL("r6", "lr")                                                                                                \
    "subs r7, r7, #1\n"                                                                                                       \
    "bne 2b\n"                                                                                                                \
    "3:\n"                                                                                                                    \
    "cmp r9, #0\n"                                                                                                            \
    "beq 4f\n"                                                                                                                \
    "vctp.8 r9\n"                                                                                                             \
    "vpst\n"                                                                                                                  \
    "vldrbt.u8 q0, [r3]\n"                                                                                                    \
    SINGLE_TAIL_CHANNEL("r0", "r8")                                                                                           \
    SINGLE_TAIL_CHANNEL("r2", "r10")                                                                                          \
    SINGLE_TAIL_CHANNEL("r4", "r12")                                                                                          \
    SINGLE_TAIL_CHANNEL("r6", "lr")                                                                                           \
    "4:\n"                                                                                                                    \
    SUMS_TO("q4", "r0", "r2", "r4", "r6")                                                                                     \
    SUMS_TO("q6", "r8", "r10", "r12", "lr")                                                                                   \
    "mov r1, r5\n"                                                                                                            \
    LOAD_##form                                                                                                               \
    REQUANTIZE_##form("q4")                                                                                                   \
    LOAD_##form                                                                                                               \
    REQUANTIZE_##form("q6")                                                                                                   \
    "ldr r7, [r11, #40]\n"                                                                                                    \
    "ldr r3, [r11, #8]\n"                                                                                                     \
    NARROW("q4", "q6")                                                                                                        \
    "vstrb.16 q4, [r3], #8\n"                                                                                                 \
    "ldr r7, [r11, #20]\n"                                                                                                    \
    "str r3, [r11, #8]\n"                                                                                                     \
    "cmp r1, r7\n"                                                                                                            \
    "blo.w 1b\n"                                                                                                              \
    LEAVE

#define PAIR_STEP(name, form)                                                                                                 \
    NN_NAKED void name(nn_mve_block *block NN_UNUSED) { __asm__ volatile(PAIR(form)); }
#define SINGLE_STEP(name, form)                                                                                               \
    NN_NAKED void name(nn_mve_block *block NN_UNUSED) { __asm__ volatile(SINGLE(form)); }

NN_NAKED void nn_mve_clamp(int8_t *x NN_UNUSED, uint32_t count NN_UNUSED, int32_t min NN_UNUSED, int32_t max NN_UNUSED) {
    __asm__ volatile(".syntax unified\n"
                     "push {r4, lr}\n"
                     "vdup.8 q1, r2\n"
                     "vdup.8 q2, r3\n"
                     "wlstp.8 lr, r1, 2f\n"
                     "1:\n"
                     "vldrb.u8 q0, [r0]\n"
                     "vmax.s8 q0, q0, q1\n"
                     "vmin.s8 q0, q0, q2\n"
                     "vstrb.8 q0, [r0], #16\n"
                     "letp lr, 1b\n"
                     "2:\n"
                     "pop {r4, pc}\n");
}

NN_NAKED void nn_mve_copy_two(const nn_mve_two *two NN_UNUSED, uint32_t rows NN_UNUSED) {
    __asm__ volatile(".syntax unified\n"
                     "push {r4-r6, lr}\n"
                     "ldm r0, {r0, r2-r6}\n"     /* first, second, first copy, second copy, bytes of a row, from row to row */
                     "dls lr, r1\n"
                     "1:\n"
                     "vldrb.u8 q0, [r0]\n"
                     "vldrb.u8 q1, [r2]\n"
                     "add r0, r0, r6\n"
                     "add r2, r2, r6\n"
                     "vstrb.8 q0, [r3]\n"
                     "vstrb.8 q1, [r4]\n"
                     "add r3, r3, r5\n"
                     "add r4, r4, r5\n"
                     "le lr, 1b\n"
                     "pop {r4-r6, pc}\n");
}

NN_NAKED void nn_mve_copy_rows(const int8_t *from NN_UNUSED, uint32_t from_step NN_UNUSED, int8_t *to NN_UNUSED,
                            uint32_t to_step NN_UNUSED, uint32_t bytes NN_UNUSED, uint32_t rows NN_UNUSED) {
    __asm__ volatile(".syntax unified\n"
                     "push {r4-r7, lr}\n"
                     "ldrd r4, r5, [sp, #20]\n"
                     "1:\n"
                     "mov r6, r0\n"
                     "mov r7, r2\n"
                     "wlstp.8 lr, r4, 3f\n"
                     "2:\n"
                     "vldrb.u8 q0, [r6], #16\n"
                     "vstrb.8 q0, [r7], #16\n"
                     "letp lr, 2b\n"
                     "3:\n"
                     "add r0, r0, r1\n"
                     "add r2, r2, r3\n"
                     "subs r5, r5, #1\n"
                     "bne 1b\n"
                     "pop {r4-r7, pc}\n");
}

#else

typedef enum { PLAIN, SIGNED, GENERAL } form;

#define BLOCK 4u

static int8_t requantized(const nn_mve_block *block, uint32_t sum, int32_t multiplier, int32_t shift, form kind) {
    int32_t scaled;
    if (kind == PLAIN) {
        const uint32_t exponent = (uint32_t)-shift;
        const int32_t high = nn_high_mul((int32_t)sum, multiplier);
        scaled = exponent == 0u ? high : (high >> exponent) + (high >> (exponent - 1u) & 1);
    } else {
        scaled = nn_requantize((int32_t)sum, multiplier, shift);
    }
    return nn_saturate((scaled > INT16_MAX ? INT16_MAX : scaled < INT16_MIN ? INT16_MIN : scaled) + block->zero_point);
}

static uint32_t products(uint32_t sum, const int8_t *x, const int8_t *weights, uint32_t count) {
    for (; count > 0u; --count) {
        sum += (uint32_t)(*x++ * *weights++);
    }
    return sum;
}

/* The sums of four channels of one pixel. */
static void block_sums(const nn_mve_block *block, const uint32_t *record, const int8_t *x, uint32_t *sums) {
    const int8_t *weights = (const int8_t *)(record + BLOCK);
    for (uint32_t channel = 0; channel < BLOCK; ++channel) {
        sums[channel] = record[channel];
    }
    for (uint32_t row = 0; row < block->rows; ++row, x += block->gap) {
        for (uint32_t i = 0; i < block->vectors; ++i, x += NN_MVE_BYTES) {
            for (uint32_t channel = 0; channel < BLOCK; ++channel, weights += NN_MVE_BYTES) {
                sums[channel] = products(sums[channel], x, weights, NN_MVE_BYTES);
            }
        }
    }
    x -= block->tail == 0u ? 0u : block->gap;
    for (uint32_t channel = 0; channel < BLOCK; ++channel, weights += block->tail) {
        sums[channel] = products(sums[channel], x, weights, block->tail);
    }
}

/* Words of a block's weights and start values. */
static uint32_t block_words(const nn_mve_block *block) {
    return BLOCK + block->rows * block->vectors * NN_MVE_BYTES + block->tail;
}

static void compute_group(const nn_mve_block *block, const uint32_t *record, const int8_t *x, int8_t *output, form kind) {
    const uint32_t words = block_words(block);
    const uint32_t *stage = record + 2u * words;
    for (uint32_t odd = 0; odd < 2u; ++odd, stage += BLOCK + 1u) {
        uint32_t sums[BLOCK];
        block_sums(block, record + odd * words, x, sums);
        const int8_t *shifts = (const int8_t *)(stage + BLOCK);
        for (uint32_t channel = 0; channel < BLOCK; ++channel) {
            output[2u * channel + odd] =
                requantized(block, sums[channel], (int32_t)stage[channel], shifts[channel], kind);
        }
    }
}

static void compute(nn_mve_block *block, uint32_t pixels, form kind) {
    const uint32_t words = 2u * (block_words(block) + BLOCK + 1u);
    for (const uint32_t *record = block->weights; record < block->end; record += words) {
        for (uint32_t i = 0; i < pixels; ++i, block->output[i - 1u] += NN_MVE_GROUP) {
            compute_group(block, record, block->pixel[i], block->output[i], kind);
        }
    }
}

#define PAIR_STEP(name, form)                                                                                                 \
    void name(nn_mve_block *block) { compute(block, 2u, form); }
#define SINGLE_STEP(name, form)                                                                                               \
    void name(nn_mve_block *block) { compute(block, 1u, form); }

void nn_mve_clamp(int8_t *x, uint32_t count, int32_t min, int32_t max) {
    for (; count > 0u; --count, ++x) {
        *x = nn_clamp(*x, min, max);
    }
}

void nn_mve_copy_two(const nn_mve_two *two, uint32_t rows) {
    for (uint32_t row = 0; row < rows; ++row) {
        __builtin_memcpy(two->to[0] + row * two->bytes, two->from[0] + row * two->step, NN_MVE_BYTES);
        __builtin_memcpy(two->to[1] + row * two->bytes, two->from[1] + row * two->step, NN_MVE_BYTES);
    }
}

void nn_mve_copy_rows(const int8_t *from, uint32_t from_step, int8_t *to, uint32_t to_step, uint32_t bytes, uint32_t rows) {
    for (; rows > 0u; --rows, from += from_step, to += to_step) {
        for (uint32_t i = 0; i < bytes; ++i) {
            to[i] = from[i];
        }
    }
}

#endif

PAIR_STEP(nn_mve_pair_plain, PLAIN)
PAIR_STEP(nn_mve_pair_signed, SIGNED)
PAIR_STEP(nn_mve_pair_general, GENERAL)
SINGLE_STEP(nn_mve_single_plain, PLAIN)
SINGLE_STEP(nn_mve_single_signed, SIGNED)
SINGLE_STEP(nn_mve_single_general, GENERAL)
