#ifndef NN_SOFTMAX_H
#define NN_SOFTMAX_H

#include <stdint.h>

/* exponentials: int32 [entries], exp(-beta * scale * i) in Q0.31 for a distance i from the row's maximum; 0 beyond. */
typedef struct {
    const int32_t *exponentials;
    uint16_t entries;
    uint16_t depth; /* elements of one row, at most 4095: the sum is Q12.19 */
    uint32_t rows;
} nn_softmax_params;

/* input: int8 [rows, depth]. output: int8 [rows, depth], scale 1/256, zero point -128; the same place or apart. */
void nn_softmax(const nn_softmax_params *params, const int8_t *input, int8_t *output);

#endif
