/* See step_r256_vector.h. Cores with the DSP extension get assembly, all others the same steps in C on the same data. */
#include "step_r256_vector.h"

#include "lanes.h"

static uint32_t *expand_word(uint32_t word, uint32_t *to) {
    to[0] = nn_even_bytes(word);
    to[1] = word ^ 0x007f007fu;
    return to + 2;
}

void nn_r256_vector_expand(const int8_t *x, uint32_t depth, uint32_t *expanded) {
    uint32_t left = depth;
    for (; left >= 4u; left -= 4u, x += 4) {
        expanded = expand_word(nn_load_word(x), expanded);
    }
    if (left > 0u) {
        uint32_t word = 0;
        for (uint32_t i = 0; i < left; ++i) {
            word |= (uint32_t)(uint8_t)x[i] << (8u * i);
        }
        expanded = expand_word(word, expanded);
    }
    if ((depth + 3u) / 4u % 2u != 0u) {
        expand_word(0u, expanded);
    }
}

#if NN_DSP

/* r0-r3: x, r4-r7: sums, r8-r11: weights of the four outputs, r12: weights, lr: x.
 * On the stack: entry of the unrolled steps, end of x, x, output, end of weights, rounding.
 * element_bytes: of x for one step. step_bytes: of code for one step; there are four of them.
 */
#define ENTER(element_bytes, step_bytes)                                                                                       \
    ".syntax unified\n"                                                                                                        \
    "push {r4-r11, lr}\n"                                                                                                      \
    "ldm r0, {r2, r3, r4, r5, r6, r12}\n" /* x, steps, output, end, rounding, weights */                                       \
    "mov lr, r2\n"                                                                                                             \
    "movs r0, #" element_bytes "\n"                                                                                            \
    "mla r1, r3, r0, r2\n"                                                                                                     \
    "rsb r3, r3, #0\n"                                                                                                         \
    "and r3, r3, #3\n"                                                                                                         \
    "movs r0, #" step_bytes "\n"                                                                                               \
    "mul r0, r3, r0\n"                                                                                                         \
    "adr.w r3, 2f\n"                                                                                                           \
    "add r0, r0, r3\n"                                                                                                         \
    "add r0, r0, #1\n"                                                                                                         \
    "mov r3, r4\n"                                                                                                             \
    "push {r5, r6}\n"                                                                                                          \
    "push {r0, r1, r2, r3}\n"                                                                                                  \
    "1:\n"                                                                                                                     \
    "ldm r12!, {r4, r5, r6, r7}\n"                                                                                             \
    "bx r0\n"                                                                                                                  \
    ".balign 4\n"                                                                                                              \
    "2:\n"

#define PRODUCTS(sum, weights, a, b)                                                                                           \
    "smlad " sum ", " weights ", " a ", " sum "\n"                                                                             \
    "sxtb16 " weights ", " weights "\n"                                                                                        \
    "smlad " sum ", " weights ", " b ", " sum "\n"

#define WORD(a, b)                                                                                                             \
    "ldm r12!, {r8, r9, r10, r11}\n" PRODUCTS("r4", "r8", a, b) PRODUCTS("r5", "r9", a, b) PRODUCTS("r6", "r10", a, b)        \
        PRODUCTS("r7", "r11", a, b)

/* 27 instructions, 108 bytes, for 32 products. */
#define STEPS                                                                                                                  \
    ".rept 4\n"                                                                                                                \
    "ldm lr!, {r0, r1, r2, r3}\n" WORD("r0", "r1") WORD("r2", "r3") ".endr\n"

#define DIRECT_WORD                                                                                                            \
    "ldr r1, [lr], #4\n"                                                                                                       \
    "sxtb16 r0, r1\n"                                                                                                          \
    "eor r1, r1, #0x007f007f\n" WORD("r0", "r1")

/* 32 instructions, 128 bytes, for 32 products. */
#define DIRECT_STEPS ".rept 4\n" DIRECT_WORD DIRECT_WORD ".endr\n"

#define LOOP                                                                                                                   \
    "ldr r0, [sp, #4]\n"                                                                                                       \
    "cmp lr, r0\n"                                                                                                             \
    "bne.w 2b\n"

#define LINEAR                                                                                                                 \
    "ldm r12!, {r8, r9, r10, r11}\n"                                                                                           \
    "smmul r4, r4, r8\n"                                                                                                       \
    "smmul r5, r5, r9\n"                                                                                                       \
    "smmul r6, r6, r10\n"                                                                                                      \
    "smmul r7, r7, r11\n"

