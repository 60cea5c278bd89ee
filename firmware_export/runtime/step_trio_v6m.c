/* See step_trio.h. The inner steps in assembly for ARMv6-M: Cortex-M0+. */
#include "step_trio.h"

#if NN_V6M

#include "trio_v6m.h"

#define EXPAND_BYTE(at)                                                                                                       \
    "ldrsb r4, [r0, r3]\n"                                                                                                    \
    "ldrsb r5, [r1, r3]\n"                                                                                                    \
    "ldrsb r6, [r2, r3]\n"                                                                                                    \
    "adds r3, #1\n"                                                                                                           \
    "lsls r5, r5, #10\n"                                                                                                      \
    "adds r6, r5\n"                                                                                                           \
    "lsls r5, r5, #11\n"                                                                                                      \
    "adds r4, r5\n"                                                                                                           \
    "str r4, [r7, #16 * " at "]\n"                                                                                            \
    "str r6, [r7, #16 * " at " + 4]\n"                                                                                        \
    "add r8, r4\n"                                                                                                            \
    "add r9, r6\n"

/* r0-r2: pixels of a trio, r3: index of the byte, r7: x, r8, r9: sums, r10: end of the row's fours, r11: end of the row,
 * r12: rows left, lr: source. On the stack: x, sums, the first trio's sums.
 */
NN_NAKED uint32_t *nn_trio_expand(const nn_trio_source *source NN_UNUSED, uint32_t *x NN_UNUSED, uint32_t *sums NN_UNUSED) {
    __asm__ volatile(".syntax unified\n"
                     "push {r4-r7, lr}\n"
                     "mov r4, r8\n"
                     "mov r5, r9\n"
                     "mov r6, r10\n"
                     "mov r7, r11\n"
                     "push {r1, r2, r4-r7}\n"
                     "mov lr, r0\n"
                     "mov r7, r1\n"
                     "mov r6, r0\n"
                     "ldr r0, [r6]\n"
                     "1:\n"
                     "ldr r4, [r6, #4]\n"
                     "lsls r4, r4, #1\n"
                     "adds r1, r0, r4\n"
                     "adds r2, r1, r4\n"
                     "ldr r3, [sp, #4]\n"
                     "ldmia r3!, {r4, r5}\n"
                     "mov r8, r4\n"
                     "mov r9, r5\n"
                     "ldr r4, [r6, #12]\n"
                     "mov r12, r4\n"
                     "movs r3, #0\n"
                     "2:\n"
                     "mov r6, lr\n"
                     "ldr r4, [r6, #8]\n"
                     "adds r5, r3, r4\n"
                     "mov r11, r5\n"
                     "lsrs r4, r4, #2\n"
                     "lsls r4, r4, #2\n"
                     "adds r4, r3\n"
                     "mov r10, r4\n"
                     "b 4f\n"
                     "3:\n" EXPAND_BYTE("0") EXPAND_BYTE("1") EXPAND_BYTE("2") EXPAND_BYTE("3") "adds r7, #64\n"
                     "4:\n"
                     "cmp r3, r10\n"
                     "bne 3b\n"
                     "b 6f\n"
                     "5:\n" EXPAND_BYTE("0") "adds r7, #16\n"
                     "6:\n"
                     "cmp r3, r11\n"
                     "bne 5b\n"
                     "mov r6, lr\n"
                     "ldr r4, [r6, #16]\n"
                     "adds r3, r4\n"
                     "mov r4, r12\n"
                     "subs r4, #1\n"
                     "mov r12, r4\n"
                     "bne 2b\n"
                     "ldr r3, [sp, #4]\n"
                     "mov r4, r8\n"
                     "mov r5, r9\n"
                     "stmia r3!, {r4, r5}\n"
                     "str r3, [sp, #4]\n"
                     "ldr r4, [sp]\n"
                     "movs r5, #0\n"
                     "str r5, [sp]\n"
                     "cmp r4, #0\n"
                     "beq 7f\n"
                     "movs r7, r4\n"
                     "adds r7, #8\n"
                     "ldr r0, [r6]\n"
                     "ldr r4, [r6, #4]\n"
                     "adds r0, r4\n"
                     "b 1b\n"
                     "7:\n"
                     "movs r0, r7\n"
                     "subs r0, #8\n"
                     "pop {r1, r2, r4-r7}\n"
                     "mov r8, r4\n"
                     "mov r9, r5\n"
                     "mov r10, r6\n"
                     "mov r11, r7\n"
                     "pop {r4-r7, pc}\n");
}

