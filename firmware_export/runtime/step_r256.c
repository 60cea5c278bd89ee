/* See step_r256.h. Cores with the DSP extension get assembly, all others the same steps in C on the same data. */
#include "step_r256.h"

#if NN_DSP

/* r0-r2: pixels, r3: x. 10 instructions, 40 bytes. */
#define EXPAND_WORD                                                                                                           \
    "ldr r7, [r0], #4\n"                                                                                                      \
    "ldr r8, [r1], #4\n"                                                                                                      \
    "ldr r9, [r2], #4\n"                                                                                                      \
    "sxtb16 r4, r7\n"                                                                                                         \
    "sxtb16 r5, r8\n"                                                                                                         \
    "sxtb16 r6, r9\n"                                                                                                         \
    "eor r7, r7, #0x007f007f\n"                                                                                               \
    "eor r8, r8, #0x007f007f\n"                                                                                               \
    "eor r9, r9, #0x007f007f\n"                                                                                               \
    "stmia.w r3!, {r4-r9}\n"

/* r0-r2: pixels, r3: x, r4-r9: a row's words as A and B, r10: counter, r11: rows left, r12: unrolled entry, lr: source.
 * 40 bytes for each word; a row of any length enters the four unrolled words where the rest of it begins.
 */
NN_NAKED uint32_t *nn_r256_expand(const nn_r256_source *source NN_UNUSED, uint32_t *x NN_UNUSED) {
    __asm__ volatile(".syntax unified\n"
                     "push {r4-r11, lr}\n"
                     "mov lr, r0\n"
                     "mov r3, r1\n"
                     "ldrd r4, r11, [lr, #12]\n"
                     "rsb r5, r4, #0\n"
                     "and r5, r5, #3\n"
                     "movs r6, #40\n"
                     "mul r5, r5, r6\n"
                     "adr.w r12, 2f\n"
                     "add r12, r12, r5\n"
                     "add r12, r12, #1\n"
                     "ldm lr!, {r0, r1, r2}\n" /* lr: from here at words */
                     "1:\n"
                     "ldr r10, [lr]\n"
                     "bx r12\n"
                     ".balign 4\n"
                     "2:\n"
                     ".rept 4\n" EXPAND_WORD ".endr\n"
                     "subs r10, r10, #4\n"
                     "bgt 2b\n"
                     "subs r11, r11, #1\n"
                     "beq 3f\n"
                     "ldrd r4, r5, [lr, #8]\n"
                     "ldr r6, [lr, #16]\n"
                     "add r0, r0, r4\n"
                     "add r1, r1, r5\n"
                     "add r2, r2, r6\n"
                     "b 1b\n"
                     "3:\n"
                     "mov r0, r3\n"
                     "pop {r4-r11, pc}\n");
}

#define NINTH_BYTES(shift)                                                                                                    \
    "ldrb r4, [r0]\n"                                                                                                         \
    "ldrb r5, [r1]\n"                                                                                                         \
    "ldrb r6, [r2]\n"                                                                                                         \
    "orr r10, r10, r4, lsl #" shift "\n"                                                                                      \
    "orr r11, r11, r5, lsl #" shift "\n"                                                                                      \
    "orr r12, r12, r6, lsl #" shift "\n"

#define TO_NEXT_ROW                                                                                                           \
    "ldrd r4, r5, [lr, #20]\n"                                                                                                \
    "ldr r6, [lr, #28]\n"                                                                                                     \
    "add r0, r0, r4\n"                                                                                                        \
    "add r1, r1, r5\n"                                                                                                        \
    "add r2, r2, r6\n"

/* r10-r12: the ninth bytes of the rows, lr: source. */
NN_NAKED uint32_t *nn_r256_expand_nine(const nn_r256_source *source NN_UNUSED, uint32_t *x NN_UNUSED) {
    __asm__ volatile(".syntax unified\n"
                     "push {r4-r11, lr}\n"
                     "mov lr, r0\n"
                     "mov r3, r1\n"
                     "ldm lr, {r0, r1, r2}\n" EXPAND_WORD EXPAND_WORD "ldrb r10, [r0]\n"
                     "ldrb r11, [r1]\n"
                     "ldrb r12, [r2]\n" TO_NEXT_ROW EXPAND_WORD EXPAND_WORD NINTH_BYTES("8") TO_NEXT_ROW EXPAND_WORD EXPAND_WORD
                         NINTH_BYTES("16") "sxtb16 r4, r10\n"
                     "sxtb16 r5, r11\n"
                     "sxtb16 r6, r12\n"
                     "eor r7, r10, #0x007f007f\n"
                     "eor r8, r11, #0x007f007f\n"
                     "eor r9, r12, #0x007f007f\n"
                     "stm r3!, {r4-r9}\n"
                     "mov r0, r3\n"
                     "pop {r4-r11, pc}\n");
}

