#ifndef NN_BATCH_MATMUL_H
#define NN_BATCH_MATMUL_H

#include <stdint.h>

#include "nn.h"
#include "requantize.h"

/* A factor in memory. step: elements from one row of a, or column of b, to the next; depth_step: along the other edge. */
typedef struct {
    uint32_t step;
    uint32_t depth_step;
    int32_t zero_point;
} nn_matrix;

/* One axis of the batches, outermost first: how long it is, and the elements that a and b move on; 0: the same again. */
typedef struct {
    uint32_t size;
    uint32_t step_a;
    uint32_t step_b;
} nn_batch_axis;

/* constant, place: the factor that is not computed, and which one it is (0: a, 1: b). stage: one channel. */
typedef struct {
    nn_matrix a;
    nn_matrix b;
    uint32_t rows;
    uint32_t columns;
    uint32_t depth;
    nn_output_stage stage;
    const int8_t *constant;
    uint8_t place;
    uint8_t rank;
    nn_batch_axis axes[NN_MAX_RANK];
} nn_batch_matmul_params;

/* a, b: int8 matrices. output: int8 [batches..., rows, columns]; must not overlap them. */
void nn_batch_matmul(const nn_batch_matmul_params *params, const int8_t *a, const int8_t *b, int8_t *output);

/* The same where one factor is params->constant. */
void nn_batch_matmul_constant(const nn_batch_matmul_params *params, const int8_t *input, int8_t *output);

#endif
