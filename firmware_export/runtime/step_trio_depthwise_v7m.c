/* See step_trio_depthwise.h. The inner steps in assembly for ARMv7-M: Cortex-M3. */
#include "step_trio_depthwise.h"

#if NN_V7M

#include "trio_v7m.h"

/* r1-r3: pixels, r4-r6: steps, r7: x, r8: pixels left, r12: rows left. */
NN_NAKED void nn_trio_gather(const nn_trio_rows *rows NN_UNUSED) {
    __asm__ volatile(".syntax unified\n"
                     "push {r4-r12, lr}\n"
                     "ldm r0, {r1-r6}\n"
                     "ldr r7, [r0, #36]\n"
                     "ldr r12, [r0, #48]\n"
                     "1:\n"
                     "ldr r8, [r0, #44]\n"
                     "2:\n"
                     "ldrsb r9, [r1]\n"
                     "ldrsb r10, [r2]\n"
                     "ldrsb r11, [r3]\n"
                     "add r1, r1, r4\n"
                     "add r2, r2, r5\n"
                     "add r3, r3, r6\n"
                     "add r9, r9, r10, lsl #21\n"
                     "add r10, r11, r10, lsl #10\n"
                     "strd r9, r10, [r7], #8\n"
                     "subs r8, r8, #1\n"
                     "bne 2b\n"
                     "ldrd r9, r10, [r0, #24]\n"
                     "ldr r11, [r0, #32]\n"
                     "ldr r8, [r0, #40]\n"
                     "add r1, r1, r9\n"
                     "add r2, r2, r10\n"
                     "add r3, r3, r11\n"
                     "add r7, r7, r8\n"
                     "subs r12, r12, #1\n"
                     "bne 1b\n"
                     "pop {r4-r12, pc}\n");
}

/* r0: pairs, r1: weights, r4, r5: U and V, lr: pitch. */
#define ROW                                                                                                                   \
    "ldmia r1!, {r2, r3, r12}\n"                                                                                              \
    "ldm r0, {r6-r11}\n"                                                                                                      \
    "mla r4, r2, r6, r4\n"                                                                                                    \
    "mla r5, r2, r7, r5\n"                                                                                                    \
    "mla r4, r3, r8, r4\n"                                                                                                    \
    "mla r5, r3, r9, r5\n"                                                                                                    \
    "mla r4, r12, r10, r4\n"                                                                                                  \
    "mla r5, r12, r11, r5\n"

#define PLANE(signs)                                                                                                          \
    ".syntax unified\n"                                                                                                       \
    "push {r4-r11, lr}\n"                                                                                                     \
    "ldr r2, [r0]\n"                                                                                                          \
    "eor r2, r2, #0x80000000\n"                                                                                               \
    "str r2, [r0]\n"                                                                                                          \
    "add r1, r0, #68\n"                                                                                                       \
    "ldr lr, [r0, #56]\n"                                                                                                     \
    "ldr r0, [r0, #60]\n"                                                                                                     \
    "1:\n"                                                                                                                    \
    "mov r4, #0x100000\n"                                                                                                     \
    "orr r5, r4, #0x40000000\n"                                                                                               \
    ROW                                                                                                                       \
    "add r0, r0, lr\n"                                                                                                        \
    ROW                                                                                                                       \
    "add r0, r0, lr\n"                                                                                                        \
    ROW                                                                                                                       \
    "sub r1, r1, #104\n"                                                                                                      \
    "ldm r1, {r2, r3, r6, r7, r12}\n"                                                                                         \
    SCALE("r4", "r5") signs SATURATE("r4")                                                                                    \
    "ldrd r5, r10, [r1, #28]\n"                                                                                               \
    "strb r8, [r5]\n"                                                                                                         \
    "strb r4, [r5, r6]\n"                                                                                                     \
    "strb r9, [r5, r7]\n"                                                                                                     \
    "add r5, r5, r10\n"                                                                                                       \
    "ldrd r10, r11, [r1, #36]\n"                                                                                              \
    "str r5, [r1, #28]\n"                                                                                                     \
    "add r0, r0, r11\n"                                                                                                       \
    "add r1, r1, #68\n"                                                                                                       \
    "cmp r5, r10\n"                                                                                                           \
    "bne.w 1b\n"                                                                                                              \
    "ldrd r6, r8, [r1, #-20]\n"                                                                                               \
    "ldr r7, [r1, #-24]\n"                                                                                                    \
    "add r5, r5, r6\n"                                                                                                        \
    "add r0, r0, r8\n"                                                                                                        \
    "add r7, r7, r5\n"                                                                                                        \
    "str r5, [r1, #-40]\n"                                                                                                    \
    "str r7, [r1, #-32]\n"                                                                                                    \
    "ldr r9, [r1, #-4]\n"                                                                                                     \
    "subs r9, r9, #1\n"                                                                                                       \
    "str r9, [r1, #-4]\n"                                                                                                     \
    "bne.w 1b\n"                                                                                                              \
    "pop {r4-r11, pc}\n"

NN_NAKED void nn_trio_plane_linear(nn_trio_plane *plane NN_UNUSED) { __asm__ volatile(PLANE()); }

NN_NAKED void nn_trio_plane_signed(nn_trio_plane *plane NN_UNUSED) {
    __asm__ volatile(PLANE("ldrd r10, r11, [r1, #20]\n" SIGNS("r4", "r5")));
}

#endif
