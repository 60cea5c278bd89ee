/* See step_winograd.h. Cores with the DSP extension get assembly, all others the same steps in C on the same data. */
#include "step_winograd.h"

#include "lanes.h"

#if NN_DSP

/* r0-r3: u of four channels, r4-r7: v of four channels, r8-r11: sums of channel 0 with both tiles, channel 1 with both tiles,
 * r12: u, lr: v. On the stack: M [position][channel][tile], the block's fields, then entry, place in M, end of M.
 */
#define FIELDS "256"
#define CONSTANTS "268"
#define OUTPUT "264"
#define CHANNEL "272"
#define ROUNDING "300"
#define ENTRY "308"
#define PLACE "312"

#define ENTER                                                                                                                 \
    ".syntax unified\n"                                                                                                       \
    "push {r4-r11, lr}\n"                                                                                                     \
    "sub sp, sp, #324\n"                                                                                                      \
    "add r12, sp, #" FIELDS "\n"                                                                                              \
    "ldm r0!, {r1-r11}\n"                                                                                                     \
    "stm r12!, {r1-r11}\n"                                                                                                    \
    "ldm r0, {r3, r4}\n"                                                                                                      \
    "stm r12!, {r3, r4}\n"                                                                                                    \
    "adr.w r5, 3f\n"                                                                                                          \
    "mov r6, #40\n"                                                                                                           \
    "sub r4, r4, #1\n"                                                                                                        \
    "mls r5, r4, r6, r5\n"                                                                                                    \
    "add r5, r5, #1\n"                                                                                                        \
    "str r5, [r12]\n"                                                                                                         \
    "add r6, sp, #256\n"                                                                                                      \
    "str r6, [sp, #316]\n"                                                                                                    \
    "mov r12, r1\n"                                                                                                           \
    "mov lr, r2\n"                                                                                                            \
    "b 5f\n"                                                                                                                  \
    ".balign 4\n"

/* All positions: 10 instructions, 40 bytes, for 16 products. */
#define POSITIONS                                                                                                             \
    "5:\n"                                                                                                                    \
    "str sp, [sp, #" PLACE "]\n"                                                                                              \
    "1:\n"                                                                                                                    \
    "ldm r12!, {r0, r1, r2, r3}\n"                                                                                            \
    "ldm lr!, {r4, r5, r6, r7}\n"                                                                                             \
    "smuad r8, r0, r4\n"                                                                                                      \
    "smuad r9, r0, r6\n"                                                                                                      \
    "smuad r10, r2, r4\n"                                                                                                     \
    "smuad r11, r2, r6\n"                                                                                                     \
    "ldr r0, [sp, #" ENTRY "]\n"                                                                                              \
    "smlad r8, r1, r5, r8\n"                                                                                                  \
    "smlad r9, r1, r7, r9\n"                                                                                                  \
    "smlad r10, r3, r5, r10\n"                                                                                                \
    "smlad r11, r3, r7, r11\n"                                                                                                \
    "bx r0\n"                                                                                                                 \
    ".balign 4\n"                                                                                                             \
    ".rept 15\n"                                                                                                              \
    "ldm.w r12!, {r0, r1, r2, r3}\n"                                                                                          \
    "ldm.w lr!, {r4, r5, r6, r7}\n"                                                                                           \
    "smlad r8, r0, r4, r8\n"                                                                                                  \
    "smlad r9, r0, r6, r9\n"                                                                                                  \
    "smlad r10, r2, r4, r10\n"                                                                                                \
    "smlad r11, r2, r6, r11\n"                                                                                                \
    "smlad r8, r1, r5, r8\n"                                                                                                  \
    "smlad r9, r1, r7, r9\n"                                                                                                  \
    "smlad r10, r3, r5, r10\n"                                                                                                \
    "smlad r11, r3, r7, r11\n"                                                                                                \
    ".endr\n"                                                                                                                 \
    "3:\n"                                                                                                                    \
    "ldrd r0, r1, [sp, #" PLACE "]\n"                                                                                         \
    "stm r0!, {r8, r9, r10, r11}\n"                                                                                           \
    "str r0, [sp, #" PLACE "]\n"                                                                                              \
    "cmp r0, r1\n"                                                                                                            \
    "bne.w 1b\n"

