/* Products of two int8 matrices, both with a zero point: that of b is taken out once for each row, as its product with the
 * row's sum.
 */
#include "batch_matmul.h"

static uint32_t row_sum(const nn_batch_matmul_params *params, const int8_t *a) {
    uint32_t sum = 0;
    for (uint32_t k = 0; k < params->depth; ++k) {
        sum += (uint32_t)(a[k * params->a.depth_step] - params->a.zero_point);
    }
    return sum;
}

/* Four columns share each element of a. */
static void four_columns(const nn_batch_matmul_params *params, const int8_t *a, const int8_t *b, uint32_t start, int8_t *y) {
    const uint32_t step = params->b.step;
    uint32_t sum0 = start;
    uint32_t sum1 = start;
    uint32_t sum2 = start;
    uint32_t sum3 = start;
    for (uint32_t k = 0; k < params->depth; ++k) {
        const int32_t value = *a - params->a.zero_point;
        sum0 += (uint32_t)(value * b[0]);
        sum1 += (uint32_t)(value * b[step]);
        sum2 += (uint32_t)(value * b[2u * step]);
        sum3 += (uint32_t)(value * b[3u * step]);
        a += params->a.depth_step;
        b += params->b.depth_step;
    }
    y[0] = nn_output(&params->stage, 0, sum0);
    y[1] = nn_output(&params->stage, 0, sum1);
    y[2] = nn_output(&params->stage, 0, sum2);
    y[3] = nn_output(&params->stage, 0, sum3);
}

static int8_t one_column(const nn_batch_matmul_params *params, const int8_t *a, const int8_t *b, uint32_t start) {
    uint32_t sum = start;
    for (uint32_t k = 0; k < params->depth; ++k) {
        sum += (uint32_t)((a[k * params->a.depth_step] - params->a.zero_point) * b[k * params->b.depth_step]);
    }
    return nn_output(&params->stage, 0, sum);
}

static void one_product(const nn_batch_matmul_params *params, const int8_t *a, const int8_t *b, int8_t *output) {
    for (uint32_t row = 0; row < params->rows; ++row) {
        const uint32_t start = 0u - (uint32_t)params->b.zero_point * row_sum(params, a);
        uint32_t column = 0;
        for (; params->columns - column >= 4u; column += 4u) {
            four_columns(params, a, b + column * params->b.step, start, output + column);
        }
        for (; column < params->columns; ++column) {
            output[column] = one_column(params, a, b + column * params->b.step, start);
        }
        a += params->a.step;
        output += params->columns;
    }
}

void nn_batch_matmul(const nn_batch_matmul_params *params, const int8_t *a, const int8_t *b, int8_t *output) {
    uint32_t place[NN_MAX_RANK] = {0};
    uint32_t axis;
    do {
        one_product(params, a, b, output);
        output += params->rows * params->columns;
        for (axis = params->rank; axis > 0u; --axis) {
            const nn_batch_axis *last = &params->axes[axis - 1u];
            a += last->step_a;
            b += last->step_b;
            if (++place[axis - 1u] < last->size) {
                break;
            }
            a -= last->size * last->step_a;
            b -= last->size * last->step_b;
            place[axis - 1u] = 0;
        }
    } while (axis > 0u);
}

void nn_batch_matmul_constant(const nn_batch_matmul_params *params, const int8_t *input, int8_t *output) {
    if (params->place == 0u) {
        nn_batch_matmul(params, params->constant, input, output);
    } else {
        nn_batch_matmul(params, input, params->constant, output);
    }
}
