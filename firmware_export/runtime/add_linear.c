/* Elementwise sum, int8, in one linear form that has been tried on every pair of values. */
#include "add_linear.h"

#include "lanes.h"

#define SHIFT 20
/* Elements of one pass of the inner step. */
#define PASS 8u

typedef int32_t (*sum_form)(const nn_add_linear_params *params, int32_t a, int32_t b);

/* factor * x >> 8; ARMv6-M has no long multiplication. */
static inline int32_t product(int32_t factor, int32_t x) {
#if NN_V6M
    return (factor >> 8) * x + ((factor & 0xff) * x >> 8);
#else
    return (int32_t)((int64_t)factor * x >> 8);
#endif
}

static inline int32_t linear_sum(const nn_add_linear_params *params, int32_t a, int32_t b) {
    return params->start + product(params->factor_0, a) + product(params->factor_1, b);
}

static inline int32_t signed_sum(const nn_add_linear_params *params, int32_t a, int32_t b) {
    const int32_t sum = linear_sum(params, a, b);
    return sum - (int32_t)((uint32_t)sum >> 28) + params->rounding;
}

static inline void add_range(const nn_add_linear_params *params, const int8_t *input_0, const int8_t *input_1,
                             int8_t *output, uint32_t begin, uint32_t end, sum_form form) {
    for (uint32_t i = begin; i < end; ++i) {
        const int32_t sum = form(params, input_0[i], input_1[i]) >> SHIFT;
        output[i] = (int8_t)(sum < INT8_MIN ? INT8_MIN : sum > INT8_MAX ? INT8_MAX : sum);
    }
}

#if NN_DSP

/* r0: passes left, r1, r2: inputs, r3: output, r4, r5: factors, r6: start, r7: mask of the odd bytes.
 * 256 times a byte is in each lane; SMLAW drops 16 bits of a lane's product with a factor. Sums in r12, r10, lr, r11.
 */
#define FOUR_SUMS                                                                                                             \
    "ldr r8, [r1], #4\n"                                                                                                      \
    "ldr r9, [r2], #4\n"                                                                                                      \
    "and r10, r7, r8, lsl #8\n"                                                                                               \
    "and r11, r7, r9, lsl #8\n"                                                                                               \
    "and r8, r8, r7\n"                                                                                                        \
    "and r9, r9, r7\n"                                                                                                        \
    "smlawb r12, r4, r10, r6\n"                                                                                               \
    "smlawb r12, r5, r11, r12\n"                                                                                              \
    "smlawt lr, r4, r10, r6\n"                                                                                                \
    "smlawt lr, r5, r11, lr\n"                                                                                                \
    "smlawb r10, r4, r8, r6\n"                                                                                                \
    "smlawb r10, r5, r9, r10\n"                                                                                               \
    "smlawt r11, r4, r8, r6\n"                                                                                                \
    "smlawt r11, r5, r9, r11\n"

#define FOUR_SIGNS                                                                                                            \
    "ldr r8, [sp]\n"                                                                                                          \
    "sub r12, r12, r12, lsr #28\n"                                                                                            \
    "sub r10, r10, r10, lsr #28\n"                                                                                            \
    "sub lr, lr, lr, lsr #28\n"                                                                                               \
    "sub r11, r11, r11, lsr #28\n"                                                                                            \
    "add r12, r12, r8\n"                                                                                                      \
    "add r10, r10, r8\n"                                                                                                      \
    "add lr, lr, r8\n"                                                                                                        \
    "add r11, r11, r8\n"

#define STORE_FOUR                                                                                                            \
    "ssat r12, #8, r12, asr #20\n"                                                                                            \
    "ssat r10, #8, r10, asr #20\n"                                                                                            \
    "ssat lr, #8, lr, asr #20\n"                                                                                              \
    "ssat r11, #8, r11, asr #20\n"                                                                                            \
    "strb r12, [r3], #1\n"                                                                                                    \
    "strb r10, [r3], #1\n"                                                                                                    \
    "strb lr, [r3], #1\n"                                                                                                     \
    "strb r11, [r3], #1\n"

#define PASSES(signs)                                                                                                         \
    ".syntax unified\n"                                                                                                       \
    "push {r4-r11, lr}\n"                                                                                                     \
    "ldr r7, [r0, #16]\n"                                                                                                     \
    "push {r7}\n"                                                                                                             \
    "mov r7, #0xff00ff00\n"                                                                                                   \
    "ldrd r4, r5, [r0, #8]\n"                                                                                                 \
    "ldrd r0, r6, [r0]\n"                                                                                                     \
    "lsr r0, r0, #3\n"                                                                                                        \
    "1:\n"                                                                                                                    \
    FOUR_SUMS signs STORE_FOUR                                                                                                \
    FOUR_SUMS signs STORE_FOUR                                                                                                \
    "subs r0, r0, #1\n"                                                                                                       \
    "bne.w 1b\n"                                                                                                              \
    "add sp, sp, #4\n"                                                                                                        \
    "pop {r4-r11, pc}\n"