#define SIGNED_SUM(sum, factor, negative)                                                                                      \
    "and " negative ", " negative ", " sum ", asr #31\n"                                                                       \
    "sub " sum ", " sum ", " negative "\n"                                                                                     \
    "smmla " sum ", " sum ", " factor ", lr\n"

#define SIGNED                                                                                                                 \
    "ldm r12!, {r8, r9, r10, r11}\n"                                                                                           \
    "ldm r12!, {r0, r1, r2, r3}\n"                                                                                             \
    "ldr lr, [sp, #20]\n" SIGNED_SUM("r4", "r8", "r0") SIGNED_SUM("r5", "r9", "r1") SIGNED_SUM("r6", "r10", "r2")              \
        SIGNED_SUM("r7", "r11", "r3")

/* Back to the next record's start with r0: entry, lr: x. */
#define STORE(shift)                                                                                                           \
    "ssat r4, #8, r4, asr #" shift "\n"                                                                                        \
    "ssat r5, #8, r5, asr #" shift "\n"                                                                                        \
    "ssat r6, #8, r6, asr #" shift "\n"                                                                                        \
    "ssat r7, #8, r7, asr #" shift "\n"                                                                                        \
    "ldm sp, {r0, r1, r2, r3, r8}\n"                                                                                           \
    "mov lr, r2\n"                                                                                                             \
    "strb r4, [r3], #1\n"                                                                                                      \
    "strb r5, [r3], #1\n"                                                                                                      \
    "strb r6, [r3], #1\n"                                                                                                      \
    "strb r7, [r3], #1\n"                                                                                                      \
    "str r3, [sp, #12]\n"                                                                                                      \
    "cmp r12, r8\n"                                                                                                            \
    "bne.w 1b\n"

#define LEAVE                                                                                                                  \
    "add sp, sp, #24\n"                                                                                                        \
    "pop {r4-r11, pc}\n"

NN_NAKED void nn_r256_vector_linear_8(const nn_r256_vector *vector NN_UNUSED) {
    __asm__ volatile(ENTER("16", "108") STEPS LOOP LINEAR STORE("8") LEAVE);
}

NN_NAKED void nn_r256_vector_linear_12(const nn_r256_vector *vector NN_UNUSED) {
    __asm__ volatile(ENTER("16", "108") STEPS LOOP LINEAR STORE("12") LEAVE);
}

NN_NAKED void nn_r256_vector_signed_8(const nn_r256_vector *vector NN_UNUSED) {
    __asm__ volatile(ENTER("16", "108") STEPS LOOP SIGNED STORE("8") LEAVE);
}

NN_NAKED void nn_r256_vector_signed_12(const nn_r256_vector *vector NN_UNUSED) {
    __asm__ volatile(ENTER("16", "108") STEPS LOOP SIGNED STORE("12") LEAVE);
}

NN_NAKED void nn_r256_vector_direct_linear_8(const nn_r256_vector *vector NN_UNUSED) {
    __asm__ volatile(ENTER("8", "128") DIRECT_STEPS LOOP LINEAR STORE("8") LEAVE);
}

NN_NAKED void nn_r256_vector_direct_linear_12(const nn_r256_vector *vector NN_UNUSED) {
    __asm__ volatile(ENTER("8", "128") DIRECT_STEPS LOOP LINEAR STORE("12") LEAVE);
}

NN_NAKED void nn_r256_vector_direct_signed_8(const nn_r256_vector *vector NN_UNUSED) {
    __asm__ volatile(ENTER("8", "128") DIRECT_STEPS LOOP SIGNED STORE("8") LEAVE);
}

NN_NAKED void nn_r256_vector_direct_signed_12(const nn_r256_vector *vector NN_UNUSED) {
    __asm__ volatile(ENTER("8", "128") DIRECT_STEPS LOOP SIGNED STORE("12") LEAVE);
}

NN_NAKED void nn_r256_vector_sums(const nn_r256_vector *vector NN_UNUSED) {
    __asm__ volatile(ENTER("16", "108") STEPS LOOP "ldm sp, {r0, r1, r2, r3, r8}\n"
                                                    "mov lr, r2\n"
                                                    "stm r3!, {r4, r5, r6, r7}\n"
                                                    "str r3, [sp, #12]\n"
                                                    "cmp r12, r8\n"
                                                    "bne.w 1b\n" LEAVE);
}

#else

