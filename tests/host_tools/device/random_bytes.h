/* A small repeatable random generator for the fuzz programs (xorshift32, Marsaglia 2003). */
#ifndef RANDOM_BYTES_H
#define RANDOM_BYTES_H

#include <stddef.h>
#include <stdint.h>

static uint32_t random_state = 1;

static uint32_t random_u32(void) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 17;
    random_state ^= random_state << 5;
    return random_state;
}

static uint32_t random_below(uint32_t limit) { return random_u32() % limit; }

/* Bytes as requests have them: many zeros, long runs, or anything. */
static void random_fill(uint8_t *data, size_t size) {
    uint32_t style = random_below(4);
    for (size_t i = 0; i < size; i++) {
        uint32_t value = random_u32() >> 11;
        data[i] = (uint8_t)(style == 0 ? value : style == 1 ? value | 1u : style == 2 ? (value & 0x700u ? 0u : value) : style);
    }
}

#endif
