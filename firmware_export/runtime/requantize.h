/* From int32 accumulators to int8: the arithmetic `double` (gemmlowp double rounding), integers only, the same on every core.
 * The arithmetic `float32` is in requantize_float32.h.
 * firmware_export/requantize.py is the same in Python. Needs arithmetic right shifts of negative numbers (gcc, clang).
 * int32 overflow, which the reference leaves undefined, wraps around: accumulators are summed as uint32_t.
 */
#ifndef NN_REQUANTIZE_H
#define NN_REQUANTIZE_H

#include <stdint.h>

/* The last stage of an accumulating operator.
 * multipliers, shifts: one per output channel; real factor = multiplier * 2^(shift - 31); a positive shift goes left.
 * scales, output: of the arithmetic `float32` instead: the real factors, and nn_output_float32 of requantize_float32.h. Only
 *     the generated code of such a network names that function, so that no other holds any float instruction.
 * zero_point: of the output. min, max: the stored values that the fused activation leaves.
 */
typedef struct nn_output_stage {
    const int32_t *multipliers;
    const int8_t *shifts;
    const float *scales;
    int8_t (*output)(const struct nn_output_stage *stage, uint32_t channel, uint32_t accumulator);
    int16_t zero_point;
    int8_t min;
    int8_t max;
} nn_output_stage;

/* round(x * multiplier / 2^31), halves up: gemmlowp's SaturatingRoundingDoublingHighMul for multiplier > -2^31. */
static inline int32_t nn_high_mul(int32_t x, int32_t multiplier) {
    return (int32_t)(((int64_t)x * multiplier + ((int64_t)1 << 30)) >> 31);
}

/* x / 2^exponent, halves away from zero: gemmlowp's RoundingDivideByPOT; exponent 0..31. */
static inline int32_t nn_rounding_divide_by_pot(int32_t x, uint32_t exponent) {
    const uint32_t mask = ((uint32_t)1 << exponent) - 1u;
    const uint32_t threshold = (mask >> 1) + (x < 0 ? 1u : 0u);
    return (x >> exponent) + (((uint32_t)x & mask) > threshold ? 1 : 0);
}

/* x * multiplier * 2^(shift - 31), rounded twice: TFLite's MultiplyByQuantizedMultiplier; shift -31..30. */
static inline int32_t nn_requantize(int32_t x, int32_t multiplier, int32_t shift) {
    if (shift > 0) {
        return nn_high_mul((int32_t)((uint32_t)x << shift), multiplier);
    }
    return nn_rounding_divide_by_pot(nn_high_mul(x, multiplier), (uint32_t)-shift);
}

static inline int8_t nn_clamp(int32_t x, int32_t min, int32_t max) { return (int8_t)(x < min ? min : x > max ? max : x); }

/* An accumulator of one output channel as its stored int8 value. */
static inline int8_t nn_output(const nn_output_stage *stage, uint32_t channel, uint32_t accumulator) {
    if (stage->output != 0) {
        return stage->output(stage, channel, accumulator);
    }
    const int32_t scaled = nn_requantize((int32_t)accumulator, stage->multipliers[channel], stage->shifts[channel]);
    return nn_clamp((int32_t)((uint32_t)scaled + (uint32_t)stage->zero_point), stage->min, stage->max);
}

#endif
