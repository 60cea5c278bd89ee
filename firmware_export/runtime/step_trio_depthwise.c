/* See step_trio_depthwise.h. The inner steps in C: for all cores but ARMv7-M and ARMv6-M, which have files of their own. */
#include "step_trio_depthwise.h"

#if !NN_V7M && !NN_V6M

void nn_trio_gather(const nn_trio_rows *rows) {
    const int8_t *pixel[3] = {rows->pixel[0], rows->pixel[1], rows->pixel[2]};
    uint32_t *x = rows->x;
    for (uint32_t row = 0; row < rows->rows; ++row, x += rows->x_gap / sizeof(uint32_t)) {
        for (uint32_t column = 0; column < rows->pixels; ++column, x += 2) {
            const uint32_t middle = (uint32_t)(int32_t)*pixel[1];
            x[0] = (uint32_t)(int32_t)*pixel[0] + (middle << 21);
            x[1] = (uint32_t)(int32_t)*pixel[2] + (middle << 10);
            for (uint32_t i = 0; i < 3u; ++i) {
                pixel[i] += rows->step[i];
            }
        }
        for (uint32_t i = 0; i < 3u; ++i) {
            pixel[i] += rows->gap[i];
        }
    }
}

/* The three sums under one window. */
static void window_sums(const nn_trio_plane *plane, const uint32_t *x, int32_t *sums) {
    uint32_t u = NN_TRIO_BIAS + (NN_TRIO_BIAS << 21);
    uint32_t v = NN_TRIO_BIAS + (NN_TRIO_BIAS << 10);
    for (uint32_t tap = 0; tap < 9u; ++tap) {
        const uint32_t *pair = x + tap / 3u * (plane->pitch / sizeof(uint32_t)) + tap % 3u * 2u;
        u += (uint32_t)plane->weights[tap] * pair[0];
        v += (uint32_t)plane->weights[tap] * pair[1];
    }
    nn_trio_sums(u, v, sums);
}

static int8_t value_of(const nn_trio_plane *plane, int32_t sum, int32_t negative, int32_t rounding) {
    int32_t value = nn_multiply_high((int32_t)(((uint32_t)sum << 11) + (uint32_t)plane->start), plane->factor);
    value += rounding - (value < 0 ? negative : 0);
    return nn_saturate(value >> plane->shift);
}

static void compute(nn_trio_plane *plane, int32_t negative, int32_t rounding) {
    const uint32_t *x = plane->x;
    for (; plane->rows > 0u; --plane->rows) {
        for (; plane->output != plane->row_end; plane->output += plane->output_step) {
            int32_t sums[3];
            window_sums(plane, x, sums);
            plane->output[0] = value_of(plane, sums[0], negative, rounding);
            plane->output[plane->apart[0]] = value_of(plane, sums[1], negative, rounding);
            plane->output[plane->apart[1]] = value_of(plane, sums[2], negative, rounding);
            x += (plane->x_step + 2u * plane->pitch) / sizeof(uint32_t);
        }
        x += plane->x_gap / sizeof(uint32_t);
        plane->output += plane->output_gap;
        plane->row_end = plane->output + plane->row_bytes;
    }
}

void nn_trio_plane_linear(nn_trio_plane *plane) { compute(plane, 0, 0); }

void nn_trio_plane_signed(nn_trio_plane *plane) { compute(plane, plane->negative, plane->rounding); }

#endif
