/* See step_octet.h. The inner step in assembly for ARMv7-M: Cortex-M3. */
#include "step_octet.h"

#if NN_V7M

uint32_t nn_octet_expand(const int8_t *x, uint32_t depth, void *u) {
    uint8_t *to = u;
    uint32_t total = 0;
    for (; depth > 0u; --depth) {
        const uint32_t value = (uint8_t)(*x++ ^ -128);
        *to++ = (uint8_t)value;
        total += value;
    }
    return total;
}

/* r0: u, r1: weights, r2, r3: words of weights, r4, r5: sums of the first word, r6, r7: of the first word turned, r8-r11: the
 * same of the second word, r12: an element, lr: mask of the outer bytes. */
#define STEP                                                                                                                  \
    "ldmia.n r1!, {r2, r3}\n"                                                                                                 \
    "ldrb.w r12, [r0], #1\n"                                                                                                  \
    "umlal r4, r5, r2, r12\n"                                                                                                 \
    "umlal r8, r9, r3, r12\n"                                                                                                 \
    "and r2, lr, r2, ror #16\n"                                                                                               \
    "and r3, lr, r3, ror #16\n"                                                                                               \
    "umlal r6, r7, r2, r12\n"                                                                                                 \
    "umlal r10, r11, r3, r12\n"

/* Four sums from the words of a word and of the turned one, to lr. 2^23 was added to T2 and T0. */
#define FOUR(low, high, turned, turned_high)                                                                                  \
    "lsr r2, " turned ", #24\n"                                                                                               \
    "orr r2, r2, " turned_high ", lsl #8\n"                                                                                   \
    "bic r3, " turned ", #0xff000000\n"                                                                                       \
    "subs " low ", " low ", r2, lsl #8\n"                                                                                     \
    "sbc " high ", " high ", r2, asr #24\n"                                                                                   \
    "subs " low ", " low ", r3, lsl #16\n"                                                                                    \
    "sbc " high ", " high ", r3, lsr #16\n"                                                                                   \
    "sub r3, r3, #0x800000\n"                                                                                                 \
    "bic r0, " low ", #0xff000000\n"                                                                                          \
    "sub r0, r0, #0x800000\n"                                                                                                 \
    "lsr r12, " low ", #24\n"                                                                                                 \
    "orr r12, r12, " high ", lsl #8\n"                                                                                        \
    "stmia lr!, {r0, r2, r3, r12}\n"

/* What the sums start from: -128 total (1 + 2^24) + 2^23 for the turned words, less 128 total (2^8 + 2^16) and with 2^39 more
 * for the others. On the stack: entry of the unrolled steps, end of u. */
NN_NAKED void nn_octet_sums(const void *u NN_UNUSED, const uint8_t *weights NN_UNUSED, uint32_t depth NN_UNUSED,
                            uint32_t total NN_UNUSED, int32_t *sums NN_UNUSED) {
    __asm__ volatile(".syntax unified\n"
                     "push {r4-r11, lr}\n"
                     "add r12, r0, r2\n"
                     "rsb r2, r2, #0\n"
                     "and r2, r2, #7\n"
                     "rsb r4, r2, r2, lsl #4\n"
                     "adr.w r5, 1f\n"
                     "add r5, r5, r4, lsl #1\n"
                     "add r5, r5, #1\n"
                     "push {r5, r12}\n"
                     "lsl r3, r3, #7\n"
                     "rsb r6, r3, #0\n"
                     "mov r7, #-1\n"
                     "cmp r3, #0\n"
                     "it eq\n"
                     "moveq r7, #0\n"
                     "lsr r4, r3, #8\n"
                     "sub r7, r7, r4\n"
                     "subs r6, r6, r3, lsl #24\n"
                     "sbc r7, r7, #0\n"
                     "subs r4, r6, r3, lsl #8\n"
                     "lsr r2, r3, #24\n"
                     "sbc r5, r7, r2\n"
                     "subs r4, r4, r3, lsl #16\n"
                     "lsr r2, r3, #16\n"
                     "sbc r5, r5, r2\n"
                     "adds r6, r6, #0x800000\n"
                     "adc r7, r7, #0\n"
                     "adds r4, r4, #0x800000\n"
                     "adc r5, r5, #0x80\n"
                     "mov r8, r4\n"
                     "mov r9, r5\n"
                     "mov r10, r6\n"
                     "mov r11, r7\n"
                     "mov lr, #0xff\n"
                     "orr lr, lr, lr, ror #8\n"
                     "ldr pc, [sp]\n"
                     ".balign 4\n"
                     "1:\n"
                     ".rept 8\n"
                     STEP
                     ".endr\n"
                     "ldr r12, [sp, #4]\n"
                     "cmp r0, r12\n"
                     "bne.w 1b\n"
                     "ldr lr, [sp, #44]\n"
                     FOUR("r4", "r5", "r6", "r7")
                     FOUR("r8", "r9", "r10", "r11")
                     "add sp, sp, #8\n"
                     "pop {r4-r11, pc}\n");
}

#endif
