/* LSTM over a sequence, int8 with an int16 cell state: TFLite Micro's arithmetic, unit after unit. */
#include "lstm.h"

#include "requantize.h"

enum { INPUT_GATE, FORGET_GATE, CELL_GATE, OUTPUT_GATE };

#define TABLE_LAST 255u

static int32_t saturated(int32_t x) { return x < INT16_MIN ? INT16_MIN : x > INT16_MAX ? INT16_MAX : x; }

static int32_t product(const nn_lstm_factor *factor, int32_t a, int32_t b) {
    return nn_requantize(a * b, factor->multiplier, factor->shift);
}

/* Between entries of the table, for a size with that many fraction bits; end: behind the last entry. */
static int32_t interpolated(const uint16_t *table, int32_t scaled, uint32_t bits, int32_t end) {
    const uint32_t size = (uint32_t)(scaled < 0 ? -scaled : scaled);
    const uint32_t place = size >> bits;
    if (place >= TABLE_LAST) {
        return end;
    }
    const int32_t fraction = (int32_t)(size & (((uint32_t)1 << bits) - 1u));
    return ((int32_t)table[place] << bits) + fraction * (table[place + 1u] - table[place]);
}

/* In steps of 2^-15, of x in steps of 2^-12. */
static int32_t logistic(const uint16_t *table, int32_t x) {
    const int32_t result = interpolated(table, 3 * x, 9, INT16_MAX << 10);
    const int32_t half = 1 << 9;
    return (x >= 0 ? result + half : (1 << 25) - result + half - 1) >> 10;
}

/* In steps of 2^-15, of `scaled` in steps of 2^-12 / 3. */
static int32_t tanh_of(const uint16_t *table, int32_t scaled) {
    const int32_t result = interpolated(table, scaled, 8, UINT16_MAX << 8);
    const int32_t one = 1 << 23;
    const int32_t half = 1 << 7;
    return (scaled >= 0 ? result - one + half : one - result + half - 1) >> 8;
}

/* What one source adds to the four gates of a unit; the gates share each load of x. */
static void add_side(const nn_lstm_side *side, uint32_t unit, const int8_t *x, int32_t *gates) {
    const uint32_t depth = side->depth;
    const int8_t *w = side->weights + unit * NN_LSTM_GATES * depth;
    const int32_t *bias = side->bias + unit * NN_LSTM_GATES;
    uint32_t sums[NN_LSTM_GATES] = {(uint32_t)bias[0], (uint32_t)bias[1], (uint32_t)bias[2], (uint32_t)bias[3]};
    for (uint32_t i = 0; i < depth; ++i) {
        const int32_t value = x[i];
        sums[0] += (uint32_t)(value * w[i]);
        sums[1] += (uint32_t)(value * w[depth + i]);
        sums[2] += (uint32_t)(value * w[2u * depth + i]);
        sums[3] += (uint32_t)(value * w[3u * depth + i]);
    }
    for (uint32_t gate = 0; gate < NN_LSTM_GATES; ++gate) {
        const int32_t scaled = nn_requantize((int32_t)sums[gate], side->multipliers[gate], side->shifts[gate]);
        gates[gate] = saturated(gates[gate] + saturated(scaled));
    }
}

/* The next state of a unit's cell. */
static int32_t next_cell(const nn_lstm_params *params, const int32_t *gates, int32_t cell) {
    const uint16_t *table = params->sigmoid;
    const int32_t kept = saturated(product(&params->forget, logistic(table, gates[FORGET_GATE]), cell));
    const int32_t candidate = tanh_of(table, 3 * gates[CELL_GATE]);
    const int32_t added = saturated(product(&params->update, logistic(table, gates[INPUT_GATE]), candidate));
    const int32_t next = saturated(kept + added);
    const int32_t bound = params->cell_clip;
    return bound == 0 ? next : next > bound ? bound : next < -bound ? -bound : next;
}

static int8_t output_of(const nn_lstm_params *params, const int32_t *gates, int32_t cell) {
    const int32_t round = ((int32_t)1 << params->tanh_shift) >> 1;
    const int32_t scaled = (cell * params->tanh_multiplier + round) >> params->tanh_shift;
    const int32_t open = logistic(params->sigmoid, gates[OUTPUT_GATE]);
    return nn_clamp(product(&params->hidden, tanh_of(params->sigmoid, scaled), open) + params->zero_point, INT8_MIN, INT8_MAX);
}

void nn_lstm(const nn_lstm_params *params, const int8_t *input, int8_t *output, void *cell) {
    int16_t *cells = cell;
    const int8_t *last = 0;
    for (uint32_t step = 0; step < params->steps; ++step) {
        for (uint32_t unit = 0; unit < params->units; ++unit) {
            int32_t gates[NN_LSTM_GATES] = {0};
            int32_t before = 0;
            add_side(&params->input, unit, input, gates);
            if (last != 0) {
                add_side(&params->recurrent, unit, last, gates);
                before = cells[unit];
            }
            cells[unit] = (int16_t)next_cell(params, gates, before);
            output[unit] = output_of(params, gates, cells[unit]);
        }
        last = output;
        output += params->units;
        input += params->input.depth;
    }
}
