/* From int32 accumulators to int8: the arithmetic `float32`: accumulator and product rounded to float32, the result to an
 * integer, halves to even each time. Bit for bit the same with and without a floating-point unit.
 * firmware_export/requantize.py is the same in Python. Included by the generated code of networks in this arithmetic.
 */
#ifndef NN_REQUANTIZE_FLOAT32_H
#define NN_REQUANTIZE_FLOAT32_H

#include "requantize.h"

#define NN_FLOAT32_FRACTION 23u
#define NN_FLOAT32_BIAS 127u

/* x / 2^exponent, halves to even; exponent 1..63, x below 2^63. */
static inline uint64_t nn_half_even(uint64_t x, uint32_t exponent) {
    return (x + (((uint64_t)1 << (exponent - 1u)) - 1u) + ((x >> exponent) & 1u)) >> exponent;
}

/* x rounded to its leading 24 bits: what a float32 holds of it. bits: how many bits x has. */
static inline uint64_t nn_leading_bits(uint64_t x, uint32_t bits) {
    const uint32_t excess = bits > NN_FLOAT32_FRACTION + 1u ? bits - (NN_FLOAT32_FRACTION + 1u) : 0u;
    return excess == 0u ? x : nn_half_even(x, excess) << excess;
}

static inline uint32_t nn_bit_count(uint64_t x) {
    const uint32_t high = (uint32_t)(x >> 32);
    return high != 0u ? 64u - (uint32_t)__builtin_clz(high) : x != 0u ? 32u - (uint32_t)__builtin_clz((uint32_t)x) : 0u;
}

/* round(magnitude * scale) in integers, at most 2^31 - 1, by the definition. fraction, exponent: of the scale.
 * A scale below 2^-126 counts as 0.
 */
static inline uint32_t nn_float32_rounded(uint32_t magnitude, uint32_t fraction, uint32_t exponent) {
    const uint64_t factor = nn_leading_bits(magnitude, nn_bit_count(magnitude));
    const uint64_t exact = factor * fraction; /* below 2^56 */
    const uint64_t product = nn_leading_bits(exact, nn_bit_count(exact));
    const int32_t shift = (int32_t)(NN_FLOAT32_BIAS + NN_FLOAT32_FRACTION) - (int32_t)exponent;
    if (exponent == 0u || shift > 57) {
        return 0;
    }
    if (shift <= 0) { /* a factor of 2^23 or more */
        return product >> (31 + shift > 0 ? 31 + shift : 0) != 0u ? (uint32_t)INT32_MAX : (uint32_t)(product << -shift);
    }
    const uint64_t rounded = nn_half_even(product, (uint32_t)shift);
    return rounded > (uint64_t)INT32_MAX ? (uint32_t)INT32_MAX : (uint32_t)rounded;
}

/* The same for any finite scale that is not negative.
 * For a scale of 2^-(n + 1) to 2^-n and a magnitude below 2^24, high is below 2^24 and (high + less than 1) / 2^n the exact
 * product; that rounded to 24 bits is less than 1 / 2^n away from it. So one rounding will do unless a half lies in between.
 */
static inline uint32_t nn_float32_magnitude(uint32_t magnitude, float scale) {
    uint32_t bits;
    __builtin_memcpy(&bits, &scale, sizeof bits);
    const uint32_t exponent = bits >> NN_FLOAT32_FRACTION;
    const uint32_t fraction = (bits & (((uint32_t)1 << NN_FLOAT32_FRACTION) - 1u)) | ((uint32_t)1 << NN_FLOAT32_FRACTION);
    const uint32_t n = NN_FLOAT32_BIAS - 1u - exponent;
    if (n - 1u < 31u && magnitude >> 24 == 0u) {
        const uint32_t high = (uint32_t)((uint64_t)magnitude * (fraction << 8) >> 32);
        const uint32_t half = (uint32_t)1 << (n - 1u);
        if ((high & (2u * half - 1u)) - half + 1u > 1u) {
            return (high + half) >> n;
        }
    }
    return nn_float32_rounded(magnitude, fraction, exponent);
}

/* An accumulator times a factor, as an integer: saturated to +-(2^31 - 1), or with a floating-point unit to int32. */
static inline int32_t nn_requantize_float32(int32_t accumulator, float scale) {
#if defined(__arm__) && defined(__ARM_FP) && (__ARM_FP & 4)
    const float product = (float)accumulator * scale;
    int32_t rounded;
    /* rounds as FPSCR says, which is to nearest even from reset on; C's lrintf would be a call */
    __asm__("vcvtr.s32.f32 %0, %1" : "=t"(rounded) : "t"(product));
    return rounded;
#else
    const uint32_t unsigned_accumulator = (uint32_t)accumulator;
    const uint32_t magnitude = nn_float32_magnitude(accumulator < 0 ? 0u - unsigned_accumulator : unsigned_accumulator, scale);
    return accumulator < 0 ? -(int32_t)magnitude : (int32_t)magnitude;
#endif
}

/* An accumulator of one output channel as its stored int8 value. */
static inline int8_t nn_output_float32(const nn_output_stage *stage, uint32_t channel, uint32_t accumulator) {
    const int32_t scaled = nn_requantize_float32((int32_t)accumulator, stage->scales[channel]);
    const int32_t low = stage->min - stage->zero_point, high = stage->max - stage->zero_point;
    return (int8_t)((scaled < low ? low : scaled > high ? high : scaled) + stage->zero_point);
}

#endif
