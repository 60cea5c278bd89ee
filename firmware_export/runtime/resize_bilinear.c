/* An image of another size, each pixel between its four neighbours, int8. */
#include "resize_bilinear.h"

#define UNIT 1024
#define FINE_UNIT 2048

/* Neighbours of one place, and its distance from the first; outside of the image that one counts more than once. */
typedef struct {
    uint32_t before;
    uint32_t behind;
    int32_t distance;
} neighbours;

static neighbours neighbours_of(const nn_resize_direction *direction, uint32_t index) {
    const int32_t place = (int32_t)index * direction->factor + direction->start;
    const int32_t last = direction->input - 1;
    const int32_t before = place > 0 ? place / UNIT : 0;
    const int32_t behind = (place + UNIT - 1) / UNIT;
    const neighbours found = {(uint32_t)before, (uint32_t)(behind < last ? behind : last), place - UNIT * before};
    return found;
}

static int8_t rounded(int32_t total) {
    const int32_t half = UNIT * UNIT / 2;
    return (int8_t)((total + (total > 0 ? half : -half)) / (UNIT * UNIT));
}

void nn_resize_bilinear(const nn_resize_bilinear_params *params, const int8_t *input, int8_t *output) {
    const uint32_t channels = params->channels;
    const uint32_t row_size = params->width.input * channels;
    for (uint32_t row = 0; row < params->height.output; ++row) {
        const neighbours y = neighbours_of(&params->height, row);
        const int8_t *upper = input + y.before * row_size;
        const int8_t *lower = input + y.behind * row_size;
        for (uint32_t column = 0; column < params->width.output; ++column) {
            const neighbours x = neighbours_of(&params->width, column);
            const uint32_t left = x.before * channels;
            const uint32_t right = x.behind * channels;
            for (uint32_t channel = 0; channel < channels; ++channel) {
                const int32_t above = upper[left + channel] * (UNIT - x.distance) + upper[right + channel] * x.distance;
                const int32_t below = lower[left + channel] * (UNIT - x.distance) + lower[right + channel] * x.distance;
                *output++ = rounded(above * (UNIT - y.distance) + below * y.distance);
            }
        }
    }
}

/* FINE_UNIT times the value at a distance from the first of two. */
static int32_t between(int32_t first, int32_t second, int32_t distance) {
    return first * FINE_UNIT + (second - first) * distance;
}

void nn_resize_bilinear_fine(const nn_resize_bilinear_fine_params *params, const int8_t *input, int8_t *output) {
    const uint32_t channels = params->channels;
    for (uint32_t row = 0; row < params->height; ++row) {
        const uint16_t *y = params->rows + 3u * row;
        const int8_t *upper = input + y[0] * params->row_size;
        const int8_t *lower = input + y[1] * params->row_size;
        for (uint32_t column = 0; column < params->width; ++column) {
            const uint16_t *x = params->columns + 3u * column;
            const uint32_t left = x[0] * channels;
            const uint32_t right = x[1] * channels;
            for (uint32_t channel = 0; channel < channels; ++channel) {
                const int32_t above = between(upper[left + channel], upper[right + channel], x[2]);
                const int32_t below = between(lower[left + channel], lower[right + channel], x[2]);
                *output++ = (int8_t)((between(above, below, y[2]) + FINE_UNIT * FINE_UNIT / 2) >> 22);
            }
        }
    }
}
