/* See step_depthwise.h. Cores with the DSP extension get assembly, all others the same steps in C on the same planes. */
#include "step_depthwise.h"

#include "lanes.h"

#if NN_DSP

/* r6, r7: four channels of two pixels -> one word in each plane. */
#define PAIR                                                                                                                   \
    "pkhbt r8, r6, r7, lsl #16\n"                                                                                              \
    "pkhtb r9, r7, r6, asr #16\n"                                                                                              \
    "sxtb16 r6, r8\n"                                                                                                          \
    "sxtb16 r7, r8, ror #8\n"                                                                                                  \
    "sxtb16 r8, r9\n"                                                                                                          \
    "sxtb16 r9, r9, ror #8\n"                                                                                                  \
    "str r7, [r1, r4]\n"                                                                                                       \
    "str r8, [r1, r4, lsl #1]\n"                                                                                               \
    "str r9, [r1, r5]\n"                                                                                                       \
    "str r6, [r1], #4\n"

/* r0: image, r1: plane, r2: rows, r3: pixel step, r4: plane step, r5: three of them, r10: fill, r11: pairs, r12: copy,
 * lr: pairs left. */
NN_NAKED void nn_planes_copy(const nn_plane_copy *copy NN_UNUSED) {
    __asm__ volatile(".syntax unified\n"
                     "push {r4-r11, lr}\n"
                     "mov r12, r0\n"
                     "ldm r12!, {r0, r1, r2, r3, r4, r10, r11}\n" /* r12: at lead */
                     "add r5, r4, r4, lsl #1\n"
                     "1:\n"
                     "mov lr, r11\n"
                     "ldr r8, [r12]\n"
                     "cmp r8, #0\n"
                     "beq 2f\n"
                     "mov r6, r10\n"
                     "ldr r7, [r0]\n"
                     "add r0, r0, r3\n" PAIR "2:\n"
                     "cmp lr, #0\n"
                     "beq 4f\n"
                     "3:\n"
                     "ldr r6, [r0]\n"
                     "ldr r7, [r0, r3]\n"
                     "add r0, r0, r3, lsl #1\n" PAIR "subs lr, lr, #1\n"
                     "bne 3b\n"
                     "4:\n"
                     "ldr r8, [r12, #4]\n"
                     "cmp r8, #0\n"
                     "beq 5f\n"
                     "ldr r6, [r0]\n"
                     "mov r7, r10\n"
                     "add r0, r0, r3\n" PAIR "5:\n"
                     "ldrd r6, r7, [r12, #8]\n"
                     "add r0, r0, r6\n"
                     "add r1, r1, r7\n"
                     "subs r2, r2, #1\n"
                     "bne 1b\n"
                     "pop {r4-r11, pc}\n");
}

/* r0: at three weights -> 256 (w0, w1) and 256 (w1, w2) as lanes of w01 and w12. */
#define WEIGHTS(offset, w01, w12)                                                                                             \
    "ldr r1, [r0, #" offset "]\n"                                                                                             \
    "uxtb16 r3, r1\n"                                                                                                         \
    "uxtb16 r1, r1, ror #8\n"                                                                                                 \
    "pkhbt " w01 ", r3, r1, lsl #16\n"                                                                                        \
    "pkhbt " w12 ", r1, r3\n"                                                                                                 \
    "lsl " w01 ", " w01 ", #8\n"                                                                                              \
    "lsl " w12 ", " w12 ", #8\n"

/* r0, r1: pixels, r2: plane, r3, r10: sums, r4-r9: weights, r11: start, r12: factor, lr: output.
 * On the stack: a copy of nn_plane_channels, with the end of the words in this row and the rows left as state, where a row
 * begins for words (the loop is unrolled for two: at 2, at 3 for an odd number, at 4 for none), and where it goes on behind
 * them for alone (at 5 if there is another output, else at 7).
 */
#define STATE "4"
#define PLANE_SKIP "12"
#define ROW_BEGIN "20"
#define ROW_REST "24"
#define ROW_BYTES "28"
#define ROWS "32"
#define PLANE "36"
#define WEIGHTS_PLACE "44"

