#ifndef NN_DEPTHWISE_MVE_H
#define NN_DEPTHWISE_MVE_H

#include <stdint.h>

/* An image is seen as rows of columns; either may be the height. Distances between neighbours are in bytes.
 * size, output: how many of the image and of the outputs. stride: 1 and 1 for the kernels of two rows.
 * padding: before the first.
 * records: as step_depthwise_mve.h describes them.
 * zero_point: of the output. fill: the input's. clamped: whether min and max are more than int8 is anyway.
 */
typedef struct {
    const uint32_t *records;
    uint32_t row_bytes;
    uint32_t column_bytes;
    uint32_t output_row_bytes;
    uint32_t output_column_bytes;
    uint16_t channels;
    uint16_t size_rows;
    uint16_t size_columns;
    uint16_t output_rows;
    uint16_t output_columns;
    uint16_t stride_rows;
    uint16_t stride_columns;
    uint16_t padding_rows;
    uint16_t padding_columns;
    int16_t zero_point;
    int8_t fill;
    int8_t min;
    int8_t max;
    uint8_t clamped;
} nn_depthwise_mve_params;

/* Depthwise convolution with windows up to 3x3. input: int8 [h, w, channels]. output: int8 [output h, output w, channels].
 * scratch: aligned to 4; as many bytes as packing/depthwise_mve.py says. The output may lie over the input as far as its
 * distance allows. two_rows: stride 1, at least two rows and columns of outputs. The names' ends are those of the steps.
 */
void nn_depthwise_mve_two_rows_plain(const nn_depthwise_mve_params *params, const int8_t *input, int8_t *output,
                                     int8_t *scratch);
void nn_depthwise_mve_two_rows_signed(const nn_depthwise_mve_params *params, const int8_t *input, int8_t *output,
                                      int8_t *scratch);
void nn_depthwise_mve_one_row_plain(const nn_depthwise_mve_params *params, const int8_t *input, int8_t *output,
                                    int8_t *scratch);
void nn_depthwise_mve_one_row_signed(const nn_depthwise_mve_params *params, const int8_t *input, int8_t *output,
                                     int8_t *scratch);

#endif
