/* See step_trio.h. The inner steps in assembly for ARMv7-M: Cortex-M3. */
#include "step_trio.h"

#if NN_V7M

#include "trio_v7m.h"

/* A trio's next byte: X and Y in r4 and r5. */
#define PACK                                                                                                                  \
    "ldrsb r4, [r0], #1\n"                                                                                                    \
    "ldrsb r5, [r1], #1\n"                                                                                                    \
    "ldrsb r6, [r2], #1\n"                                                                                                    \
    "add r4, r4, r5, lsl #21\n"                                                                                               \
    "add r5, r6, r5, lsl #10\n"
#define EVEN "strd r4, r5, [r3], #16\n"
#define ODD "strd r4, r5, [lr], #16\n"

/* As many bytes as count, four at a time. */
#define BYTES(count, store)                                                                                                   \
    "subs r12, " count ", #4\n"                                                                                               \
    "blt 6f\n"                                                                                                                \
    "5:\n"                                                                                                                    \
    PACK store PACK store PACK store PACK store                                                                               \
    "subs r12, r12, #4\n"                                                                                                     \
    "bge 5b\n"                                                                                                                \
    "6:\n"                                                                                                                    \
    "adds r12, r12, #4\n"                                                                                                     \
    "beq 8f\n"                                                                                                                \
    "7:\n"                                                                                                                    \
    PACK store                                                                                                                \
    "subs r12, r12, #1\n"                                                                                                     \
    "bne 7b\n"                                                                                                                \
    "8:\n"

/* What the odd pixels have under their windows the even ones have a step further on, if their windows overlap: it is packed
 * once and stored twice. r0-r2: even pixels of a trio, r3: x of the even ones, lr: of the odd ones, r7: bytes of the even
 * trio alone, and of the odd one, r8: bytes of both, r9: from the end of the even trio's row to the rest of the odd one's,
 * r10: from there to the next row, r11: rows left.
 */
NN_NAKED uint32_t *nn_trio_expand(const nn_trio_source *source NN_UNUSED, uint32_t *x NN_UNUSED, uint32_t *sums NN_UNUSED) {
    __asm__ volatile(".syntax unified\n"
                     "push {r4-r11, lr}\n"
                     "mov r3, r1\n"
                     "add lr, r1, #8\n"
                     "ldrd r9, r8, [r0, #4]\n"
                     "ldrd r11, r10, [r0, #12]\n"
                     "ldr r0, [r0]\n"
                     "add r1, r0, r9, lsl #1\n"
                     "add r2, r0, r9, lsl #2\n"
                     "sub r10, r10, r9\n"
                     "cmp r9, r8\n"
                     "ite lo\n"
                     "movlo r7, r9\n"
                     "movhs r7, r8\n"
                     "sub r8, r8, r7\n"
                     "sub r9, r9, r7\n"
                     "1:\n" BYTES("r7", EVEN) BYTES("r8", EVEN ODD) "add r0, r0, r9\n"
                     "add r1, r1, r9\n"
                     "add r2, r2, r9\n" BYTES("r7", ODD) "add r0, r0, r10\n"
                     "add r1, r1, r10\n"
                     "add r2, r2, r10\n"
                     "subs r11, r11, #1\n"
                     "bne.w 1b\n"
                     "mov r0, r3\n"
                     "pop {r4-r11, pc}\n");
}

#define STEP                                                                                                                  \
    "ldrsb.w r12, [r1], #1\n"                                                                                                 \
    "ldrsb.w lr, [r1], #1\n"                                                                                                  \
    "ldmia.n r0!, {r2, r3}\n"                                                                                                 \
    "mla r4, r12, r2, r4\n"                                                                                                   \
    "mla r8, lr, r2, r8\n"                                                                                                    \
    "mla r5, r12, r3, r5\n"                                                                                                   \
    "mla r9, lr, r3, r9\n"                                                                                                    \
    "ldmia.n r0!, {r2, r3}\n"                                                                                                 \
    "mla r6, r12, r2, r6\n"                                                                                                   \
    "mla r10, lr, r2, r10\n"                                                                                                  \
    "mla r7, r12, r3, r7\n"                                                                                                   \
    "mla r11, lr, r3, r11\n"

