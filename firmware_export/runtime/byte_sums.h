/* Sums of int8 over pixels, four channels at a time: two channels in the halves of a word; 16 with Helium (MVE). */
#ifndef NN_BYTE_SUMS_H
#define NN_BYTE_SUMS_H

#include <stdint.h>

#include "lanes.h"

#if defined(__ARM_FEATURE_MVE)
#include <arm_mve.h>
#define NN_BYTE_SUMS_CHANNELS 16u
#else
#define NN_BYTE_SUMS_CHANNELS 4u
#endif
/* Pixels that fit the halves: 256 times -128 or 127 is int16. */
#define NN_BYTE_SUMS_PIXELS 256u

#if defined(__ARM_FEATURE_MVE)

/* Eight int16 to eight int32, of which the vectors hold the even and the odd ones. */
static inline void nn_add_halves(int32_t *sums, int16x8_t halves) {
    int32_t even_and_odd[2][4];
    vst1q_s32(even_and_odd[0], vmovlbq_s16(halves));
    vst1q_s32(even_and_odd[1], vmovltq_s16(halves));
    for (uint32_t i = 0; i < 8u; ++i) {
        sums[i] += even_and_odd[i % 2u][i / 2u];
    }
}

/* Adds count pixels, step bytes apart, of 16 neighbouring channels to sums[16]. x may lie at any address. */
static inline void nn_sum_pixels(const int8_t *x, uint32_t step, uint32_t count, int32_t *sums) {
    while (count > 0u) {
        int16x8_t low = vdupq_n_s16(0);
        int16x8_t high = low;
        uint32_t left = count < NN_BYTE_SUMS_PIXELS ? count : NN_BYTE_SUMS_PIXELS;
        count -= left;
        for (; left > 0u; --left, x += step) {
            low = vaddq_s16(low, vldrbq_s16(x));
            high = vaddq_s16(high, vldrbq_s16(x + 8));
        }
        nn_add_halves(sums, low);
        nn_add_halves(sums + 8, high);
    }
}

#elif NN_DSP

/* Adds the bytes 0 and 2 of x, sign-extended, to the halves of sums. */
static inline uint32_t nn_add_even_bytes(uint32_t sums, uint32_t x) {
    __asm__("sxtab16 %0, %1, %2" : "=r"(sums) : "r"(sums), "r"(x));
    return sums;
}

/* Adds the bytes 1 and 3. */
static inline uint32_t nn_add_odd_bytes(uint32_t sums, uint32_t x) {
    __asm__("sxtab16 %0, %1, %2, ror #8" : "=r"(sums) : "r"(sums), "r"(x));
    return sums;
}

#else

/* Adds the bytes 0 and 2 of x, sign-extended, to the halves of sums. */
static inline uint32_t nn_add_even_bytes(uint32_t sums, uint32_t x) {
    const int32_t low = (int8_t)(uint8_t)x;
    const int32_t high = (int8_t)(uint8_t)(x >> 16);
    return ((sums + (uint32_t)low) & 0xffffu) | ((sums >> 16) + (uint32_t)high) << 16;
}

/* Adds the bytes 1 and 3. */
static inline uint32_t nn_add_odd_bytes(uint32_t sums, uint32_t x) { return nn_add_even_bytes(sums, x >> 8); }

#endif

#if !defined(__ARM_FEATURE_MVE)

/* Adds count pixels, step bytes apart, of four neighbouring channels to sums[4]. x may lie at any address. */
static inline void nn_sum_pixels(const int8_t *x, uint32_t step, uint32_t count, int32_t *sums) {
    while (count > 0u) {
        uint32_t even = 0;
        uint32_t odd = 0;
        uint32_t left = count < NN_BYTE_SUMS_PIXELS ? count : NN_BYTE_SUMS_PIXELS;
        count -= left;
        for (; left > 0u; --left, x += step) {
            uint32_t pixel;
            __builtin_memcpy(&pixel, x, sizeof pixel);
            even = nn_add_even_bytes(even, pixel);
            odd = nn_add_odd_bytes(odd, pixel);
        }
        sums[0] += (int16_t)(uint16_t)even;
        sums[1] += (int16_t)(uint16_t)odd;
        sums[2] += (int16_t)(uint16_t)(even >> 16);
        sums[3] += (int16_t)(uint16_t)(odd >> 16);
    }
}

#endif

/* The same of one channel. */
static inline int32_t nn_sum_channel(const int8_t *x, uint32_t step, uint32_t count) {
    int32_t sum = 0;
    for (; count > 0u; --count, x += step) {
        sum += *x;
    }
    return sum;
}

#endif
