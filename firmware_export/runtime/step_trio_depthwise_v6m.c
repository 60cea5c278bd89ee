/* See step_trio_depthwise.h. The inner steps in assembly for ARMv6-M: Cortex-M0+. */
#include "step_trio_depthwise.h"

#if NN_V6M

#include "trio_v6m.h"

/* r0-r2: pixels, r3: 0, r7: x, r8-r10: steps, r11: rows left, r12: end of the row's x, lr: rows. */
NN_NAKED void nn_trio_gather(const nn_trio_rows *rows NN_UNUSED) {
    __asm__ volatile(".syntax unified\n"
                     "push {r4-r7, lr}\n"
                     "mov r4, r8\n"
                     "mov r5, r9\n"
                     "mov r6, r10\n"
                     "mov r7, r11\n"
                     "push {r4-r7}\n"
                     "mov lr, r0\n"
                     "ldr r4, [r0, #12]\n"
                     "mov r8, r4\n"
                     "ldr r4, [r0, #16]\n"
                     "mov r9, r4\n"
                     "ldr r4, [r0, #20]\n"
                     "mov r10, r4\n"
                     "ldr r4, [r0, #48]\n"
                     "mov r11, r4\n"
                     "ldr r7, [r0, #36]\n"
                     "ldr r1, [r0, #4]\n"
                     "ldr r2, [r0, #8]\n"
                     "ldr r0, [r0]\n"
                     "movs r3, #0\n"
                     "1:\n"
                     "mov r4, lr\n"
                     "ldr r4, [r4, #44]\n"
                     "lsls r4, r4, #3\n"
                     "adds r4, r7\n"
                     "mov r12, r4\n"
                     "2:\n"
                     "ldrsb r4, [r0, r3]\n"
                     "add r0, r8\n"
                     "ldrsb r5, [r1, r3]\n"
                     "add r1, r9\n"
                     "ldrsb r6, [r2, r3]\n"
                     "add r2, r10\n"
                     "lsls r5, r5, #10\n"
                     "adds r6, r5\n"
                     "lsls r5, r5, #11\n"
                     "adds r4, r5\n"
                     "stmia r7!, {r4, r6}\n"
                     "cmp r7, r12\n"
                     "bne 2b\n"
                     "mov r4, lr\n"
                     "ldr r5, [r4, #24]\n"
                     "adds r0, r5\n"
                     "ldr r5, [r4, #28]\n"
                     "adds r1, r5\n"
                     "ldr r5, [r4, #32]\n"
                     "adds r2, r5\n"
                     "ldr r5, [r4, #40]\n"
                     "adds r7, r5\n"
                     "mov r4, r11\n"
                     "subs r4, #1\n"
                     "mov r11, r4\n"
                     "bne 1b\n"
                     "pop {r4-r7}\n"
                     "mov r8, r4\n"
                     "mov r9, r5\n"
                     "mov r10, r6\n"
                     "mov r11, r7\n"
                     "pop {r4-r7, pc}\n");
}

/* r0: pairs, r1: weights, r5, r6: U and V. */
#define TAP                                                                                                                   \
    "ldmia r0!, {r2, r3}\n"                                                                                                   \
    "ldmia r1!, {r4}\n"                                                                                                       \
    "muls r2, r4\n"                                                                                                           \
    "adds r5, r2\n"                                                                                                           \
    "muls r3, r4\n"                                                                                                           \
    "adds r6, r3\n"

/* The places of one output of each row. r4: the first, r3: free. */
#define FIRST(high)                                                                                                           \
    "strb " high ", [r4]\n"
#define SECOND(high)                                                                                                          \
    "ldr r3, [sp, #20]\n"                                                                                                     \
    "strb " high ", [r4, r3]\n"
#define THIRD(high)                                                                                                           \
    "ldr r3, [sp, #24]\n"                                                                                                     \
    "strb " high ", [r4, r3]\n"

/* r7: plane, r10: less negative, r11: rounding, lr: pitch less a row of a window. On the stack: plane, what U and V start from,
 * F1, F0, apart. */