/* r0: step, lr: output of the trio's first pixel. */

#define STORE(u)                                                                                                              \
    SATURATE(u)                                                                                                               \
    "strb r8, [lr]\n"                                                                                                         \
    "strb " u ", [lr, r0, lsl #1]\n"                                                                                          \
    "strb r9, [lr, r0, lsl #2]\n"

/* One channel: its words in r4-r7. The sums hold NN_TRIO_BIAS, 2^31 when they are scaled. */

#define CHANNEL(constants, signs)                                                                                             \
    "ldmia r1!, {" constants "}\n"                                                                                            \
    "eor r2, r2, #0x80000000\n"                                                                                               \
    SCALE("r4", "r5") signs("r4", "r5") STORE("r4")                                                                           \
    "add lr, lr, r0\n"                                                                                                        \
    SCALE("r6", "r7") signs("r6", "r7") STORE("r6")                                                                           \
    "sub lr, lr, r0\n"                                                                                                        \
    "add lr, lr, #1\n"

/* Both channels of a record, the second unless it is none. r12: block, also at sp. */

#define RECORD(constants, signs)                                                                                              \
    "push {r8-r11}\n"                                                                                                         \
    "ldr r11, [r12, #16]\n"                                                                                                   \
    "ldm r12, {r0, r12, lr}\n"                                                                                                \
    CHANNEL(constants, signs)                                                                                                 \
    "pop {r4-r7}\n"                                                                                                           \
    "ldr r8, [sp]\n"                                                                                                          \
    "ldr r8, [r8, #12]\n"                                                                                                     \
    "cmp r1, r8\n"                                                                                                            \
    "beq.w 9f\n"                                                                                                              \
    CHANNEL(constants, signs)                                                                                                 \
    "ldr r12, [sp]\n"                                                                                                         \
    "str lr, [r12, #8]\n"                                                                                                     \
    "ldr r8, [r12, #12]\n"                                                                                                    \
    "cmp r1, r8\n"                                                                                                            \
    "blo.w 1b\n"                                                                                                              \
    "b.w 9f\n"

/* r0: x, r1: weights, r4-r11: words of both channels. On the stack: block, end of x, entry of the unrolled steps. */
NN_NAKED void nn_trio_channels(nn_trio_block *block NN_UNUSED) {
    __asm__ volatile(".syntax unified\n"
                     "push {r4-r11, lr}\n"
                     "ldrd r4, r5, [r0, #20]\n"
                     "ldr r1, [r0, #28]\n"
                     "ldr r6, [r0, #52]\n"
                     "add r2, r4, r5, lsl #4\n"
                     "movs r7, #44\n"
                     "adr.w r3, 2f\n"
                     "mla r3, r6, r7, r3\n"
                     "add r3, r3, #1\n"
                     "push {r0, r2, r3}\n"
                     "1:\n"
                     "ldr r12, [sp]\n"
                     "ldr r0, [r12, #20]\n"
                     "ldrd r4, r5, [r12, #32]\n"
                     "ldrd r6, r7, [r12, #40]\n"
                     "mov r8, r4\n"
                     "mov r9, r5\n"
                     "mov r10, r6\n"
                     "mov r11, r7\n"
                     "ldr pc, [sp, #8]\n"
                     ".balign 4\n"
                     "2:\n"
                     ".rept 16\n" STEP ".endr\n"
                     "ldr r12, [sp, #4]\n"
                     "cmp r0, r12\n"
                     "bne.w 2b\n"
                     "ldr r12, [sp]\n"
                     "ldr r2, [r12, #48]\n"
                     "cmp r2, #1\n"
                     "beq.w 4f\n"
                     "bhi.w 5f\n" RECORD("r2, r3", NO_SIGNS) "4:\n" RECORD("r2, r3, r10", SIGNS) "5:\n"
                     "ldr r2, [r12, #8]\n"
                     "stmia r2!, {r4-r11}\n"
                     "str r2, [r12, #8]\n"
                     "ldr r2, [r12, #12]\n"
                     "cmp r1, r2\n"
                     "blo.w 1b\n"
                     "9:\n"
                     "add sp, sp, #12\n"
                     "pop {r4-r11, pc}\n");
}

#endif
