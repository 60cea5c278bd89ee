/* Elementwise sum, int8, with Helium: the linear form of add_linear.h for sixteen elements at a time. */
#include "add_mve.h"

#include "lanes.h"
#include "step_mve.h"

#if NN_MVE

/* One in four elements: 2^24 times each byte of first and second, which are 2^8 times in halves, gives a sum in first.
 * which: b or t, the halves to take. r4: start, q0, q1: factors. */
#define SUM(which, first, second, from_0, from_1)                                                                             \
    "vshll" which ".s16 " first ", " from_0 ", #16\n"                                                                         \
    "vshll" which ".s16 " second ", " from_1 ", #16\n"                                                                        \
    "vmulh.s32 " first ", " first ", q0\n"                                                                                    \
    "vmulh.s32 " second ", " second ", q1\n"                                                                                  \
    "vadd.i32 " first ", " first ", r4\n"                                                                                     \
    "vadd.i32 " first ", " first ", " second "\n"

/* Sums below 0 lose up to 15; r5: rounding. */
#define LINEAR(sum, free) ""
#define SIGNED(sum, free)                                                                                                     \
    "vshr.u32 " free ", " sum ", #28\n"                                                                                       \
    "vsub.i32 " sum ", " sum ", " free "\n"                                                                                   \
    "vadd.i32 " sum ", " sum ", r5\n"

/* q6, q7: sixteen elements of each input -> q4. No VQSHRN: binutils 2.40 encodes VQRSHRN for it. */
#define SIXTEEN(form)                                                                                                         \
    "vshllb.s8 q2, q6, #8\n"                                                                                                  \
    "vshllb.s8 q3, q7, #8\n"                                                                                                  \
    SUM("b", "q4", "q5", "q2", "q3") form("q4", "q5")                                                                         \
    SUM("t", "q2", "q3", "q2", "q3") form("q2", "q3")                                                                         \
    "vshrnb.i32 q4, q4, #16\n"                                                                                                \
    "vshrnt.i32 q4, q2, #16\n"                                                                                                \
    "vshllt.s8 q2, q6, #8\n"                                                                                                  \
    "vshllt.s8 q3, q7, #8\n"                                                                                                  \
    SUM("b", "q5", "q6", "q2", "q3") form("q5", "q6")                                                                         \
    SUM("t", "q2", "q3", "q2", "q3") form("q2", "q3")                                                                         \
    "vshrnb.i32 q5, q5, #16\n"                                                                                                \
    "vshrnt.i32 q5, q2, #16\n"                                                                                                \
    "vshr.s16 q4, q4, #4\n"                                                                                                   \
    "vshr.s16 q5, q5, #4\n"                                                                                                   \
    "vqmovnb.s16 q4, q4\n"                                                                                                    \
    "vqmovnt.s16 q4, q5\n"

/* r0: elements left over, r1, r2: inputs, r3: output. */
#define ADD(form)                                                                                                             \
    ".syntax unified\n"                                                                                                       \
    "push {r4-r7, lr}\n"                                                                                                      \
    "vpush {d8-d15}\n"                                                                                                        \
    "ldrd r6, r7, [r0, #8]\n"                                                                                                 \
    "ldr r5, [r0, #16]\n"                                                                                                     \
    "ldrd r0, r4, [r0]\n"                                                                                                     \
    "vdup.32 q0, r6\n"                                                                                                        \
    "vdup.32 q1, r7\n"                                                                                                        \
    "lsr r6, r0, #4\n"                                                                                                        \
    "wls lr, r6, 2f\n"                                                                                                        \
    "1:\n"                                                                                                                    \
    "vldrb.u8 q6, [r1], #16\n"                                                                                                \
    "vldrb.u8 q7, [r2], #16\n"                                                                                                \
    SIXTEEN(form)                                                                                                             \
    "vstrb.8 q4, [r3], #16\n"                                                                                                 \
    "le lr, 1b\n"                                                                                                             \
    "2:\n"                                                                                                                    \
    "ands r0, r0, #15\n"                                                                                                      \
    "beq 3f\n"                                                                                                                \
    "vctp.8 r0\n"                                                                                                             \
    "vpstt\n"                                                                                                                 \
    "vldrbt.u8 q6, [r1]\n"                                                                                                    \
    "vldrbt.u8 q7, [r2]\n"                                                                                                    \
    SIXTEEN(form)                                                                                                             \
    "vpst\n"                                                                                                                  \
    "vstrbt.8 q4, [r3]\n"                                                                                                     \
    "3:\n"                                                                                                                    \
    "vpop {d8-d15}\n"                                                                                                         \
    "pop {r4-r7, pc}\n"

#define ADD_STEP(name, form)                                                                                                  \
    NN_NAKED static void name(const nn_add_linear_params *params NN_UNUSED, const int8_t *input_0 NN_UNUSED,                  \
                              const int8_t *input_1 NN_UNUSED, int8_t *output NN_UNUSED) {                                    \
        __asm__ volatile(ADD(form));                                                                                          \
    }

#else

#define LINEAR 0
#define SIGNED 1
#define SHIFT 20

static int8_t sum_of(const nn_add_linear_params *params, int32_t a, int32_t b, int is_signed) {
    const int32_t first = (int32_t)((int64_t)params->factor_0 * a >> 8);
    const int32_t second = (int32_t)((int64_t)params->factor_1 * b >> 8);
    int32_t sum = params->start + first + second;
    if (is_signed != 0) {
        sum = sum - (int32_t)((uint32_t)sum >> 28) + params->rounding;
    }
    return nn_saturate(sum >> SHIFT);
}

#define ADD_STEP(name, form)                                                                                                  \
    static void name(const nn_add_linear_params *params, const int8_t *input_0, const int8_t *input_1, int8_t *output) {      \
        for (uint32_t i = 0; i < params->size; ++i) {                                                                         \
            output[i] = sum_of(params, input_0[i], input_1[i], form);                                                         \
        }                                                                                                                     \
    }

#endif

ADD_STEP(add_linear, LINEAR)
ADD_STEP(add_signed, SIGNED)

static void clamp(const nn_add_linear_params *params, int8_t *output) {
    if (params->min > INT8_MIN || params->max < INT8_MAX) {
        nn_mve_clamp(output, params->size, params->min, params->max);
    }
}

void nn_add_mve_linear(const nn_add_linear_params *params, const int8_t *input_0, const int8_t *input_1, int8_t *output) {
    add_linear(params, input_0, input_1, output);
    clamp(params, output);
}

void nn_add_mve_signed(const nn_add_linear_params *params, const int8_t *input_0, const int8_t *input_1, int8_t *output) {
    add_signed(params, input_0, input_1, output);
    clamp(params, output);
}