#define PLANE(sign)                                                                                                           \
    ".syntax unified\n"                                                                                                       \
    "push {r4-r7, lr}\n"                                                                                                      \
    "mov r4, r8\n"                                                                                                            \
    "mov r5, r9\n"                                                                                                            \
    "mov r6, r10\n"                                                                                                           \
    "mov r7, r11\n"                                                                                                           \
    "push {r4-r7}\n"                                                                                                          \
    "sub sp, #28\n"                                                                                                           \
    "movs r7, r0\n"                                                                                                           \
    "str r7, [sp]\n"                                                                                                          \
    "ldr r2, [r7, #20]\n"                                                                                                     \
    "negs r2, r2\n"                                                                                                           \
    "mov r10, r2\n"                                                                                                           \
    "ldr r2, [r7, #24]\n"                                                                                                     \
    "mov r11, r2\n"                                                                                                           \
    "ldr r2, [r7, #16]\n"                                                                                                     \
    "mov r12, r2\n"                                                                                                           \
    "ldr r2, [r7, #56]\n"                                                                                                     \
    "subs r2, #24\n"                                                                                                          \
    "mov lr, r2\n"                                                                                                            \
    "ldr r2, [r7]\n"                                                                                                          \
    BEGIN                                                                                                                     \
    "movs r2, #1\n"                                                                                                           \
    "lsls r2, r2, #20\n"                                                                                                      \
    "adds r3, r2\n"                                                                                                           \
    "adds r4, r2\n"                                                                                                           \
    "adds r4, r6\n"                                                                                                           \
    "str r3, [sp, #4]\n"                                                                                                      \
    "str r4, [sp, #8]\n"                                                                                                      \
    "ldr r0, [r7]\n"                                                                                                          \
    "ldr r1, [r7, #4]\n"                                                                                                      \
    CONSTANTS                                                                                                                 \
    "str r5, [sp, #12]\n"                                                                                                     \
    "str r6, [sp, #16]\n"                                                                                                     \
    "ldr r2, [r7, #8]\n"                                                                                                      \
    "str r2, [sp, #20]\n"                                                                                                     \
    "ldr r2, [r7, #12]\n"                                                                                                     \
    "str r2, [sp, #24]\n"                                                                                                     \
    "1:\n"                                                                                                                    \
    "ldr r0, [r7, #60]\n"                                                                                                     \
    "movs r1, r7\n"                                                                                                           \
    "adds r1, #68\n"                                                                                                          \
    "ldr r5, [sp, #4]\n"                                                                                                      \
    "ldr r6, [sp, #8]\n"                                                                                                      \
    TAP TAP TAP                                                                                                               \
    "add r0, lr\n"                                                                                                            \
    TAP TAP TAP                                                                                                               \
    "add r0, lr\n"                                                                                                            \
    TAP TAP TAP                                                                                                               \
    "subs r0, #24\n"                                                                                                          \
    "ldr r3, [r7, #40]\n"                                                                                                     \
    "adds r0, r3\n"                                                                                                           \
    "str r0, [r7, #60]\n"                                                                                                     \
    "movs r0, r5\n"                                                                                                           \
    "movs r1, r6\n"                                                                                                           \
    "ldr r4, [r7, #28]\n"                                                                                                     \
    "ldr r5, [sp, #12]\n"                                                                                                     \
    "ldr r6, [sp, #16]\n"                                                                                                     \
    TRIO(sign, FIRST, SECOND, THIRD)                                                                                          \
    "ldr r7, [sp]\n"                                                                                                          \
    "ldr r0, [r7, #32]\n"                                                                                                     \
    "adds r4, r0\n"                                                                                                           \
    "str r4, [r7, #28]\n"                                                                                                     \
    "ldr r0, [r7, #36]\n"                                                                                                     \
    "cmp r4, r0\n"                                                                                                            \
    "beq 2f\n"                                                                                                                \
    "b 1b\n"                                                                                                                  \
    "2:\n"                                                                                                                    \
    "ldr r0, [r7, #48]\n"                                                                                                     \
    "adds r4, r0\n"                                                                                                           \
    "str r4, [r7, #28]\n"                                                                                                     \
    "ldr r0, [r7, #44]\n"                                                                                                     \
    "adds r4, r0\n"                                                                                                           \
    "str r4, [r7, #36]\n"                                                                                                     \
    "ldr r0, [r7, #60]\n"                                                                                                     \
    "ldr r1, [r7, #52]\n"                                                                                                     \
    "adds r0, r1\n"                                                                                                           \
    "str r0, [r7, #60]\n"                                                                                                     \
    "ldr r0, [r7, #64]\n"                                                                                                     \
    "subs r0, #1\n"                                                                                                           \
    "str r0, [r7, #64]\n"                                                                                                     \
    "beq 2f\n"                                                                                                                \
    "b 1b\n"                                                                                                                  \
    "2:\n"                                                                                                                    \
    "add sp, #28\n"                                                                                                           \
    "pop {r4-r7}\n"                                                                                                           \
    "mov r8, r4\n"                                                                                                            \
    "mov r9, r5\n"                                                                                                            \
    "mov r10, r6\n"                                                                                                           \
    "mov r11, r7\n"                                                                                                           \
    "pop {r4-r7, pc}\n"

NN_NAKED void nn_trio_plane_linear(nn_trio_plane *plane NN_UNUSED) { __asm__ volatile(PLANE(NO_SIGN)); }

NN_NAKED void nn_trio_plane_signed(nn_trio_plane *plane NN_UNUSED) { __asm__ volatile(PLANE(SIGN)); }

#endif
