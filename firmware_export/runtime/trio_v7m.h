/* Pieces of assembly for ARMv7-M: from the words of step_trio.h to int8 values. */
#ifndef NN_TRIO_V7M_H
#define NN_TRIO_V7M_H

/* r2: start, r3: factor. Of the words u and v the sums of three pixels as v of packing/trio_forms.py: r8, u, r9. */

#define SCALE(u, v)                                                                                                           \
    "add r8, r2, " u ", lsl #11\n"                                                                                            \
    "lsr " u ", " u ", #21\n"                                                                                                 \
    "sub " v ", " v ", " u ", lsl #10\n"                                                                                      \
    "add r9, r2, " v ", lsl #11\n"                                                                                            \
    "add " u ", r2, " u ", lsl #11\n"                                                                                         \
    "lsr " v ", " v ", #21\n"                                                                                                 \
    "add " u ", " u ", " v ", lsl #22\n"                                                                                      \
    "smull " v ", r8, r3, r8\n"                                                                                               \
    "smull " v ", " u ", r3, " u "\n"                                                                                         \
    "smull " v ", r9, r3, r9\n"

/* r10: negative, r11: rounding. */

#define SIGN(value, free)                                                                                                     \
    "and " free ", r10, " value ", asr #31\n"                                                                                 \
    "sub " value ", " value ", " free "\n"                                                                                    \
    "add " value ", " value ", r11\n"

/* r12: shift. */

#define SATURATE(u)                                                                                                           \
    "asr r8, r8, r12\n"                                                                                                       \
    "asr " u ", " u ", r12\n"                                                                                                 \
    "asr r9, r9, r12\n"                                                                                                       \
    "ssat r8, #8, r8\n"                                                                                                       \
    "ssat " u ", #8, " u "\n"                                                                                                 \
    "ssat r9, #8, r9\n"

#define NO_SIGNS(u, v)
#define SIGNS(u, v) SIGN("r8", v) SIGN(u, v) SIGN("r9", v)

#endif