/* r0-r2: three words of x, r3: x, r4-r9: sums [channel][pixel], r10, r11: weights of the two channels, r12: weights,
 * lr: end of x. On the stack: output[3], x, entry of the unrolled steps, limit, rounding.
 */
#define ENTER                                                                                                                 \
    ".syntax unified\n"                                                                                                       \
    "push {r4-r11, lr}\n"                                                                                                     \
    "ldm r0, {r4-r11}\n"                                                                                                      \
    "mov r12, r11\n"                                                                                                          \
    "mov r3, r7\n"                                                                                                            \
    "movs r0, #24\n"                                                                                                          \
    "mla lr, r8, r0, r7\n"                                                                                                    \
    "adr.w r0, 3f\n"                                                                                                          \
    "rsbs r8, r8, #1\n"                                                                                                       \
    "beq 4f\n"                                                                                                                \
    "adr.w r0, 2f\n"                                                                                                          \
    "and r8, r8, #7\n"                                                                                                        \
    "movs r1, #68\n"                                                                                                          \
    "mul r8, r8, r1\n"                                                                                                        \
    "4:\n"                                                                                                                    \
    "add r8, r8, r0\n"                                                                                                        \
    "add r8, r8, #1\n"                                                                                                        \
    "push {r4-r10}\n"

/* One step with both words of the three pixels; the sums come from: 17 instructions, 68 bytes, for 24 products. */
#define STEP(from_0, from_1)                                                                                                  \
    "ldmia.w r3!, {r0, r1, r2}\n"                                                                                             \
    "ldrd r10, r11, [r12], #8\n"                                                                                              \
    "smlad r5, r10, r1, " from_0("r5") "\n"                                                                                   \
    "smlad r6, r10, r2, " from_0("r6") "\n"                                                                                   \
    "smlad r4, r10, r0, r4\n"                                                                                                 \
    "smlad r8, r11, r1, " from_1("r8") "\n"                                                                                   \
    "smlad r9, r11, r2, " from_1("r9") "\n"                                                                                   \
    "smlad r7, r11, r0, r7\n"                                                                                                 \
    "sxtb16 r10, r10\n"                                                                                                       \
    "sxtb16 r11, r11\n"                                                                                                       \
    "ldmia.w r3!, {r0, r1, r2}\n"                                                                                             \
    "smlad r4, r10, r0, r4\n"                                                                                                 \
    "smlad r5, r10, r1, r5\n"                                                                                                 \
    "smlad r6, r10, r2, r6\n"                                                                                                 \
    "smlad r7, r11, r0, r7\n"                                                                                                 \
    "smlad r8, r11, r1, r8\n"                                                                                                 \
    "smlad r9, r11, r2, r9\n"

#define SELF(sum) sum
#define START_0(sum) "r4"
#define START_1(sum) "r7"

/* Two channels times three pixels: the first step from the start values, the others unrolled by eight. */
#define DOT                                                                                                                   \
    "1:\n"                                                                                                                    \
    "ldrd r4, r7, [r12], #8\n"                                                                                                \
    STEP(START_0, START_1)                                                                                                    \
    "ldr r0, [sp, #16]\n"                                                                                                     \
    "bx r0\n"                                                                                                                 \
    ".balign 4\n"                                                                                                             \
    "2:\n"                                                                                                                    \
    ".rept 8\n"                                                                                                               \
    STEP(SELF, SELF)                                                                                                          \
    ".endr\n"                                                                                                                 \
    "3:\n"                                                                                                                    \
    "cmp r3, lr\n"                                                                                                            \
    "bne.w 2b\n"

#define LINEAR                                                                                                                 \
    "ldrd r10, r11, [r12], #8\n"                                                                                               \
    "smmul r4, r4, r10\n"                                                                                                      \
    "smmul r5, r5, r10\n"                                                                                                      \
    "smmul r6, r6, r10\n"                                                                                                      \
    "smmul r7, r7, r11\n"                                                                                                      \
    "smmul r8, r8, r11\n"                                                                                                      \
    "smmul r9, r9, r11\n"

/* r0, r1: factors, r2, r3: what negative sums lose, r11: rounding. */
#define SIGNED_SUM(sum, factor, negative)                                                                                      \
    "and r10, " negative ", " sum ", asr #31\n"                                                                                \
    "sub " sum ", " sum ", r10\n"                                                                                              \
    "smmla " sum ", " sum ", " factor ", r11\n"