/* One word of each output's weights times four elements as A and B. */
static void add_word(const uint32_t *weights, uint32_t a, uint32_t b, uint32_t *sums) {
    for (uint32_t i = 0; i < NN_R256_OUTPUTS; ++i) {
        sums[i] = nn_add_products(nn_add_products(sums[i], weights[i], a), nn_even_bytes(weights[i]), b);
    }
}

/* One record's sums; returns the weights behind its steps. */
static const uint32_t *sum_record(const nn_r256_vector *vector, const uint32_t *weights, uint32_t *sums) {
    const uint32_t *x = vector->x;
    __builtin_memcpy(sums, weights, NN_R256_OUTPUTS * sizeof *sums);
    weights += NN_R256_OUTPUTS;
    for (uint32_t word = 0; word < 2u * vector->steps; ++word) {
        add_word(weights, x[0], x[1], sums);
        weights += NN_R256_OUTPUTS;
        x += 2;
    }
    return weights;
}

static const uint32_t *sum_record_directly(const nn_r256_vector *vector, const uint32_t *weights, uint32_t *sums) {
    const int8_t *x = vector->x;
    __builtin_memcpy(sums, weights, NN_R256_OUTPUTS * sizeof *sums);
    weights += NN_R256_OUTPUTS;
    for (uint32_t word = 0; word < 2u * vector->steps; ++word) {
        uint32_t expanded[2];
        expand_word(nn_load_word(x), expanded);
        add_word(weights, expanded[0], expanded[1], sums);
        weights += NN_R256_OUTPUTS;
        x += 4;
    }
    return weights;
}

typedef const uint32_t *(*record_sums)(const nn_r256_vector *vector, const uint32_t *weights, uint32_t *sums);

static void linear(const nn_r256_vector *vector, record_sums sum, uint32_t shift) {
    int8_t *output = vector->output;
    for (const uint32_t *weights = vector->weights; weights != vector->end; output += NN_R256_OUTPUTS) {
        uint32_t sums[NN_R256_OUTPUTS];
        weights = sum(vector, weights, sums);
        for (uint32_t i = 0; i < NN_R256_OUTPUTS; ++i) {
            output[i] = nn_saturate(nn_multiply_high((int32_t)sums[i], (int32_t)weights[i]) >> shift);
        }
        weights += NN_R256_OUTPUTS;
    }
}

static void with_sign(const nn_r256_vector *vector, record_sums sum, uint32_t shift) {
    int8_t *output = vector->output;
    for (const uint32_t *weights = vector->weights; weights != vector->end; output += NN_R256_OUTPUTS) {
        uint32_t sums[NN_R256_OUTPUTS];
        weights = sum(vector, weights, sums);
        for (uint32_t i = 0; i < NN_R256_OUTPUTS; ++i) {
            const int32_t x = (int32_t)sums[i] - ((int32_t)sums[i] < 0 ? (int32_t)weights[NN_R256_OUTPUTS + i] : 0);
            output[i] = nn_saturate((nn_multiply_high(x, (int32_t)weights[i]) + vector->rounding) >> shift);
        }
        weights += 2u * NN_R256_OUTPUTS;
    }
}

void nn_r256_vector_linear_8(const nn_r256_vector *vector) { linear(vector, sum_record, 8u); }

void nn_r256_vector_linear_12(const nn_r256_vector *vector) { linear(vector, sum_record, 12u); }

void nn_r256_vector_signed_8(const nn_r256_vector *vector) { with_sign(vector, sum_record, 8u); }

void nn_r256_vector_signed_12(const nn_r256_vector *vector) { with_sign(vector, sum_record, 12u); }

void nn_r256_vector_direct_linear_8(const nn_r256_vector *vector) { linear(vector, sum_record_directly, 8u); }

void nn_r256_vector_direct_linear_12(const nn_r256_vector *vector) { linear(vector, sum_record_directly, 12u); }

void nn_r256_vector_direct_signed_8(const nn_r256_vector *vector) { with_sign(vector, sum_record_directly, 8u); }

void nn_r256_vector_direct_signed_12(const nn_r256_vector *vector) { with_sign(vector, sum_record_directly, 12u); }

void nn_r256_vector_sums(const nn_r256_vector *vector) {
    uint32_t *sums = (uint32_t *)(void *)vector->output;
    for (const uint32_t *weights = vector->weights; weights != vector->end; sums += NN_R256_OUTPUTS) {
        weights = sum_record(vector, weights, sums);
    }
}

#endif
