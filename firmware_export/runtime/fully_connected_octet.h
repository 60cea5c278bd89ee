#ifndef NN_FULLY_CONNECTED_OCTET_H
#define NN_FULLY_CONNECTED_OCTET_H

#include <stdint.h>

#include "requantize.h"

/* weights: uint8 [outputs rounded up to 8 / 8][depth][8], weights + 128 (step_octet.h).
 * constants: int32 [outputs][2] start and factor, of the signed form [outputs][3] with negative, at 8 fraction bits
 *     (packing/trio_forms.py); of the general form [outputs], what is added to a sum.
 * batches: how many vectors of depth elements the input holds. shift, rounding: of the form. stage: only for the general form.
 * min, max: what the fused activation leaves.
 */
typedef struct {
    const uint8_t *weights;
    const int32_t *constants;
    uint32_t depth;
    uint32_t outputs;
    uint32_t batches;
    int32_t rounding;
    uint8_t shift;
    int8_t min;
    int8_t max;
    nn_output_stage stage;
} nn_fully_connected_octet_params;

/* input: int8 [batches, depth]. output: int8 [batches, outputs]; must not overlap the input.
 * scratch: aligned to 4; depth bytes, on ARMv6-M 4 * depth. The name says how sums become int8.
 */
void nn_fully_connected_octet_linear(const nn_fully_connected_octet_params *params, const int8_t *input, int8_t *output,
                                     int8_t *scratch);
void nn_fully_connected_octet_signed(const nn_fully_connected_octet_params *params, const int8_t *input, int8_t *output,
                                     int8_t *scratch);
void nn_fully_connected_octet_general(const nn_fully_connected_octet_params *params, const int8_t *input, int8_t *output,
                                      int8_t *scratch);

#endif
