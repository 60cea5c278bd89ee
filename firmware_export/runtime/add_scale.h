/* One side of a sum or difference: 20 bits are added before both sides are brought to one scale. */
#ifndef NN_ADD_SCALE_H
#define NN_ADD_SCALE_H

#include <stdint.h>

#include "requantize.h"

#define NN_HEADROOM_BITS 20

/* One side, or the result: scale relative to the common one as multiplier * 2^(shift - 31), shift <= 0. */
typedef struct {
    int32_t multiplier;
    int8_t shift;
    int16_t zero_point;
} nn_add_scale;

/* A stored value at the common scale, as the bits of an int32. */
static inline uint32_t nn_raised(const nn_add_scale *side, int8_t x) {
    const int32_t shifted = (x - side->zero_point) * (1 << NN_HEADROOM_BITS);
    return (uint32_t)nn_requantize(shifted, side->multiplier, side->shift);
}

/* A sum or difference at the common scale as a stored value. */
static inline int8_t nn_lowered(const nn_add_scale *output, uint32_t sum, int8_t min, int8_t max) {
    const int32_t scaled = nn_requantize((int32_t)sum, output->multiplier, output->shift);
    return nn_clamp(scaled + output->zero_point, min, max);
}

#endif
