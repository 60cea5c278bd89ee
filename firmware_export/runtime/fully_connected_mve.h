#ifndef NN_FULLY_CONNECTED_MVE_H
#define NN_FULLY_CONNECTED_MVE_H

#include <stdint.h>

/* weights: records as step_mve.h describes them, words of them.
 * outputs: channels; the records are for the next multiple of 8. depth: vectors * 16 + tail.
 * zero_point: of the output. clamped: whether min and max are more than int8 is anyway.
 */
typedef struct {
    const uint32_t *weights;
    uint32_t words;
    uint16_t batches;
    uint16_t outputs;
    uint16_t vectors;
    uint8_t tail;
    uint8_t clamped;
    int16_t zero_point;
    int8_t min;
    int8_t max;
} nn_fully_connected_mve_params;

/* input: int8 [batches, depth]. output: int8 [batches, outputs]; must not overlap the input.
 * The name says how sums become int8, see step_mve.h.
 */
void nn_fully_connected_mve_plain(const nn_fully_connected_mve_params *params, const int8_t *input, int8_t *output);
void nn_fully_connected_mve_signed(const nn_fully_connected_mve_params *params, const int8_t *input, int8_t *output);
void nn_fully_connected_mve_general(const nn_fully_connected_mve_params *params, const int8_t *input, int8_t *output);

#endif
