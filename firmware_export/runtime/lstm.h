#ifndef NN_LSTM_H
#define NN_LSTM_H

#include <stdint.h>

#define NN_LSTM_GATES 4u

/* Weights of the four gates (input, forget, cell, output) for one of their two sources, x or the last output.
 * weights: int8 [units, gates, depth]. bias: int32 [units, gates], with the source's zero point folded in.
 * multipliers, shifts: of each gate, from its sums to int16 in steps of 2^-12.
 */
typedef struct {
    const int8_t *weights;
    const int32_t *bias;
    uint32_t depth;
    int32_t multipliers[NN_LSTM_GATES];
    int8_t shifts[NN_LSTM_GATES];
} nn_lstm_side;

/* Of a product of two int16 values. */
typedef struct {
    int32_t multiplier;
    int8_t shift;
} nn_lstm_factor;

/* sigmoid: 256 entries of 65536 / (1 + exp(-i / 24)). tanh_multiplier, tanh_shift: from the cell state to 3 * 2^-12.
 * forget, update: of the two products that make the cell state. hidden, zero_point: of the output.
 * cell_clip: the largest size of the cell state, 0: none.
 */
typedef struct {
    nn_lstm_side input;
    nn_lstm_side recurrent;
    const uint16_t *sigmoid;
    uint32_t steps;
    uint32_t units;
    nn_lstm_factor forget;
    nn_lstm_factor update;
    nn_lstm_factor hidden;
    int32_t tanh_multiplier;
    uint8_t tanh_shift;
    int16_t cell_clip;
    int16_t zero_point;
} nn_lstm_params;

/* input: int8 [steps, input.depth]. output: int8 [steps, units], apart from it. cell: scratch, int16 [units]; what it holds
 * before does not matter, every call starts with a state of 0.
 */
void nn_lstm(const nn_lstm_params *params, const int8_t *input, int8_t *output, void *cell);

#endif
