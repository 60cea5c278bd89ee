/* Softmax over the last axis, int8: exponentials from a table, one reciprocal per row by Newton's method, fixed point.
 * Bit-equal to TFLite's reference (softmax.h on gemmlowp's fixedpoint.h).
 */
#include "softmax.h"

#include "requantize.h"

#define SUM_INTEGER_BITS 12

static int32_t row_max(const int8_t *x, uint32_t depth) {
    int32_t best = INT8_MIN;
    for (uint32_t i = 0; i < depth; ++i) {
        best = x[i] > best ? x[i] : best;
    }
    return best;
}

static uint32_t row_sum(const nn_softmax_params *params, const int8_t *x, int32_t max) {
    uint32_t sum = 0;
    for (uint32_t i = 0; i < params->depth; ++i) {
        const uint32_t distance = (uint32_t)(max - x[i]);
        if (distance < params->entries) {
            sum += (uint32_t)nn_rounding_divide_by_pot(params->exponentials[distance], SUM_INTEGER_BITS);
        }
    }
    return sum;
}

/* x * 2^bits, saturated. */
static int32_t saturating_shift(int32_t x, uint32_t bits) {
    const int32_t limit = INT32_MAX >> bits;
    return x > limit ? INT32_MAX : x < -limit ? INT32_MIN : x * (1 << bits);
}

/* 1 / (1 + x) in Q0.31 for x in [0, 1) in Q0.31: three Newton steps on half the denominator, from 48/17 - 32/17 d, in Q2.29. */
static int32_t reciprocal_of_one_plus(int32_t x) {
    const int32_t half_denominator = (int32_t)(((int64_t)x + INT32_MAX + 1) / 2);
    int32_t estimate = 1515870810 + nn_high_mul(half_denominator, -1010580540);
    for (int step = 0; step < 3; ++step) {
        const int32_t error = (1 << 29) - nn_high_mul(half_denominator, estimate);
        estimate += saturating_shift(nn_high_mul(estimate, error), 2u);
    }
    return saturating_shift(estimate, 1u);
}

static void row_scale(const nn_softmax_params *params, const int8_t *x, int32_t max, uint32_t sum, int8_t *y) {
    const uint32_t headroom = (uint32_t)__builtin_clz(sum);
    const int32_t reciprocal = reciprocal_of_one_plus((int32_t)((sum << headroom) - 0x80000000u));
    const uint32_t exponent = SUM_INTEGER_BITS - headroom + 31u - 8u;
    for (uint32_t i = 0; i < params->depth; ++i) {
        const uint32_t distance = (uint32_t)(max - x[i]);
        int32_t share = 0;
        if (distance < params->entries && exponent <= 31u) {
            share = nn_rounding_divide_by_pot(nn_high_mul(params->exponentials[distance], reciprocal), exponent);
        }
        y[i] = nn_clamp(share + INT8_MIN, INT8_MIN, INT8_MAX);
    }
}

void nn_softmax(const nn_softmax_params *params, const int8_t *input, int8_t *output) {
    for (uint32_t row = 0; row < params->rows; ++row) {
        const int32_t max = row_max(input, params->depth);
        row_scale(params, input, max, row_sum(params, input, max), output);
        input += params->depth;
        output += params->depth;
    }
}
