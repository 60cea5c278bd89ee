/* One int8 vector times an int8 matrix, requantized: the core of conv2d and fully_connected. */
#ifndef NN_DENSE_H
#define NN_DENSE_H

#include <stdint.h>

#include "requantize.h"

/* weights: int8 [outputs, depth]. bias: int32 [outputs], with the input's zero point folded in:
 * bias - zero_point * sum(weights of the output), so that the inner loop has no offset.
 */
typedef struct {
    const int8_t *weights;
    const int32_t *bias;
    nn_output_stage stage;
    uint32_t depth;
    uint32_t outputs;
} nn_dense_params;

/* x: int8 [depth]. y: int8 [outputs]; must not overlap x. */
void nn_dense(const nn_dense_params *params, const int8_t *x, int8_t *y);

#endif
