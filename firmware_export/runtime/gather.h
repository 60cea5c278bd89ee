#ifndef NN_GATHER_H
#define NN_GATHER_H

#include <stdint.h>

#define NN_GATHER_RANK 6u

/* One axis of the output: how long it is, and the bytes from one index of the input's axis to the next. */
typedef struct {
    uint32_t size;
    uint32_t step;
} nn_gather_axis;

/* output[i, j, ...] = input[indexes of axis 0 [i], indexes of axis 1 [j], ...], `run` bytes each time.
 * indexes: those of all axes, one behind the other.
 */
typedef struct {
    uint32_t run;
    const uint16_t *indexes;
    uint8_t rank;
    nn_gather_axis axes[NN_GATHER_RANK];
} nn_gather;

/* input, output: int8, apart. */
void nn_gather_run(const nn_gather *gather, const int8_t *input, int8_t *output);

#endif