NN_NAKED void nn_add_linear_passes(const nn_add_linear_params *params NN_UNUSED, const int8_t *input_0 NN_UNUSED,
                                const int8_t *input_1 NN_UNUSED, int8_t *output NN_UNUSED) {
    __asm__ volatile(PASSES(""));
}

NN_NAKED void nn_add_signed_passes(const nn_add_linear_params *params NN_UNUSED, const int8_t *input_0 NN_UNUSED,
                                const int8_t *input_1 NN_UNUSED, int8_t *output NN_UNUSED) {
    __asm__ volatile(PASSES(FOUR_SIGNS));
}

#elif NN_V7M

/* r1, r2: inputs, r3: output, r4, r5: factors, r6: start, lr: rounding. */
#define ONE_SUM(signs)                                                                                                        \
    "ldrsb r7, [r1], #1\n"                                                                                                    \
    "ldrsb r8, [r2], #1\n"                                                                                                    \
    "smull r9, r10, r4, r7\n"                                                                                                 \
    "smull r11, r12, r5, r8\n"                                                                                                \
    "add r7, r6, r9, lsr #8\n"                                                                                                \
    "add r7, r7, r10, lsl #24\n"                                                                                              \
    "add r7, r7, r11, lsr #8\n"                                                                                               \
    "add r7, r7, r12, lsl #24\n"                                                                                              \
    signs                                                                                                                     \
    "ssat r7, #8, r7, asr #20\n"                                                                                              \
    "strb r7, [r3], #1\n"

#define ONE_SIGN "sub r7, r7, r7, lsr #28\nadd r7, r7, lr\n"

/* r0: half passes left. */
#define PASSES(signs)                                                                                                         \
    ".syntax unified\n"                                                                                                       \
    "push {r4-r11, lr}\n"                                                                                                     \
    "ldr lr, [r0, #16]\n"                                                                                                     \
    "ldrd r4, r5, [r0, #8]\n"                                                                                                 \
    "ldrd r0, r6, [r0]\n"                                                                                                     \
    "lsr r0, r0, #3\n"                                                                                                        \
    "lsl r0, r0, #1\n"                                                                                                        \
    "1:\n"                                                                                                                    \
    ONE_SUM(signs) ONE_SUM(signs) ONE_SUM(signs) ONE_SUM(signs)                                                               \
    "subs r0, r0, #1\n"                                                                                                       \
    "bne 1b\n"                                                                                                                \
    "pop {r4-r11, pc}\n"

NN_NAKED void nn_add_linear_passes(const nn_add_linear_params *params NN_UNUSED, const int8_t *input_0 NN_UNUSED,
                                const int8_t *input_1 NN_UNUSED, int8_t *output NN_UNUSED) {
    __asm__ volatile(PASSES(""));
}

NN_NAKED void nn_add_signed_passes(const nn_add_linear_params *params NN_UNUSED, const int8_t *input_0 NN_UNUSED,
                                const int8_t *input_1 NN_UNUSED, int8_t *output NN_UNUSED) {
    __asm__ volatile(PASSES(ONE_SIGN));
}

#else

void nn_add_linear_passes(const nn_add_linear_params *params, const int8_t *input_0, const int8_t *input_1, int8_t *output) {
    add_range(params, input_0, input_1, output, 0u, params->size / PASS * PASS, linear_sum);
}

void nn_add_signed_passes(const nn_add_linear_params *params, const int8_t *input_0, const int8_t *input_1, int8_t *output) {
    add_range(params, input_0, input_1, output, 0u, params->size / PASS * PASS, signed_sum);
}

#endif

static void add(const nn_add_linear_params *params, const int8_t *input_0, const int8_t *input_1, int8_t *output,
                nn_add_step passes, sum_form form) {
    if (params->size >= PASS) {
        passes(params, input_0, input_1, output);
    }
    add_range(params, input_0, input_1, output, params->size / PASS * PASS, params->size, form);
    if (params->min > INT8_MIN || params->max < INT8_MAX) {
        for (uint32_t i = 0; i < params->size; ++i) {
            output[i] = (int8_t)(output[i] < params->min ? params->min : output[i] > params->max ? params->max : output[i]);
        }
    }
}

void nn_add_linear(const nn_add_linear_params *params, const int8_t *input_0, const int8_t *input_1, int8_t *output) {
    add(params, input_0, input_1, output, nn_add_linear_passes, linear_sum);
}

void nn_add_linear_signed(const nn_add_linear_params *params, const int8_t *input_0, const int8_t *input_1, int8_t *output) {
    add(params, input_0, input_1, output, nn_add_signed_passes, signed_sum);
}