/* One column of M of both tiles: m1 + m2 in r8, r9, m1 - m2 in r10, r11. */
#define COLUMN(m1, m2)                                                                                                        \
    "ldrd r8, r9, [sp, #" m1 "]\n"                                                                                            \
    "ldrd r10, r11, [sp, #" m2 "]\n"                                                                                          \
    "add r8, r8, r10\n"                                                                                                       \
    "add r9, r9, r11\n"                                                                                                       \
    "sub r10, r8, r10, lsl #1\n"                                                                                              \
    "sub r11, r9, r11, lsl #1\n"

/* 2 m0 + m1 + m2 to sum_0, sum_1 and m1 - m2 - 2 m3 to difference_0, difference_1. */
#define SUMS(m0, sum_0, sum_1, m3, difference_0, difference_1)                                                                \
    "ldrd r12, lr, [sp, #" m0 "]\n"                                                                                           \
    "add " sum_0 ", r8, r12, lsl #1\n"                                                                                        \
    "add " sum_1 ", r9, lr, lsl #1\n"                                                                                         \
    "ldrd r12, lr, [sp, #" m3 "]\n"                                                                                           \
    "sub " difference_0 ", r10, r12, lsl #1\n"                                                                                \
    "sub " difference_1 ", r11, lr, lsl #1\n"                                                                                 \

/* The four outputs of one channel: r0-r3 of tile 0, r4-r7 of tile 1. */
#define OUTPUTS(m00, m10, m20, m30, m01, m11, m21, m31, m02, m12, m22, m32, m03, m13, m23, m33)                               \
    COLUMN(m10, m20)                                                                                                          \
    SUMS(m00, "r0", "r4", m30, "r2", "r6")                                                                                    \
    COLUMN(m11, m21)                                                                                                          \
    SUMS(m01, "r1", "r5", m31, "r3", "r7")                                                                                    \
    "add r0, r1, r0, lsl #1\n"                                                                                                \
    "add r4, r5, r4, lsl #1\n"                                                                                                \
    "add r2, r3, r2, lsl #1\n"                                                                                                \
    "add r6, r7, r6, lsl #1\n"                                                                                                \
    COLUMN(m12, m22)                                                                                                          \
    SUMS(m02, "r8", "r9", m32, "r10", "r11")                                                                                  \
    "add r0, r0, r8\n"                                                                                                        \
    "sub r1, r1, r8\n"                                                                                                        \
    "add r4, r4, r9\n"                                                                                                        \
    "sub r5, r5, r9\n"                                                                                                        \
    "add r2, r2, r10\n"                                                                                                       \
    "sub r3, r3, r10\n"                                                                                                       \
    "add r6, r6, r11\n"                                                                                                       \
    "sub r7, r7, r11\n"                                                                                                       \
    COLUMN(m13, m23)                                                                                                          \
    SUMS(m03, "r8", "r9", m33, "r10", "r11")                                                                                  \
    "sub r1, r1, r8, lsl #1\n"                                                                                                \
    "sub r5, r5, r9, lsl #1\n"                                                                                                \
    "sub r3, r3, r10, lsl #1\n"                                                                                               \
    "sub r7, r7, r11, lsl #1\n"

#define OUTPUTS_0                                                                                                             \
    OUTPUTS("0", "64", "128", "192", "16", "80", "144", "208", "32", "96", "160", "224", "48", "112", "176", "240")

#define OUTPUTS_1                                                                                                             \
    OUTPUTS("8", "72", "136", "200", "24", "88", "152", "216", "40", "104", "168", "232", "56", "120", "184", "248")

/* 4 times the sum -> 256 times, start added, less negative if below 0, times factor. */
#define SCALE(sum)                                                                                                            \
    "add " sum ", r8, " sum ", lsl #6\n"                                                                                      \
    "and r12, r10, " sum ", asr #31\n"                                                                                        \
    "sub " sum ", " sum ", r12\n"                                                                                             \
    "smmla " sum ", " sum ", r9, r11\n"

