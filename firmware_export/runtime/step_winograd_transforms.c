/* What step_winograd.h calls V and U. Cores with the DSP extension get assembly, all others the same in C. */
#include "step_winograd.h"

#include "lanes.h"

#if NN_DSP

/* The pixels of one row from r0 on -> x0, spare, x2, x3 = x0 - x2, x1 + x2, x2 - x1, x1 - x3, lane by lane. */
#define ROW(lanes, x0, x1, x2, x3, spare)                                                                                     \
    "ldr " x0 ", [r0]\n"                                                                                                      \
    "ldr " x1 ", [r0, r1]\n"                                                                                                  \
    "add r0, r0, r1, lsl #1\n"                                                                                                \
    "ldr " x2 ", [r0]\n"                                                                                                      \
    "ldr " x3 ", [r0, r1]\n"                                                                                                  \
    "sxtb16 " x0 ", " x0 lanes "\n"                                                                                           \
    "sxtb16 " x1 ", " x1 lanes "\n"                                                                                           \
    "sxtb16 " x2 ", " x2 lanes "\n"                                                                                           \
    "sxtb16 " x3 ", " x3 lanes "\n"                                                                                           \
    "ssub16 " x0 ", " x0 ", " x2 "\n"                                                                                         \
    "ssub16 " x3 ", " x1 ", " x3 "\n"                                                                                         \
    "sadd16 " spare ", " x1 ", " x2 "\n"                                                                                      \
    "ssub16 " x2 ", " x2 ", " x1 "\n"

/* To the next four positions. */
#define PUT(a, b, c, d)                                                                                                       \
    "str " a ", [r3]\n"                                                                                                       \
    "str " b ", [r3, r4]\n"                                                                                                   \
    "str " c ", [r3, r4, lsl #1]\n"                                                                                           \
    "add r3, r3, r4, lsl #1\n"                                                                                                \
    "str " d ", [r3, r4]\n"                                                                                                   \
    "add r3, r3, r4, lsl #1\n"

#define FOUR(operation, a, b, c, d, e, f, g, h)                                                                               \
    operation " " a ", " a ", " e "\n"                                                                                        \
    operation " " b ", " b ", " f "\n"                                                                                        \
    operation " " c ", " c ", " g "\n"                                                                                        \
    operation " " d ", " d ", " h "\n"

/* One word of lanes of each pixel -> one word in each position. Rows 0, 2, 1, 3; then back to the first pixel and position. */
#define INPUT_LANES(lanes)                                                                                                    \
    ROW(lanes, "r5", "r6", "r7", "r8", "r9")                                                                                  \
    "add r0, r0, r2, lsl #1\n"                                                                                                \
    "sub r0, r0, r1, lsl #1\n"                                                                                                \
    ROW(lanes, "r10", "r11", "r12", "lr", "r6")                                                                               \
    FOUR("ssub16", "r5", "r9", "r7", "r8", "r10", "r6", "r12", "lr")                                                          \
    PUT("r5", "r9", "r7", "r8")                                                                                               \
    "sub r0, r0, r2\n"                                                                                                        \
    "sub r0, r0, r1, lsl #1\n"                                                                                                \
    ROW(lanes, "r5", "r7", "r8", "r9", "r11")                                                                                 \
    "sadd16 r7, r5, r10\n"                                                                                                    \
    "str r7, [r3]\n"                                                                                                          \
    "sadd16 r7, r11, r6\n"                                                                                                    \
    "str r7, [r3, r4]\n"                                                                                                      \
    "sadd16 r7, r8, r12\n"                                                                                                    \
    "str r7, [r3, r4, lsl #1]\n"                                                                                              \
    "add r3, r3, r4, lsl #1\n"                                                                                                \
    "sadd16 r7, r9, lr\n"                                                                                                     \
    "str r7, [r3, r4]\n"                                                                                                      \
    "add r3, r3, r4, lsl #1\n"                                                                                                \
    FOUR("ssub16", "r10", "r6", "r12", "lr", "r5", "r11", "r8", "r9")                                                         \
    PUT("r10", "r6", "r12", "lr")                                                                                             \
    "add r0, r0, r2, lsl #1\n"                                                                                                \
    "sub r0, r0, r1, lsl #1\n"                                                                                                \
    ROW(lanes, "r10", "r6", "r12", "lr", "r7")                                                                                \
    FOUR("ssub16", "r5", "r11", "r8", "r9", "r10", "r7", "r12", "lr")                                                         \
    PUT("r5", "r11", "r8", "r9")                                                                                              \
    "sub r0, r0, r1, lsl #1\n"                                                                                                \
    "sub r0, r0, r2, lsl #1\n"                                                                                                \
    "sub r0, r0, r2\n"                                                                                                        \
    "sub r3, r3, r4, lsl #4\n"

