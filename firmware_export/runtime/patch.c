/* Copies of image pieces, a word at a time at any address; 16 bytes with Helium (MVE). */
#include "patch.h"

#include "lanes.h"

#if defined(__ARM_FEATURE_MVE)

#include <arm_mve.h>

static int8_t *copy_bytes(int8_t *to, const int8_t *from, uint32_t count) {
    int8_t *end = to + count;
    for (; to < end; to += 16, from += 16) {
        const mve_pred16_t left = vctp8q((uint32_t)(end - to));
        vstrbq_p_s8(to, vldrbq_z_s8(from, left), left);
    }
    return end;
}

static int8_t *fill_bytes(int8_t *to, int8_t value, uint32_t count) {
    int8_t *end = to + count;
    const int8x16_t values = vdupq_n_s8(value);
    for (; to < end; to += 16) {
        vstrbq_p_s8(to, values, vctp8q((uint32_t)(end - to)));
    }
    return end;
}

#elif NN_V6M

/* Words lie at multiples of 4 only: memcpy and memset find out what can be done. */
static int8_t *copy_bytes(int8_t *to, const int8_t *from, uint32_t count) {
    __builtin_memcpy(to, from, count);
    return to + count;
}

static int8_t *fill_bytes(int8_t *to, int8_t value, uint32_t count) {
    __builtin_memset(to, value, count);
    return to + count;
}

#else

static int8_t *copy_bytes(int8_t *to, const int8_t *from, uint32_t count) {
    for (; count >= 4u; count -= 4u, to += 4, from += 4) {
        const uint32_t word = nn_load_word(from);
        __builtin_memcpy(to, &word, sizeof word);
    }
    for (; count > 0u; --count) {
        *to++ = *from++;
    }
    return to;
}

static int8_t *fill_bytes(int8_t *to, int8_t value, uint32_t count) {
    const uint32_t word = 0x01010101u * (uint8_t)value;
    for (; count >= 4u; count -= 4u, to += 4) {
        __builtin_memcpy(to, &word, sizeof word);
    }
    for (; count > 0u; --count) {
        *to++ = value;
    }
    return to;
}

#endif

/* Neighbouring pixels of one image row: one copy, with fill on both sides. */
static int8_t *copy_row(const nn_window *window, const int8_t *row, int32_t x, uint32_t columns, int8_t fill, int8_t *to) {
    const uint32_t channels = window->channels;
    const uint32_t before = x >= 0 ? 0u : (uint32_t)-x < columns ? (uint32_t)-x : columns;
    const int32_t end = window->input_w - x; /* columns from here on lie behind the edge */
    const uint32_t upto = end <= (int32_t)before ? before : (uint32_t)end < columns ? (uint32_t)end : columns;
    to = fill_bytes(to, fill, before * channels);
    to = copy_bytes(to, row + (uint32_t)(x + (int32_t)before) * channels, (upto - before) * channels);
    return fill_bytes(to, fill, (columns - upto) * channels);
}

static int8_t *copy_dilated_row(const nn_window *window, const int8_t *row, int32_t x, uint32_t columns, int8_t fill,
                                int8_t *to) {
    for (; columns > 0u; --columns, x += window->dilation_w) {
        to = copy_row(window, row, x, 1u, fill, to);
    }
    return to;
}

void nn_copy_patch(const nn_window *window, const int8_t *image, int32_t y, int32_t x, uint32_t rows, uint32_t columns,
                   int8_t fill, int8_t *to) {
    const uint32_t image_row = (uint32_t)window->input_w * window->channels;
    for (; rows > 0u; --rows, y += window->dilation_h) {
        if (y < 0 || y >= window->input_h) {
            to = fill_bytes(to, fill, columns * window->channels);
        } else if (window->dilation_w == 1u) {
            to = copy_row(window, image + (uint32_t)y * image_row, x, columns, fill, to);
        } else {
            to = copy_dilated_row(window, image + (uint32_t)y * image_row, x, columns, fill, to);
        }
    }
}