#define SCALE_ALL(offset)                                                                                                     \
    "ldr r12, [sp, #" CONSTANTS "]\n"                                                                                         \
    "add r12, r12, #" offset "\n"                                                                                             \
    "ldm r12, {r8, r9, r10}\n"                                                                                                \
    "ldr r11, [sp, #" ROUNDING "]\n"                                                                                          \
    SCALE("r0")                                                                                                               \
    SCALE("r1")                                                                                                               \
    SCALE("r2")                                                                                                               \
    SCALE("r3")                                                                                                               \
    SCALE("r4")                                                                                                               \
    SCALE("r5")                                                                                                               \
    SCALE("r6")                                                                                                               \
    SCALE("r7")

/* next: what makes the channel in lr. */
#define STORE(shift, next)                                                                                                    \
    "ldr r12, [sp, #" OUTPUT "]\n"                                                                                            \
    "ldr lr, [sp, #" CHANNEL "]\n"                                                                                            \
    next                                                                                                                      \
    "ldm r12!, {r8, r9, r10, r11}\n"                                                                                          \
    "ssat r0, #8, r0, asr #" shift "\n"                                                                                       \
    "ssat r1, #8, r1, asr #" shift "\n"                                                                                       \
    "ssat r2, #8, r2, asr #" shift "\n"                                                                                       \
    "ssat r3, #8, r3, asr #" shift "\n"                                                                                       \
    "strb r0, [r8, lr]\n"                                                                                                     \
    "strb r1, [r9, lr]\n"                                                                                                     \
    "strb r2, [r10, lr]\n"                                                                                                    \
    "strb r3, [r11, lr]\n"                                                                                                    \
    "ldm r12!, {r8, r9, r10, r11}\n"                                                                                          \
    "ssat r4, #8, r4, asr #" shift "\n"                                                                                       \
    "ssat r5, #8, r5, asr #" shift "\n"                                                                                       \
    "ssat r6, #8, r6, asr #" shift "\n"                                                                                       \
    "ssat r7, #8, r7, asr #" shift "\n"                                                                                       \
    "strb r4, [r8, lr]\n"                                                                                                     \
    "strb r5, [r9, lr]\n"                                                                                                     \
    "strb r6, [r10, lr]\n"                                                                                                    \
    "strb r7, [r11, lr]\n"

#define NEXT                                                                                                                  \
    "add r12, sp, #" FIELDS "\n"                                                                                              \
    "ldm r12, {r0-r10}\n"                                                                                                     \
    "add r0, r0, r6\n"                                                                                                        \
    "add r1, r1, r7\n"                                                                                                        \
    "add r2, r2, r8\n"                                                                                                        \
    "add r3, r3, r9\n"                                                                                                        \
    "add r4, r4, r10\n"                                                                                                       \
    "subs r5, r5, #1\n"                                                                                                       \
    "stm r12, {r0-r5}\n"                                                                                                      \
    "mov r12, r0\n"                                                                                                           \
    "mov lr, r1\n"                                                                                                            \
    "bne.w 5b\n"                                                                                                              \
    "add sp, sp, #324\n"                                                                                                      \
    "pop {r4-r11, pc}\n"

#define BLOCK(shift)                                                                                                   \
    ENTER                                                                                                                     \
    POSITIONS                                                                                                                 \
    OUTPUTS_0                                                                                                                 \
    SCALE_ALL("0")                                                                                                            \
    STORE(shift, "")                                                                                                          \
    OUTPUTS_1                                                                                                                 \
    SCALE_ALL("12")                                                                                                           \
    STORE(shift, "add lr, lr, #1\n")                                                                                          \
    NEXT

NN_NAKED void nn_winograd_shift_7(const nn_winograd_block *block NN_UNUSED) { __asm__ volatile(BLOCK("7")); }

