#ifndef NN_ADD_H
#define NN_ADD_H

#include <stdint.h>

#include "add_scale.h"

typedef struct {
    uint32_t size; /* elements */
    nn_add_scale input_0;
    nn_add_scale input_1;
    nn_add_scale output;
    int8_t min;
    int8_t max;
} nn_add_params;

/* input_0, input_1, output: int8 [size]; the output may be one of the inputs. */
void nn_add(const nn_add_params *params, const int8_t *input_0, const int8_t *input_1, int8_t *output);

#endif