#define ENTER                                                                                                                 \
    ".syntax unified\n"                                                                                                       \
    "push {r4-r11, lr}\n"                                                                                                     \
    "sub sp, sp, #60\n"                                                                                                       \
    "mov r12, sp\n"                                                                                                           \
    "ldm r0!, {r1-r8}\n"                                                                                                      \
    "stm r12!, {r1-r8}\n"                                                                                                     \
    "ldm r0, {r0-r5, lr}\n"                                                                                                   \
    "stm r12, {r0-r5, lr}\n"                                                                                                  \
    "adr.w r0, 2f\n"                                                                                                          \
    "tst r6, #1\n"                                                                                                            \
    "it ne\n"                                                                                                                 \
    "addne r0, r0, #(3f - 2f)\n"                                                                                              \
    "cmp r6, #0\n"                                                                                                            \
    "it eq\n"                                                                                                                 \
    "addeq r0, r0, #(4f - 2f)\n"                                                                                              \
    "add r0, r0, #1\n"                                                                                                        \
    "adr.w r1, 7f\n"                                                                                                          \
    "cmp r7, #0\n"                                                                                                            \
    "it ne\n"                                                                                                                 \
    "subne r1, r1, #(7f - 5f)\n"                                                                                              \
    "add r1, r1, #1\n"                                                                                                        \
    "strd r0, r1, [sp, #" ROW_BEGIN "]\n"

/* more: what stays in registers beside. */
#define CHANNEL(more)                                                                                                         \
    "6:\n"                                                                                                                    \
    "ldrd r2, lr, [sp, #" PLANE "]\n"                                                                                         \
    "ldrd r0, r1, [sp, #" WEIGHTS_PLACE "]\n"                                                                                 \
    "ldrd r11, r12, [r1]\n"                                                                                                   \
    "ldrd r1, r3, [sp, #" ROW_BYTES "]\n"                                                                                     \
    "add r1, r1, r2\n"                                                                                                        \
    "strd r1, r3, [sp, #" STATE "]\n"                                                                                         \
    WEIGHTS("0", "r4", "r5")                                                                                                  \
    WEIGHTS("3", "r6", "r7")                                                                                                  \
    WEIGHTS("6", "r8", "r9")                                                                                                  \
    more                                                                                                                      \
    "1:\n"                                                                                                                    \
    "ldr pc, [sp, #" ROW_BEGIN "]\n"                                                                                          \
    ".balign 4\n"                                                                                                             \
    "2:\n"

/* To the next row, then to the next channel. */
#define NEXT(row_pitch)                                                                                                       \
    "7:\n"                                                                                                                    \
    "ldrd r0, r1, [sp, #" PLANE_SKIP "]\n"                                                                                    \
    "add r2, r2, r0\n"                                                                                                        \
    "add lr, lr, r1\n"                                                                                                        \
    "ldrd r0, r1, [sp, #" STATE "]\n"                                                                                         \
    "add r0, r0, #" row_pitch "\n"                                                                                            \
    "subs r1, r1, #1\n"                                                                                                       \
    "strd r0, r1, [sp, #" STATE "]\n"                                                                                         \
    "bne.w 1b\n"                                                                                                              \
    "add r12, sp, #" PLANE "\n"                                                                                               \
    "ldm r12, {r0-r5}\n"                                                                                                      \
    "add r0, r0, r4\n"                                                                                                        \
    "add r1, r1, #1\n"                                                                                                        \
    "add r2, r2, #9\n"                                                                                                        \
    "add r3, r3, #8\n"                                                                                                        \
    "subs r5, r5, #1\n"                                                                                                       \
    "stm r12, {r0-r5}\n"                                                                                                      \
    "bne.w 6b\n"                                                                                                              \
    "add sp, sp, #60\n"                                                                                                       \
    "pop {r4-r11, pc}\n"
/* One row of two windows that begin one pixel apart. */
#define TWO_WINDOWS(from, sum, other, w01, w12)                                                                               \
    "ldrd r0, r1, " from "\n"                                                                                                 \
    "smlad r3, r0, " w01 ", " sum "\n"                                                                                        \
    "smlatb r10, r0, " w01 ", " other "\n"                                                                                    \
    "smlabt r3, r1, " w12 ", r3\n"                                                                                            \
    "smlad r10, r1, " w12 ", r10\n"

#define TWO_SUMS(row_1, row_2)                                                                                                \
    TWO_WINDOWS("[r2], #4", "r11", "r11", "r4", "r5")                                                                         \
    TWO_WINDOWS("[r2, #" row_1 "]", "r3", "r10", "r6", "r7")                                                                  \
    TWO_WINDOWS("[r2, #" row_2 "]", "r3", "r10", "r8", "r9")                                                                  \
    "smmul r3, r3, r12\n"                                                                                                     \
    "smmul r10, r10, r12\n"