NN_NAKED void nn_winograd_shift_10(const nn_winograd_block *block NN_UNUSED) { __asm__ volatile(BLOCK("10")); }

NN_NAKED void nn_winograd_shift_13(const nn_winograd_block *block NN_UNUSED) { __asm__ volatile(BLOCK("13")); }

#else

/* Four channels of one output channel and one tile. */
static uint32_t products(const uint32_t *u, const uint32_t *v) {
    return (uint32_t)(nn_low_lane(u[0]) * nn_low_lane(v[0]) + nn_high_lane(u[0]) * nn_high_lane(v[0])) +
           (uint32_t)(nn_low_lane(u[1]) * nn_low_lane(v[1]) + nn_high_lane(u[1]) * nn_high_lane(v[1]));
}

static void sum_positions(const nn_winograd_block *block, const uint32_t *u, const uint32_t *v, uint32_t *m) {
    for (uint32_t position = 0; position < NN_WINOGRAD_POSITIONS; ++position, m += 4) {
        uint32_t sum0 = 0, sum1 = 0, sum2 = 0, sum3 = 0;
        for (uint32_t group = block->groups; group > 0u; --group, u += 4, v += 4) {
            sum0 += products(u, v);
            sum1 += products(u, v + 2);
            sum2 += products(u + 2, v);
            sum3 += products(u + 2, v + 2);
        }
        m[0] = sum0;
        m[1] = sum1;
        m[2] = sum2;
        m[3] = sum3;
    }
}

/* A' of four values step apart, of which the first and the last are only half. */
static uint32_t first_of(const uint32_t *m, uint32_t step) { return 2u * m[0] + m[step] + m[2u * step]; }

static uint32_t second_of(const uint32_t *m, uint32_t step) { return m[step] - m[2u * step] - 2u * m[3u * step]; }

/* m: [position], 4 words apart. */
static void transform_output(const uint32_t *m, uint32_t *y) {
    uint32_t rows[2][4];
    for (uint32_t column = 0; column < 4u; ++column) {
        rows[0][column] = first_of(m + 4u * column, 16u);
        rows[1][column] = second_of(m + 4u * column, 16u);
    }
    for (uint32_t row = 0; row < 2u; ++row) {
        y[2u * row] = first_of(rows[row], 1u);
        y[2u * row + 1u] = second_of(rows[row], 1u);
    }
}

static int8_t output_of(uint32_t sum, const int32_t *constants, int32_t rounding, uint32_t shift) {
    const int32_t scaled = (int32_t)((sum << 6) + (uint32_t)constants[0]);
    return nn_saturate((nn_multiply_high(scaled - (scaled < 0 ? constants[2] : 0), constants[1]) + rounding) >> shift);
}

static void run_block(const nn_winograd_block *block, uint32_t shift) {
    for (uint32_t i = 0; i < block->count; ++i) {
        uint32_t m[4u * NN_WINOGRAD_POSITIONS];
        int8_t *const *output = block->output + i * block->output_step / sizeof *output;
        const int32_t *constants = block->constants + i * block->constants_step / sizeof *constants;
        sum_positions(block, block->u + i * block->u_step / sizeof *m, block->v + i * block->v_step / sizeof *m, m);
        for (uint32_t part = 0; part < 4u; ++part) {
            uint32_t y[NN_WINOGRAD_OUTPUTS];
            const uint32_t channel = part / 2u, tile = part % 2u;
            transform_output(m + part, y);
            for (uint32_t k = 0; k < NN_WINOGRAD_OUTPUTS; ++k) {
                output[tile * NN_WINOGRAD_OUTPUTS + k][block->channel + i * block->channel_step + channel] =
                    output_of(y[k], constants + channel * NN_WINOGRAD_CONSTANTS, block->rounding, shift);
            }
        }
    }
}

void nn_winograd_shift_7(const nn_winograd_block *block) { run_block(block, 7u); }

void nn_winograd_shift_10(const nn_winograd_block *block) { run_block(block, 10u); }

void nn_winograd_shift_13(const nn_winograd_block *block) { run_block(block, 13u); }

#endif
