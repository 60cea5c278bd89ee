#ifndef NN_PARTS_H
#define NN_PARTS_H

#include <stdarg.h>
#include <stdint.h>

/* A tensor of `blocks` blocks; each block is a row of `count` pieces, one from each part, sizes[part] bytes long. */
typedef struct {
    uint32_t blocks;
    uint32_t block_size; /* bytes: the sum of sizes */
    const uint32_t *sizes;
    uint32_t count;
} nn_parts;

/* One part, dense, into or out of its place in the whole tensor; place: bytes of the parts before it in a block. */
void nn_part_in(const nn_parts *parts, uint32_t part, uint32_t place, const int8_t *input, int8_t *whole);
void nn_part_out(const nn_parts *parts, uint32_t part, uint32_t place, const int8_t *whole, int8_t *output);

/* arguments: every part, then the whole tensor; all int8_t *, dense, apart. */
void nn_join(const nn_parts *parts, va_list arguments);

#endif