/* r0: image, r1: pixel step, r2: row step, r3: v, r4: position step. On the stack: groups left. */

NN_NAKED void nn_winograd_input(const int8_t *image NN_UNUSED, uint32_t pixel_step NN_UNUSED, uint32_t row_step NN_UNUSED,
                             uint32_t groups NN_UNUSED, uint32_t *v NN_UNUSED) {
    __asm__ volatile(".syntax unified\n"
                     "push {r3-r11, lr}\n"
                     "lsl r4, r3, #4\n"
                     "ldr r3, [sp, #40]\n"
                     "1:\n" INPUT_LANES("") "add r3, r3, #4\n" INPUT_LANES(", ror #8") "add r0, r0, #4\n"
                     "add r3, r3, #12\n"
                     "ldr r5, [sp]\n"
                     "subs r5, r5, #1\n"
                     "str r5, [sp]\n"
                     "bne.w 1b\n"
                     "pop {r3-r11, pc}\n");
}

/* A row of three weights from r0 on -> a, a + b + c, a - b + c, c in a, b, spare, c; r0 to the next row. */
#define KERNEL_ROW(lanes, a, b, c, spare, other)                                                                              \
    "ldr " a ", [r0]\n"                                                                                                       \
    "ldr " b ", [r0, r1]\n"                                                                                                   \
    "ldr " c ", [r0, r1, lsl #1]\n"                                                                                           \
    "add r0, r0, r2\n"                                                                                                        \
    "sxtb16 " a ", " a lanes "\n"                                                                                             \
    "sxtb16 " b ", " b lanes "\n"                                                                                             \
    "sxtb16 " c ", " c lanes "\n"                                                                                             \
    "sadd16 " other ", " a ", " c "\n"                                                                                        \
    "ssub16 " spare ", " other ", " b "\n"                                                                                    \
    "sadd16 " b ", " other ", " b "\n"

/* One word of lanes of each weight -> one word in each position. Rows 0, 2, 1; then back to the first weight and position. */
#define WEIGHT_LANES(lanes)                                                                                                   \
    KERNEL_ROW(lanes, "r5", "r6", "r7", "r8", "r9")                                                                           \
    "add r0, r0, r2\n"                                                                                                        \
    PUT("r5", "r6", "r8", "r7")                                                                                               \
    KERNEL_ROW(lanes, "r9", "r10", "r11", "r12", "lr")                                                                        \
    "add r3, r3, r4, lsl #3\n"                                                                                                \
    PUT("r9", "r10", "r12", "r11")                                                                                            \
    FOUR("sadd16", "r5", "r6", "r8", "r7", "r9", "r10", "r12", "r11")                                                         \
    "sub r0, r0, r2, lsl #1\n"                                                                                                \
    KERNEL_ROW(lanes, "r9", "r10", "r11", "r12", "lr")                                                                        \
    "sub r3, r3, r4, lsl #3\n"                                                                                                \
    "sub r3, r3, r4, lsl #2\n"                                                                                                \
    "sadd16 lr, r5, r9\n"                                                                                                     \
    "str lr, [r3]\n"                                                                                                          \
    "sadd16 lr, r6, r10\n"                                                                                                    \
    "str lr, [r3, r4]\n"                                                                                                      \
    "sadd16 lr, r8, r12\n"                                                                                                    \
    "str lr, [r3, r4, lsl #1]\n"                                                                                              \
    "add r3, r3, r4, lsl #1\n"                                                                                                \
    "sadd16 lr, r7, r11\n"                                                                                                    \
    "str lr, [r3, r4]\n"                                                                                                      \
    "add r3, r3, r4, lsl #1\n"                                                                                                \
    FOUR("ssub16", "r5", "r6", "r8", "r7", "r9", "r10", "r12", "r11")                                                         \
    PUT("r5", "r6", "r8", "r7")                                                                                               \
    "sub r0, r0, r2, lsl #1\n"                                                                                                \
    "sub r3, r3, r4, lsl #3\n"                                                                                                \
    "sub r3, r3, r4, lsl #2\n"

/* r0: weights, r1: weight step, r2: kernel row step, r3: u, r4: position step. On the stack: groups left. */