#define STORE_TWO(shift)                                                                                                      \
    "ssat r3, #8, r3, asr #" shift "\n"                                                                                       \
    "ssat r10, #8, r10, asr #" shift "\n"                                                                                     \
    "strb r3, [lr]\n"                                                                                                         \
    "strb r10, [lr, r0]\n"                                                                                                    \
    "add lr, lr, r0, lsl #1\n"

/* One row of one window. */
#define WINDOW(from, sum, w01, w12)                                                                                           \
    "ldrd r0, r1, " from "\n"                                                                                                 \
    "smlad r3, r0, " w01 ", " sum "\n"                                                                                        \
    "smlabt r3, r1, " w12 ", r3\n"

#define ONE_SUM(row_0, row_1, row_2)                                                                                          \
    WINDOW(row_0, "r11", "r4", "r5")                                                                                          \
    WINDOW("[r2, #" row_1 "]", "r3", "r6", "r7")                                                                              \
    WINDOW("[r2, #" row_2 "]", "r3", "r8", "r9")                                                                              \
    "smmul r3, r3, r12\n"

/* row_1, row_2: offsets of the next rows behind a word. last_1, last_2: from its begin. */
#define STRIDE_1(shift, row_pitch, row_1, row_2, last_1, last_2)                                                              \
    ENTER                                                                                                                     \
    CHANNEL("")                                                                                                               \
    TWO_SUMS(row_1, row_2)                                                                                                    \
    "ldr r0, [sp]\n"                                                                                                          \
    STORE_TWO(shift)                                                                                                          \
    "3:\n"                                                                                                                    \
    TWO_SUMS(row_1, row_2)                                                                                                    \
    "ldrd r0, r1, [sp]\n"                                                                                                     \
    STORE_TWO(shift)                                                                                                          \
    "cmp r2, r1\n"                                                                                                            \
    "bne.w 2b\n"                                                                                                              \
    "4:\n"                                                                                                                    \
    "ldr pc, [sp, #" ROW_REST "]\n"                                                                                           \
    ".balign 4\n"                                                                                                             \
    "5:\n"                                                                                                                    \
    ONE_SUM("[r2]", last_1, last_2)                                                                                           \
    "ssat r3, #8, r3, asr #" shift "\n"                                                                                       \
    "strb r3, [lr]\n"                                                                                                         \
    NEXT(row_pitch)

#define STORE_ONE(shift)                                                                                                      \
    "ssat r3, #8, r3, asr #" shift "\n"                                                                                       \
    "strb r3, [lr]\n"                                                                                                         \
    "add lr, lr, r10\n"

/* r10: output step. */
#define STRIDE_2(shift, row_pitch, row_1, row_2)                                                                              \
    ENTER                                                                                                                     \
    CHANNEL("ldr r10, [sp]\n")                                                                                                \
    ONE_SUM("[r2], #4", row_1, row_2)                                                                                         \
    STORE_ONE(shift)                                                                                                          \
    "3:\n"                                                                                                                    \
    ONE_SUM("[r2], #4", row_1, row_2)                                                                                         \
    STORE_ONE(shift)                                                                                                          \
    "ldr r1, [sp, #" STATE "]\n"                                                                                              \
    "cmp r2, r1\n"                                                                                                            \
    "bne.w 2b\n"                                                                                                              \
    "4:\n"                                                                                                                    \
    "5:\n"                                                                                                                    \
    NEXT(row_pitch)

NN_NAKED void nn_plane_s1_7(const nn_plane_channels *channels NN_UNUSED) {
    __asm__ volatile(STRIDE_1("7", "128", "124", "252", "128", "256"));
}

NN_NAKED void nn_plane_s1_10(const nn_plane_channels *channels NN_UNUSED) {
    __asm__ volatile(STRIDE_1("10", "128", "124", "252", "128", "256"));
}

NN_NAKED void nn_plane_s2_7(const nn_plane_channels *channels NN_UNUSED) {
    __asm__ volatile(STRIDE_2("7", "256", "124", "252"));
}

NN_NAKED void nn_plane_s2_10(const nn_plane_channels *channels NN_UNUSED) {
    __asm__ volatile(STRIDE_2("10", "256", "124", "252"));
}

NN_NAKED void nn_plane_s1_7_wide(const nn_plane_channels *channels NN_UNUSED) {
    __asm__ volatile(STRIDE_1("7", "256", "252", "508", "256", "512"));
}

