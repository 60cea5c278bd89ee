/* Copies of image pieces, a word at a time at any address. */
#ifndef NN_PATCH_H
#define NN_PATCH_H

#include "lanes.h"
#include "window.h"

static inline void nn_store_word(int8_t *to, uint32_t word) { __builtin_memcpy(to, &word, sizeof word); }

static inline int8_t *nn_copy_bytes(int8_t *to, const int8_t *from, uint32_t count) {
    for (; count >= 4u; count -= 4u, to += 4, from += 4) {
        nn_store_word(to, nn_load_word(from));
    }
    for (; count > 0u; --count) {
        *to++ = *from++;
    }
    return to;
}

static inline int8_t *nn_fill_bytes(int8_t *to, int8_t value, uint32_t count) {
    const uint32_t word = 0x01010101u * (uint8_t)value;
    for (; count >= 4u; count -= 4u, to += 4) {
        nn_store_word(to, word);
    }
    for (; count > 0u; --count) {
        *to++ = value;
    }
    return to;
}

/* Rows y..y + rows - 1, columns x..x + columns - 1 of an image int8 [window->input_h, window->input_w, window->channels];
 * fill where they do not lie on it. */
static inline void nn_copy_patch(const nn_window *window, const int8_t *image, int32_t y, int32_t x, uint32_t rows,
                                 uint32_t columns, int8_t fill, int8_t *to) {
    const uint32_t channels = window->channels;
    const uint32_t before = x >= 0 ? 0u : (uint32_t)-x < columns ? (uint32_t)-x : columns;
    const int32_t end = window->input_w - x; /* columns from here on lie behind the edge */
    const uint32_t upto = end <= (int32_t)before ? before : (uint32_t)end < columns ? (uint32_t)end : columns;
    for (; rows > 0u; --rows, ++y) {
        if (y < 0 || y >= window->input_h) {
            to = nn_fill_bytes(to, fill, columns * channels);
            continue;
        }
        const int8_t *from = image + ((uint32_t)y * window->input_w + (uint32_t)(x + (int32_t)before)) * channels;
        to = nn_fill_bytes(to, fill, before * channels);
        to = nn_copy_bytes(to, from, (upto - before) * channels);
        to = nn_fill_bytes(to, fill, (columns - upto) * channels);
    }
}

#endif
