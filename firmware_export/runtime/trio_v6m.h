/* Pieces of assembly for ARMv6-M: from the words of step_trio.h to int8 values. */
#ifndef NN_TRIO_V6M_H
#define NN_TRIO_V6M_H

/* What is computed from the high part (sum >> 11), the low part (sum & 2047) and the sum S of one pixel:
 * v of packing/trio_forms.py = high F1 + ((low F1 + ((S F0 + fraction) >> 10)) >> 11), where the factor is F1 2^10 + F0.
 * r3: S, r5: F1, r6: F0, r9: fraction. */

#define VALUE(high, low)                                                                                                      \
    "muls r3, r6\n"                                                                                                           \
    "muls " high ", r5\n"                                                                                                     \
    "muls " low ", r5\n"                                                                                                      \
    "add r3, r9\n"                                                                                                            \
    "asrs r3, r3, #10\n"                                                                                                      \
    "adds " low ", r3\n"                                                                                                      \
    "asrs " low ", " low ", #11\n"                                                                                            \
    "adds " high ", " low "\n"

/* r10: less negative, r11: rounding. */

#define NO_SIGN(high)

#define SIGN(high)                                                                                                            \
    "bpl 8f\n"                                                                                                                \
    "add " high ", r10\n"                                                                                                     \
    "8:\n"                                                                                                                    \
    "add " high ", r11\n"

/* r12: shift. */

#define SATURATE(high)                                                                                                        \
    "mov r3, r12\n"                                                                                                           \
    "asrs " high ", r3\n"                                                                                                     \
    "sxtb r3, " high "\n"                                                                                                     \
    "cmp r3, " high "\n"                                                                                                      \
    "beq 8f\n"                                                                                                                \
    "asrs " high ", " high ", #31\n"                                                                                          \
    "movs r3, #127\n"                                                                                                         \
    "eors " high ", r3\n"                                                                                                     \
    "8:\n"

/* The high part, the low part and the sum in one field of a word. r8: NN_TRIO_BIAS. */

#define FIELD(word, high, low)                                                                                                \
    "mov r3, " word "\n"                                                                                                      \
    "add r3, r8\n"                                                                                                            \
    "lsls r3, r3, #11\n"                                                                                                      \
    "lsls " low ", " word ", #21\n"                                                                                           \
    "asrs " high ", r3, #22\n"                                                                                                \
    "lsrs " low ", " low ", #21\n"                                                                                            \
    "asrs r3, r3, #11\n"

/* Three pixels of one channel: the words in r0 and r1. */

#define TRIO(sign, store_0, store_1, store_2)                                                                                 \
    "lsrs r2, r0, #21\n"                                                                                                      \
    "lsls r3, r2, #10\n"                                                                                                      \
    "subs r1, r3\n"                                                                                                           \
    FIELD("r0", "r7", "r0") VALUE("r7", "r0") sign("r7") SATURATE("r7") store_0("r7")                                         \
    "asrs r0, r1, #21\n"                                                                                                      \
    "lsls r3, r0, #11\n"                                                                                                      \
    "adds r3, r2\n"                                                                                                           \
    VALUE("r0", "r2") sign("r0") SATURATE("r0") store_1("r0")                                                                 \
    FIELD("r1", "r7", "r1") VALUE("r7", "r1") sign("r7") SATURATE("r7") store_2("r7")

/* The channel's constants: r0: start, r1: factor. r5 and r6 become F1 and F0, r8 and r9 what is said above. */

#define CONSTANTS                                                                                                             \
    "lsrs r5, r1, #10\n"                                                                                                      \
    "lsls r6, r1, #22\n"                                                                                                      \
    "lsrs r6, r6, #22\n"                                                                                                      \
    "lsls r0, r0, #21\n"                                                                                                      \
    "lsrs r0, r0, #21\n"                                                                                                      \
    "movs r2, r0\n"                                                                                                           \
    "muls r2, r5\n"                                                                                                           \
    "muls r0, r6\n"                                                                                                           \
    "lsrs r0, r0, #10\n"                                                                                                      \
    "adds r2, r0\n"                                                                                                           \
    "lsrs r2, r2, #1\n"                                                                                                       \
    "mov r9, r2\n"                                                                                                            \
    "movs r2, #1\n"                                                                                                           \
    "lsls r2, r2, #20\n"                                                                                                      \
    "mov r8, r2\n"

/* What the sums of a channel with start r2 are to have besides NN_TRIO_BIAS: r3 in U, r4 in V. There the middle sum is without
 * bias. r6 is lost. */

#define BEGIN                                                                                                                 \
    "asrs r2, r2, #11\n"                                                                                                      \
    "lsls r3, r2, #21\n"                                                                                                      \
    "adds r3, r2\n"                                                                                                           \
    "lsls r4, r2, #10\n"                                                                                                      \
    "adds r4, r2\n"                                                                                                           \
    "movs r6, #1\n"                                                                                                           \
    "lsls r6, r6, #30\n"                                                                                                      \
    "subs r4, r6\n"

#endif