#define SIGNED                                                                                                                 \
    "ldm r12!, {r0, r1, r2, r3}\n"                                                                                             \
    "ldr r11, [sp, #24]\n" SIGNED_SUM("r4", "r0", "r2") SIGNED_SUM("r5", "r0", "r2") SIGNED_SUM("r6", "r0", "r2")              \
        SIGNED_SUM("r7", "r1", "r3") SIGNED_SUM("r8", "r1", "r3") SIGNED_SUM("r9", "r1", "r3")

#define STORE(shift)                                                                                                           \
    "ssat r4, #8, r4, asr #" shift "\n"                                                                                        \
    "ssat r5, #8, r5, asr #" shift "\n"                                                                                        \
    "ssat r6, #8, r6, asr #" shift "\n"                                                                                        \
    "ssat r7, #8, r7, asr #" shift "\n"                                                                                        \
    "ssat r8, #8, r8, asr #" shift "\n"                                                                                        \
    "ssat r9, #8, r9, asr #" shift "\n"                                                                                        \
    "ldm sp, {r0, r1, r2, r3, r10, r11}\n"                                                                                     \
    "strb r4, [r0], #1\n"                                                                                                      \
    "strb r5, [r1], #1\n"                                                                                                      \
    "strb r6, [r2], #1\n"                                                                                                      \
    "cmp r12, r11\n"                                                                                                           \
    "beq 3f\n"                                                                                                                 \
    "strb r7, [r0], #1\n"                                                                                                      \
    "strb r8, [r1], #1\n"                                                                                                      \
    "strb r9, [r2], #1\n"                                                                                                      \
    "stm sp, {r0, r1, r2}\n"                                                                                                   \
    "blo.w 1b\n"

#define LEAVE                                                                                                                  \
    "3:\n"                                                                                                                     \
    "add sp, sp, #28\n"                                                                                                        \
    "pop {r4-r11, pc}\n"

NN_NAKED void nn_r256_linear_7(const nn_r256_block *block NN_UNUSED) { __asm__ volatile(ENTER DOT LINEAR STORE("7") LEAVE); }

NN_NAKED void nn_r256_linear_10(const nn_r256_block *block NN_UNUSED) { __asm__ volatile(ENTER DOT LINEAR STORE("10") LEAVE); }

NN_NAKED void nn_r256_linear_13(const nn_r256_block *block NN_UNUSED) { __asm__ volatile(ENTER DOT LINEAR STORE("13") LEAVE); }

NN_NAKED void nn_r256_linear_16(const nn_r256_block *block NN_UNUSED) { __asm__ volatile(ENTER DOT LINEAR STORE("16") LEAVE); }

NN_NAKED void nn_r256_signed_7(const nn_r256_block *block NN_UNUSED) { __asm__ volatile(ENTER DOT SIGNED STORE("7") LEAVE); }

NN_NAKED void nn_r256_signed_10(const nn_r256_block *block NN_UNUSED) { __asm__ volatile(ENTER DOT SIGNED STORE("10") LEAVE); }

NN_NAKED void nn_r256_signed_13(const nn_r256_block *block NN_UNUSED) { __asm__ volatile(ENTER DOT SIGNED STORE("13") LEAVE); }

NN_NAKED void nn_r256_signed_16(const nn_r256_block *block NN_UNUSED) { __asm__ volatile(ENTER DOT SIGNED STORE("16") LEAVE); }

NN_NAKED void nn_r256_sums(const nn_r256_block *block NN_UNUSED) {
    __asm__ volatile(ENTER DOT "ldm sp, {r0, r1, r2, r3, r10, r11}\n"
                               "stm r0!, {r4-r9}\n"
                               "str r0, [sp]\n"
                               "cmp r12, r11\n"
                               "blo.w 1b\n" LEAVE);
}

#else

uint32_t *nn_r256_expand(const nn_r256_source *source, uint32_t *x) {
    for (uint32_t row = 0; row < source->rows; ++row) {
        for (uint32_t word = 0; word < source->words; ++word) {
            uint32_t words[NN_R256_PIXELS];
            for (uint32_t i = 0; i < NN_R256_PIXELS; ++i) {
                const uint32_t row_bytes = source->words * 4u + source->gap[i];
                words[i] = nn_load_word(source->pixel[i] + row * row_bytes + word * 4u);
            }
            nn_r256_expand_words(words, x);
            x += NN_R256_STEP_WORDS;
        }
    }
    return x;
}

uint32_t *nn_r256_expand_nine(const nn_r256_source *source, uint32_t *x) {
    uint32_t words[NN_R256_PIXELS];
    x = nn_r256_expand(source, x);
    for (uint32_t i = 0; i < NN_R256_PIXELS; ++i) {
        const uint8_t *from = (const uint8_t *)source->pixel[i] + 4u * source->words;
        const uint32_t step = 4u * source->words + source->gap[i];
        words[i] = from[0] | (uint32_t)from[step] << 8 | (uint32_t)from[2u * step] << 16;
    }
    nn_r256_expand_words(words, x);
    return x + NN_R256_STEP_WORDS;
}