#define STEP(at)                                                                                                              \
    "ldrb r2, [r1, #2 * " at "]\n"                                                                                            \
    "ldmia r0!, {r3-r6}\n"                                                                                                    \
    "muls r3, r2\n"                                                                                                           \
    "add r8, r3\n"                                                                                                            \
    "muls r4, r2\n"                                                                                                           \
    "add r9, r4\n"                                                                                                            \
    "muls r5, r2\n"                                                                                                           \
    "add r10, r5\n"                                                                                                           \
    "muls r6, r2\n"                                                                                                           \
    "add r11, r6\n"

/* r4: output, lr: to the next output. */

#define NEXT(high)                                                                                                            \
    "strb " high ", [r4]\n"                                                                                                   \
    "add r4, lr\n"

/* Both trios, from the stack; r4 becomes 0 behind them. */

#define BOTH(sign)                                                                                                            \
    "7:\n"                                                                                                                    \
    "pop {r0, r1, r4}\n"                                                                                                      \
    TRIO(sign, NEXT, NEXT, NEXT)                                                                                              \
    "ldr r0, [sp, #8]\n"                                                                                                      \
    "cmp r0, #0\n"                                                                                                            \
    "bne 7b\n"

/* One channel at a time. r0: x, r1: weights, r7: block, r8-r11: words, r12: end of x. On the stack: entry of the unrolled
 * steps, the channel's constants, 0, end of the weights, block, end of x; and while a channel is stored, below them, twice:
 * words of a trio, its output.
 */
