/* See step_octet.h. The inner step in assembly for ARMv6-M: Cortex-M0+. */
#include "step_octet.h"

#if NN_V6M

uint32_t nn_octet_expand(const int8_t *x, uint32_t depth, void *u) {
    uint32_t *to = u;
    uint32_t total = 0;
    for (; depth > 0u; --depth) {
        const uint32_t value = (uint32_t)(*x++ + 128);
        *to++ = value;
        total += value;
    }
    return total;
}

#define OUTPUT(x, at, sum) "ldrb r4, [r1, #" at "]\n" "muls r4, " x "\n" "add " sum ", r4\n"

/* Eight weights from r1 + at on. */
#define ELEMENT(x, at)                                                                                                        \
    OUTPUT(x, at " + 0", "r8") OUTPUT(x, at " + 1", "r9") OUTPUT(x, at " + 2", "r10") OUTPUT(x, at " + 3", "r11")             \
    OUTPUT(x, at " + 4", "r12") OUTPUT(x, at " + 5", "lr") OUTPUT(x, at " + 6", "r5") OUTPUT(x, at " + 7", "r6")

/* Four elements. */
#define FOUR                                                                                                                  \
    "ldmia r0!, {r2, r3}\n"                                                                                                   \
    ELEMENT("r2", "0") ELEMENT("r3", "8")                                                                                     \
    "ldmia r0!, {r2, r3}\n"                                                                                                   \
    ELEMENT("r2", "16") ELEMENT("r3", "24")                                                                                   \
    "adds r1, #32\n"

/* r0: u, r1: weights, r2, r3: elements, r4: a weight, r5, r6, r8-r12, lr: sums, r7: end of u's eights, then of u. */
NN_NAKED void nn_octet_sums(const void *u NN_UNUSED, const uint8_t *weights NN_UNUSED, uint32_t depth NN_UNUSED,
                            uint32_t total NN_UNUSED, int32_t *sums NN_UNUSED) {
    __asm__ volatile(".syntax unified\n"
                     "push {r4-r7, lr}\n"
                     "mov r4, r8\n"
                     "mov r5, r9\n"
                     "mov r6, r10\n"
                     "mov r7, r11\n"
                     "push {r4-r7}\n"
                     "lsls r4, r2, #2\n"
                     "adds r4, r0\n"
                     "push {r4}\n"
                     "lsls r3, r3, #7\n"
                     "negs r5, r3\n"
                     "movs r6, r5\n"
                     "mov r8, r5\n"
                     "mov r9, r5\n"
                     "mov r10, r5\n"
                     "mov r11, r5\n"
                     "mov r12, r5\n"
                     "mov lr, r5\n"
                     "lsrs r7, r2, #3\n"
                     "lsls r7, r7, #5\n"
                     "adds r7, r0\n"
                     "b 2f\n"
                     "1:\n"
                     FOUR FOUR
                     "2:\n"
                     "cmp r0, r7\n"
                     "beq 3f\n"
                     "b 1b\n"
                     "3:\n"
                     "pop {r7}\n"
                     "b 5f\n"
                     "4:\n"
                     "ldmia r0!, {r2}\n"
                     ELEMENT("r2", "0")
                     "adds r1, #8\n"
                     "5:\n"
                     "cmp r0, r7\n"
                     "bne 4b\n"
                     "ldr r4, [sp, #36]\n"
                     "mov r0, r8\n"
                     "mov r1, r9\n"
                     "mov r2, r10\n"
                     "mov r3, r11\n"
                     "stmia r4!, {r0-r3}\n"
                     "mov r0, r12\n"
                     "mov r1, lr\n"
                     "stmia r4!, {r0, r1, r5, r6}\n"
                     "pop {r4-r7}\n"
                     "mov r8, r4\n"
                     "mov r9, r5\n"
                     "mov r10, r6\n"
                     "mov r11, r7\n"
                     "pop {r4-r7, pc}\n");
}

#endif