NN_NAKED void nn_plane_s1_10_wide(const nn_plane_channels *channels NN_UNUSED) {
    __asm__ volatile(STRIDE_1("10", "256", "252", "508", "256", "512"));
}

NN_NAKED void nn_plane_s2_7_wide(const nn_plane_channels *channels NN_UNUSED) {
    __asm__ volatile(STRIDE_2("7", "512", "252", "508"));
}

NN_NAKED void nn_plane_s2_10_wide(const nn_plane_channels *channels NN_UNUSED) {
    __asm__ volatile(STRIDE_2("10", "512", "252", "508"));
}

#else

static void put_pair(const int8_t *first, const int8_t *second, int16_t *plane, uint32_t plane_step) {
    for (uint32_t channel = 0; channel < 4u; ++channel) {
        plane[0] = first[channel];
        plane[1] = second[channel];
        plane += plane_step / sizeof *plane;
    }
}

void nn_planes_copy(const nn_plane_copy *copy) {
    int8_t fill[4];
    const int8_t *image = copy->image;
    int16_t *plane = copy->plane;
    __builtin_memcpy(fill, &copy->fill, sizeof fill);
    for (uint32_t row = 0; row < copy->rows; ++row) {
        if (copy->lead != 0u) {
            put_pair(fill, image, plane, copy->plane_step);
            image += copy->pixel_step;
            plane += 2;
        }
        for (uint32_t pair = 0; pair < copy->pairs; ++pair) {
            put_pair(image, image + copy->pixel_step, plane, copy->plane_step);
            image += 2u * copy->pixel_step;
            plane += 2;
        }
        if (copy->trail != 0u) {
            put_pair(image, fill, plane, copy->plane_step);
            image += copy->pixel_step;
            plane += 2;
        }
        image += copy->row_step;
        plane += copy->plane_row_step / sizeof *plane;
    }
}

static int8_t one_output(const int8_t *w, const int32_t *constants, const int16_t *x, uint32_t pitch, uint32_t shift) {
    uint32_t sum = (uint32_t)constants[0];
    for (uint32_t row = 0; row < 3u; ++row, w += 3, x += pitch / sizeof *x) {
        sum += 256u * (uint32_t)(w[0] * x[0] + w[1] * x[1] + w[2] * x[2]);
    }
    return nn_saturate(nn_multiply_high((int32_t)sum, constants[1]) >> shift);
}

static void plane_step(const nn_plane_channels *channels, uint32_t stride, uint32_t shift, uint32_t pitch) {
    const uint32_t paired = channels->words * (stride == 1u ? 2u : 1u);
    const uint32_t row_step = channels->output_step * paired + (uint32_t)channels->output_skip;
    for (uint32_t channel = 0; channel < channels->channels; ++channel) {
        const int16_t *x = channels->plane + channel * channels->plane_step / sizeof *x;
        const int8_t *w = channels->weights + 9u * channel;
        int8_t *output = channels->output + channel;
        for (uint32_t row = 0; row < channels->rows; ++row, x += stride * pitch / sizeof *x, output += row_step) {
            for (uint32_t column = 0; column < paired + channels->alone; ++column) {
                output[column * channels->output_step] =
                    one_output(w, channels->constants + 2u * channel, x + column * stride, pitch, shift);
            }
        }
    }
}

void nn_plane_s1_7(const nn_plane_channels *channels) { plane_step(channels, 1u, 7u, NN_PLANE_PITCH); }

void nn_plane_s1_10(const nn_plane_channels *channels) { plane_step(channels, 1u, 10u, NN_PLANE_PITCH); }

void nn_plane_s2_7(const nn_plane_channels *channels) { plane_step(channels, 2u, 7u, NN_PLANE_PITCH); }

void nn_plane_s2_10(const nn_plane_channels *channels) { plane_step(channels, 2u, 10u, NN_PLANE_PITCH); }

void nn_plane_s1_7_wide(const nn_plane_channels *channels) { plane_step(channels, 1u, 7u, 2u * NN_PLANE_PITCH); }

void nn_plane_s1_10_wide(const nn_plane_channels *channels) { plane_step(channels, 1u, 10u, 2u * NN_PLANE_PITCH); }

void nn_plane_s2_7_wide(const nn_plane_channels *channels) { plane_step(channels, 2u, 7u, 2u * NN_PLANE_PITCH); }

void nn_plane_s2_10_wide(const nn_plane_channels *channels) { plane_step(channels, 2u, 10u, 2u * NN_PLANE_PITCH); }

#endif