NN_NAKED void nn_trio_channels_flipped(nn_trio_block *block NN_UNUSED) {
    __asm__ volatile(".syntax unified\n"
                     "push {r4-r7, lr}\n"
                     "mov r4, r8\n"
                     "mov r5, r9\n"
                     "mov r6, r10\n"
                     "mov r7, r11\n"
                     "push {r4-r7}\n"
                     "sub sp, #24\n"
                     "movs r7, r0\n"
                     "str r7, [sp, #16]\n"
                     "movs r0, #0\n"
                     "str r0, [sp, #8]\n"
                     "ldr r0, [r7, #20]\n"
                     "ldr r1, [r7, #24]\n"
                     "lsls r2, r1, #4\n"
                     "adds r0, r2\n"
                     "str r0, [sp, #20]\n"
                     "lsls r2, r1, #1\n"
                     "ldr r1, [r7, #28]\n"
                     "adds r2, r1\n"
                     "str r2, [sp, #4]\n"
                     "ldr r2, [r7, #52]\n"
                     "movs r3, #20\n"
                     "muls r2, r3\n"
                     "adr r3, 2f\n"
                     "adds r3, r2\n"
                     "adds r3, #1\n"
                     "str r3, [sp]\n"
                     /* The next channel: where its words start from. */
                     "1:\n"
                     "movs r3, #0\n"
                     "movs r4, #0\n"
                     "ldr r5, [r7, #48]\n"
                     "cmp r5, #2\n"
                     "beq 3f\n"
                     "ldr r2, [sp, #4]\n"
                     "ldr r2, [r2]\n" BEGIN
                     "3:\n"
                     "ldr r5, [r7, #32]\n"
                     "adds r5, r3\n"
                     "mov r8, r5\n"
                     "ldr r5, [r7, #40]\n"
                     "adds r5, r3\n"
                     "mov r10, r5\n"
                     "ldr r5, [r7, #36]\n"
                     "adds r5, r4\n"
                     "mov r9, r5\n"
                     "ldr r5, [r7, #44]\n"
                     "adds r5, r4\n"
                     "mov r11, r5\n"
                     "ldr r2, [r7, #52]\n"
                     "subs r1, r2\n"
                     "subs r1, r2\n"
                     "ldr r2, [sp, #20]\n"
                     "mov r12, r2\n"
                     "ldr r0, [r7, #20]\n"
                     "ldr r2, [sp]\n"
                     "bx r2\n"
                     ".balign 4\n"
                     "2:\n"
                     STEP("0") STEP("1") STEP("2") STEP("3") STEP("4") STEP("5")
                     STEP("6") STEP("7") STEP("8") STEP("9") STEP("10") STEP("11")
                     "adds r1, #24\n"
                     "cmp r0, r12\n"
                     "bne 2b\n"
                     "str r1, [sp, #12]\n"
                     "ldr r5, [r7, #48]\n"
                     "ldr r6, [r7, #8]\n"
                     "mov r0, r8\n"
                     "mov r1, r9\n"
                     "mov r3, r10\n"
                     "mov r4, r11\n"
                     "cmp r5, #2\n"
                     "bne 3f\n"
                     "stmia r6!, {r0, r1, r3, r4}\n"
                     "str r6, [r7, #8]\n"
                     "b 9f\n"
                     /* Both trios to the stack; constants. */
                     "3:\n"
                     "movs r2, r6\n"
                     "ldr r5, [r7]\n"
                     "adds r5, r6\n"
                     "push {r0-r5}\n"
                     "ldr r3, [sp, #28]\n"
                     "ldmia r3!, {r0, r1}\n"
                     "ldr r4, [r7, #48]\n"
                     "cmp r4, #0\n"
                     "beq 4f\n"
                     "ldmia r3!, {r2}\n"
                     "negs r2, r2\n"
                     "mov r10, r2\n"
                     "ldr r2, [r7, #16]\n"
                     "mov r11, r2\n"
                     "4:\n"
                     "str r3, [sp, #28]\n" CONSTANTS
                     "ldr r2, [r7, #4]\n"
                     "mov r12, r2\n"
                     "ldr r2, [r7]\n"
                     "lsls r2, r2, #1\n"
                     "mov lr, r2\n"
                     "cmp r4, #0\n"
                     "bne 5f\n"
                     BOTH(NO_SIGN)
                     "b 6f\n"
                     "5:\n"
                     BOTH(SIGN)
                     "6:\n"
                     "ldr r7, [sp, #16]\n"
                     "ldr r4, [r7, #8]\n"
                     "adds r4, #1\n"
                     "str r4, [r7, #8]\n"
                     "9:\n"
                     "ldr r1, [sp, #12]\n"
                     "ldr r5, [sp, #4]\n"
                     "ldr r6, [r7, #12]\n"
                     "ldr r2, [r7, #24]\n"
                     "lsls r2, r2, #1\n"
                     "lsrs r3, r1, #1\n"
                     "bcs 3f\n"
                     "cmp r5, r6\n"
                     "beq 4f\n"
                     "subs r1, r2\n"
                     "adds r1, #1\n"
                     "b 1b\n"
                     "3:\n"
                     "cmp r5, r6\n"
                     "bhs 4f\n"
                     "movs r1, r5\n"
                     "adds r5, r2\n"
                     "str r5, [sp, #4]\n"
                     "b 1b\n"
                     "4:\n"
                     "add sp, #24\n"
                     "pop {r4-r7}\n"
                     "mov r8, r4\n"
                     "mov r9, r5\n"
                     "mov r10, r6\n"
                     "mov r11, r7\n"
                     "pop {r4-r7, pc}\n");
}

#endif
