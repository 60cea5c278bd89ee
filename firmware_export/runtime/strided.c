/* Bytes from one regular grid to another, int8: what transposes, slices and pads are. */
#include "strided.h"

#include <stddef.h>

static void copy_row(const nn_strided_axis *axis, const int8_t *input, int8_t *output) {
    if (axis->input_step == 1 && axis->output_step == 1) {
        __builtin_memcpy(output, input, axis->size);
        return;
    }
    ptrdiff_t from = 0;
    ptrdiff_t to = 0;
    for (uint32_t i = axis->size; i > 0; --i) {
        output[to] = input[from];
        from += axis->input_step;
        to += axis->output_step;
    }
}

typedef struct {
    uint32_t done[NN_STRIDED_RANK];
    int32_t from;
    int32_t to;
} position;

/* Moves on to the next row; 0 after the last one. */
static int next_row(const nn_strided_copy *copy, position *at) {
    for (uint32_t place = copy->rank - 1u; place-- > 0;) {
        const nn_strided_axis *axis = &copy->axes[place];
        at->from += axis->input_step;
        at->to += axis->output_step;
        if (++at->done[place] < axis->size) {
            return 1;
        }
        at->done[place] = 0;
        at->from -= axis->input_step * (int32_t)axis->size;
        at->to -= axis->output_step * (int32_t)axis->size;
    }
    return 0;
}

void nn_copy_strided(const nn_strided_copy *copy, const int8_t *input, int8_t *output) {
    position at = {{0}, copy->input_start, copy->output_start};
    do {
        copy_row(&copy->axes[copy->rank - 1u], input + at.from, output + at.to);
    } while (next_row(copy, &at));
}