NN_NAKED void nn_winograd_weights(const int8_t *weights NN_UNUSED, uint32_t groups NN_UNUSED, uint32_t *u NN_UNUSED) {
    __asm__ volatile(".syntax unified\n"
                     "push {r4-r11, lr}\n"
                     "push {r1}\n"
                     "mov r3, r2\n"
                     "lsl r4, r1, #4\n"
                     "lsl r1, r1, #2\n"
                     "add r2, r1, r1, lsl #1\n"
                     "1:\n" WEIGHT_LANES("") "add r3, r3, #4\n" WEIGHT_LANES(", ror #8") "add r0, r0, #4\n"
                     "add r3, r3, #12\n"
                     "ldr r5, [sp]\n"
                     "subs r5, r5, #1\n"
                     "str r5, [sp]\n"
                     "bne.w 1b\n"
                     "add sp, sp, #4\n"
                     "pop {r4-r11, pc}\n");
}

#else


static uint32_t odd_bytes(uint32_t word) { return nn_even_bytes(word >> 8); }

static uint32_t add_lanes(uint32_t a, uint32_t b) { return ((a + b) & 0xffffu) | ((a & 0xffff0000u) + (b & 0xffff0000u)); }

static uint32_t subtract_lanes(uint32_t a, uint32_t b) {
    return ((a - b) & 0xffffu) | ((a & 0xffff0000u) - (b & 0xffff0000u));
}

/* B' of four values. */
static void transform_input(uint32_t *x, uint32_t step) {
    const uint32_t x0 = x[0], x1 = x[step], x2 = x[2u * step], x3 = x[3u * step];
    x[0] = subtract_lanes(x0, x2);
    x[step] = add_lanes(x1, x2);
    x[2u * step] = subtract_lanes(x2, x1);
    x[3u * step] = subtract_lanes(x1, x3);
}

static void store_input(uint32_t *x, uint32_t *v, uint32_t step) {
    for (uint32_t i = 0; i < 4u; ++i) {
        transform_input(x + 4u * i, 1u);
    }
    for (uint32_t i = 0; i < 4u; ++i) {
        transform_input(x + i, 4u);
    }
    for (uint32_t position = 0; position < NN_WINOGRAD_POSITIONS; ++position) {
        v[position * step] = x[position];
    }
}

void nn_winograd_input(const int8_t *image, uint32_t pixel_step, uint32_t row_step, uint32_t groups, uint32_t *v) {
    for (uint32_t group = 0; group < groups; ++group) {
        uint32_t even[NN_WINOGRAD_POSITIONS];
        uint32_t odd[NN_WINOGRAD_POSITIONS];
        for (uint32_t i = 0; i < NN_WINOGRAD_POSITIONS; ++i) {
            uint32_t pixel;
            __builtin_memcpy(&pixel, image + (i / 4u) * row_step + (i % 4u) * pixel_step + 4u * group, sizeof pixel);
            even[i] = nn_even_bytes(pixel);
            odd[i] = odd_bytes(pixel);
        }
        store_input(even, v + 4u * group, 4u * groups);
        store_input(odd, v + 4u * group + 1u, 4u * groups);
    }
}

/* g0, g0 + g1 + g2, g0 - g1 + g2, g2, each step apart. */
static void transform_weights(uint32_t g0, uint32_t g1, uint32_t g2, uint32_t *to, uint32_t step) {
    const uint32_t outer = add_lanes(g0, g2);
    to[0] = g0;
    to[step] = add_lanes(outer, g1);
    to[2u * step] = subtract_lanes(outer, g1);
    to[3u * step] = g2;
}

/* g: lanes of nine weights. u: one word for each position, step apart. */
static void store_weights(const uint32_t *g, uint32_t *u, uint32_t step) {
    uint32_t columns[12];
    for (uint32_t i = 0; i < 3u; ++i) {
        transform_weights(g[i], g[3u + i], g[6u + i], columns + i, 3u);
    }
    for (uint32_t row = 0; row < 4u; ++row) {
        transform_weights(columns[3u * row], columns[3u * row + 1u], columns[3u * row + 2u], u + 4u * row * step, step);
    }
}

void nn_winograd_weights(const int8_t *weights, uint32_t groups, uint32_t *u) {
    for (uint32_t group = 0; group < groups; ++group) {
        uint32_t even[9];
        uint32_t odd[9];
        for (uint32_t tap = 0; tap < 9u; ++tap) {
            uint32_t word;
            __builtin_memcpy(&word, weights + 4u * (tap * groups + group), sizeof word);
            even[tap] = nn_even_bytes(word);
            odd[tap] = odd_bytes(word);
        }
        store_weights(even, u + 4u * group, 4u * groups);
        store_weights(odd, u + 4u * group + 1u, 4u * groups);
    }
}

#endif