/* One record's sums [channel][pixel]; returns the weights behind its steps. */
static const uint32_t *sum_record(const nn_r256_block *block, const uint32_t *weights, uint32_t *sums) {
    uint32_t s0 = weights[0], s1 = s0, s2 = s0;
    uint32_t s3 = weights[1], s4 = s3, s5 = s3;
    const uint32_t *x = block->x;
    weights += 2;
    for (uint32_t step = block->steps; step > 0u; --step) {
        const uint32_t first = weights[0], second = weights[1];
        s0 = nn_add_products(s0, first, x[0]);
        s1 = nn_add_products(s1, first, x[1]);
        s2 = nn_add_products(s2, first, x[2]);
        s3 = nn_add_products(s3, second, x[0]);
        s4 = nn_add_products(s4, second, x[1]);
        s5 = nn_add_products(s5, second, x[2]);
        const uint32_t first_low = nn_even_bytes(first), second_low = nn_even_bytes(second);
        s0 = nn_add_products(s0, first_low, x[3]);
        s1 = nn_add_products(s1, first_low, x[4]);
        s2 = nn_add_products(s2, first_low, x[5]);
        s3 = nn_add_products(s3, second_low, x[3]);
        s4 = nn_add_products(s4, second_low, x[4]);
        s5 = nn_add_products(s5, second_low, x[5]);
        weights += 2;
        x += NN_R256_STEP_WORDS;
    }
    sums[0] = s0;
    sums[1] = s1;
    sums[2] = s2;
    sums[3] = s3;
    sums[4] = s4;
    sums[5] = s5;
    return weights;
}

static void store(const nn_r256_block *block, const int32_t *values, uint32_t channel, int one_only) {
    for (uint32_t i = 0; i < NN_R256_PIXELS; ++i) {
        block->output[i][channel] = nn_saturate(values[i]);
    }
    for (uint32_t i = 0; i < NN_R256_PIXELS && !one_only; ++i) {
        block->output[i][channel + 1u] = nn_saturate(values[NN_R256_PIXELS + i]);
    }
}

static void linear(const nn_r256_block *block, uint32_t shift) {
    const uint32_t *weights = block->weights;
    for (uint32_t channel = 0; weights < block->limit; channel += 2u) {
        uint32_t sums[2u * NN_R256_PIXELS];
        int32_t values[2u * NN_R256_PIXELS];
        weights = sum_record(block, weights, sums);
        for (uint32_t i = 0; i < 2u * NN_R256_PIXELS; ++i) {
            values[i] = nn_multiply_high((int32_t)sums[i], (int32_t)weights[i / NN_R256_PIXELS]) >> shift;
        }
        weights += 2;
        store(block, values, channel, weights == block->limit);
    }
}

static void with_sign(const nn_r256_block *block, uint32_t shift) {
    const uint32_t *weights = block->weights;
    for (uint32_t channel = 0; weights < block->limit; channel += 2u) {
        uint32_t sums[2u * NN_R256_PIXELS];
        int32_t values[2u * NN_R256_PIXELS];
        weights = sum_record(block, weights, sums);
        for (uint32_t i = 0; i < 2u * NN_R256_PIXELS; ++i) {
            const uint32_t *constants = weights + i / NN_R256_PIXELS;
            const int32_t sum = (int32_t)sums[i] - ((int32_t)sums[i] < 0 ? (int32_t)constants[2] : 0);
            values[i] = (nn_multiply_high(sum, (int32_t)constants[0]) + block->rounding) >> shift;
        }
        weights += 4;
        store(block, values, channel, weights == block->limit);
    }
}

void nn_r256_linear_7(const nn_r256_block *block) { linear(block, 7u); }

void nn_r256_linear_10(const nn_r256_block *block) { linear(block, 10u); }

void nn_r256_linear_13(const nn_r256_block *block) { linear(block, 13u); }

void nn_r256_linear_16(const nn_r256_block *block) { linear(block, 16u); }

void nn_r256_signed_7(const nn_r256_block *block) { with_sign(block, 7u); }

void nn_r256_signed_10(const nn_r256_block *block) { with_sign(block, 10u); }

void nn_r256_signed_13(const nn_r256_block *block) { with_sign(block, 13u); }

void nn_r256_signed_16(const nn_r256_block *block) { with_sign(block, 16u); }

void nn_r256_sums(const nn_r256_block *block) {
    uint32_t *sums = (uint32_t *)(void *)block->output[0];
    for (const uint32_t *weights = block->weights; weights < block->limit; sums += 2u * NN_R256_PIXELS) {
        weights = sum_record(block, weights, sums);
    }
}

#endif
