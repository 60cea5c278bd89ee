/* 3x3 depthwise convolution, int8: each channel is put together in the scratch, three rows in one, and computed from there. */
#include "depthwise_trio.h"

#include "step_trio_depthwise.h"

#define KERNEL 3u
#define PAIR_BYTES 8u

typedef void (*plane_step)(nn_trio_plane *plane);

/* All pairs as they are outside the image; those on it are written over. */
static void fill(const nn_depthwise_trio_params *params, uint32_t *x) {
    const uint32_t value = (uint32_t)(int32_t)params->fill;
    for (uint32_t left = (uint32_t)params->x_columns * params->x_rows; left > 0u; --left) {
        *x++ = value + (value << 21);
        *x++ = value + (value << 10);
    }
}

/* One channel to the scratch. image: its first pixel. */
static void gather(const nn_depthwise_trio_params *params, const int8_t *image, uint32_t *x) {
    nn_trio_rows rows;
    uint32_t row = 0;
    rows.x_gap = (uint32_t)(params->x_columns - params->pixels) * PAIR_BYTES;
    rows.pixels = params->pixels;
    x += 2u * params->first;
    for (const uint16_t *run = params->runs; row < params->x_rows; run += 2) {
        for (uint32_t place = 0; place < 3u; ++place) {
            const uint32_t on_image = (uint32_t)run[1] >> place & 1u;
            const int32_t image_row = params->begins[place] + (int32_t)row;
            rows.pixel[place] = on_image != 0u ? image + image_row * (int32_t)params->image_row_step : &params->fill;
            rows.step[place] = on_image != 0u ? params->pixel_step : 0u;
            rows.gap[place] =
                on_image != 0u ? (int32_t)params->image_row_step - (int32_t)(params->pixels * params->pixel_step) : 0;
        }
        rows.x = x + 2u * row * params->x_columns;
        rows.rows = run[0];
        nn_trio_gather(&rows);
        row += run[0];
    }
}

/* What stays the same for all channels. */
static nn_trio_plane first_plane(const nn_depthwise_trio_params *params, const uint32_t *x) {
    nn_trio_plane plane;
    plane.apart[0] = params->apart[0];
    plane.apart[1] = params->apart[1];
    plane.shift = params->shift;
    plane.negative = 0;
    plane.rounding = params->rounding;
    plane.output_step = params->output_step;
    plane.row_bytes = params->columns * params->output_step;
    plane.output_gap = (int32_t)params->output_row_step - (int32_t)plane.row_bytes;
    plane.pitch = params->x_columns * PAIR_BYTES;
    plane.x_step = params->stride * PAIR_BYTES - 2u * plane.pitch;
    plane.x_gap = params->stride * (plane.pitch - params->columns * PAIR_BYTES);
    plane.x = x;
    return plane;
}

static void convolve(const nn_depthwise_trio_params *params, const int8_t *input, int8_t *output, int8_t *scratch,
                     plane_step step, uint32_t constants) {
    uint32_t *x = (uint32_t *)(void *)scratch;
    const int8_t *weights = params->weights;
    const int32_t *constant = params->constants;
    const nn_trio_plane first = first_plane(params, x);
    fill(params, x);
    for (uint32_t channel = 0; channel < params->channels; ++channel) {
        nn_trio_plane plane = first;
        gather(params, input + channel, x);
        plane.start = constant[0];
        plane.factor = constant[1];
        plane.negative = constants == 3u ? constant[2] : 0;
        constant += constants;
        for (uint32_t tap = 0; tap < KERNEL * KERNEL; ++tap) {
            plane.weights[tap] = *weights++;
        }
        plane.output = output + channel;
        plane.row_end = plane.output + plane.row_bytes;
        plane.rows = params->rows;
        step(&plane);
    }
    if (params->min > INT8_MIN || params->max < INT8_MAX) {
        for (uint32_t i = 0; i < params->output_bytes; ++i) {
            output[i] = nn_clamp(output[i], params->min, params->max);
        }
    }
}

void nn_depthwise_trio_linear(const nn_depthwise_trio_params *params, const int8_t *input, int8_t *output, int8_t *scratch) {
    convolve(params, input, output, scratch, nn_trio_plane_linear, 2u);
}

void nn_depthwise_trio_signed(const nn_depthwise_trio_params *params, const int8_t *input, int8_t *output, int8_t *scratch) {
    convolve(params, input, output, scratch, nn_trio_plane_signed, 3u);
}
