/* Words of two 16-bit lanes. */
#ifndef NN_LANES_H
#define NN_LANES_H

#include <stdint.h>

/* Whether the assembly of the inner steps is used: ARMv7E-M and ARMv8-M with DSP, that is Cortex-M4, M7, M33. */
#if defined(__ARM_FEATURE_DSP) && !defined(__ARM_FEATURE_MVE)
#define NN_DSP 1
#else
#define NN_DSP 0
#endif

/* The same of ARMv7-M, that is Cortex-M3, and of ARMv6-M, that is Cortex-M0+. */
#ifdef __ARM_ARCH_7M__
#define NN_V7M 1
#else
#define NN_V7M 0
#endif
#ifdef __ARM_ARCH_6M__
#define NN_V6M 1
#else
#define NN_V6M 0
#endif

/* A function that is all assembly, and its parameters. */
#define NN_NAKED __attribute__((naked, noinline))
#define NN_UNUSED __attribute__((unused))

static inline int32_t nn_low_lane(uint32_t lanes) { return (int16_t)(uint16_t)lanes; }

static inline int32_t nn_high_lane(uint32_t lanes) { return (int16_t)(uint16_t)(lanes >> 16); }

static inline uint32_t nn_lanes(int32_t low, int32_t high) { return ((uint32_t)low & 0xffffu) | (uint32_t)high << 16; }

/* SXTB16: the bytes 0 and 2, sign-extended. */
static inline uint32_t nn_even_bytes(uint32_t word) {
#if NN_DSP
    uint32_t lanes;
    __asm__("sxtb16 %0, %1" : "=r"(lanes) : "r"(word));
    return lanes;
#else
    return nn_lanes((int8_t)(uint8_t)word, (int8_t)(uint8_t)(word >> 16));
#endif
}

/* SMLAD, modulo 2^32. */
static inline uint32_t nn_add_products(uint32_t sum, uint32_t a, uint32_t b) {
    return sum + (uint32_t)(nn_low_lane(a) * nn_low_lane(b)) + (uint32_t)(nn_high_lane(a) * nn_high_lane(b));
}

/* SMMUL. ARMv6-M has no long multiplication: there from four short ones, which is a third of the compiler's function. */
static inline int32_t nn_multiply_high(int32_t a, int32_t b) {
#if NN_V6M
    const uint32_t a_low = (uint32_t)a & 0xffffu;
    const uint32_t b_low = (uint32_t)b & 0xffffu;
    const int32_t a_high = a >> 16;
    const int32_t b_high = b >> 16;
    const int32_t middle = a_high * (int32_t)b_low + (int32_t)(a_low * b_low >> 16);
    const int32_t other = (int32_t)a_low * b_high + (int32_t)((uint32_t)middle & 0xffffu);
    return a_high * b_high + (middle >> 16) + (other >> 16);
#else
    return (int32_t)(((int64_t)a * b) >> 32);
#endif
}

static inline int8_t nn_saturate(int32_t x) { return (int8_t)(x < INT8_MIN ? INT8_MIN : x > INT8_MAX ? INT8_MAX : x); }

/* Four bytes from any address, the first lowest. Little-endian, as every core this runs on. */
static inline uint32_t nn_load_word(const int8_t *from) {
    uint32_t word;
    __builtin_memcpy(&word, from, sizeof word);
    return word;
}

#endif
