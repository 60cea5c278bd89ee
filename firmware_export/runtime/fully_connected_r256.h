#ifndef NN_FULLY_CONNECTED_R256_H
#define NN_FULLY_CONNECTED_R256_H

#include <stdint.h>

#include "requantize.h"

/* weights: records as step_r256_vector.h describes them, record_words each, for outputs rounded up to four.
 * steps: of 8 elements. rounding: of the signed forms. batches: how many vectors of depth elements the input holds.
 * min, max: what the fused activation leaves. stage: only for nn_fully_connected_r256_general.
 */
typedef struct {
    const uint32_t *weights;
    uint32_t record_words;
    uint32_t depth;
    uint32_t steps;
    uint32_t outputs;
    uint32_t batches;
    int32_t rounding;
    int8_t min;
    int8_t max;
    nn_output_stage stage;
} nn_fully_connected_r256_params;

/* input: int8 [batches, depth]. output: int8 [batches, outputs]; must not overlap the input.
 * scratch: aligned to 4, 16 * steps bytes, for the general form 16 more for every four outputs. It may overlap the end of an
 * input of one batch (packing/fully_connected_r256.py says how), which is then lost.
 */
void nn_fully_connected_r256_linear_8(const nn_fully_connected_r256_params *params, const int8_t *input, int8_t *output,
                                      int8_t *scratch);
void nn_fully_connected_r256_linear_12(const nn_fully_connected_r256_params *params, const int8_t *input, int8_t *output,
                                       int8_t *scratch);
void nn_fully_connected_r256_signed_8(const nn_fully_connected_r256_params *params, const int8_t *input, int8_t *output,
                                      int8_t *scratch);
void nn_fully_connected_r256_signed_12(const nn_fully_connected_r256_params *params, const int8_t *input, int8_t *output,
                                       int8_t *scratch);
void nn_fully_connected_r256_general(const nn_fully_connected_r256_params *params, const int8_t *input, int8_t *output,
                                     int8_t *scratch);

/* Without scratch, for depths that are multiples of 8. */
void nn_fully_connected_r256_direct_linear_8(const nn_fully_connected_r256_params *params, const int8_t *input,
                                             int8_t *output);
void nn_fully_connected_r256_direct_linear_12(const nn_fully_connected_r256_params *params, const int8_t *input,
                                              int8_t *output);
void nn_fully_connected_r256_direct_signed_8(const nn_fully_connected_r256_params *params, const int8_t *input,
                                             int8_t *output);
void nn_fully_connected_r256_direct_signed_12(const nn_fully_connected_r256_params *params, const int8_t *input,
                                              int8_t *output);

#endif
