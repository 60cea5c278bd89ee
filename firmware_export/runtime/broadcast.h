#ifndef NN_BROADCAST_H
#define NN_BROADCAST_H

#include <stdint.h>

/* How two inputs meet elementwise.
 * axes: uint32 [rank][3], outermost first: the output's size, and the step of each input along it, 0 where it is repeated.
 * constant: int8, the input at `place` (0 or 1) where that is no activation, else 0.
 */
typedef struct {
    const uint32_t *axes;
    const int8_t *constant;
    uint8_t rank;
    uint8_t place;
} nn_broadcast;

/* Computes one run along the last axis: axis[0] outputs, inputs at steps axis[1] and axis[2]. */
typedef void (*nn_broadcast_row)(
    const void *params, const uint32_t *axis, const int8_t *input_0, const int8_t *input_1, int8_t *output);

/* Calls row for every run; the output is written in order. */
void nn_broadcast_rows(
    const nn_broadcast *shape, nn_broadcast_row row, const void *params, const int8_t *input_0, const int8_t *input_1,
    int8_t *output);

/* The same with the constant and the other input. */
void nn_broadcast_constant(
    const nn_broadcast *shape, nn_broadcast_row row, const void *params, const int8_t *input, int8_t *output);

#endif
