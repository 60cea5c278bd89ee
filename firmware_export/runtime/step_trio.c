/* See step_trio.h. The inner steps in C: for all cores but ARMv7-M (step_trio_v7m.c) and ARMv6-M (step_trio_v6m.c). */
#include "step_trio.h"

#if !NN_V7M && !NN_V6M

uint32_t *nn_trio_expand(const nn_trio_source *source, uint32_t *x, uint32_t *sums) {
    const uint32_t step = source->step;
    const int8_t *pixel = source->pixel;
    for (uint32_t row = 0; row < source->rows; ++row, pixel += source->gap) {
        for (uint32_t byte = 0; byte < source->row_bytes; ++byte, ++pixel, x += NN_TRIO_WORDS) {
            for (uint32_t odd = 0; odd < 2u; ++odd) {
                const int8_t *trio = pixel + odd * step;
                const uint32_t middle = (uint32_t)(int32_t)trio[2u * step];
                x[2u * odd] = (uint32_t)(int32_t)trio[0] + (middle << 21);
                x[2u * odd + 1u] = (uint32_t)(int32_t)trio[4u * step] + (middle << 10);
                sums[2u * odd] += x[2u * odd];
                sums[2u * odd + 1u] += x[2u * odd + 1u];
            }
        }
    }
    return x;
}

/* One channel's words. */
static void multiply(const nn_trio_block *block, const int8_t *weights, uint32_t flip, uint32_t *words) {
    const uint32_t *x = block->x;
    __builtin_memcpy(words, block->first, sizeof block->first);
    for (uint32_t k = 0; k < block->depth; ++k, weights += 2) {
        const int32_t weight = flip == 0u ? *weights : (uint8_t)*weights;
        for (uint32_t i = 0; i < NN_TRIO_WORDS; ++i) {
            words[i] += (uint32_t)weight * *x++;
        }
    }
}

/* The value of one sum, by packing/trio_forms.py. */
static int8_t value_of(const nn_trio_block *block, const int32_t *constants, int32_t sum) {
    const int32_t scaled = (int32_t)(((uint32_t)sum << 11) + (uint32_t)constants[0]);
    int32_t value = nn_multiply_high(scaled, constants[1]);
    if (block->form == NN_TRIO_SIGNED) {
        value += block->rounding - (value < 0 ? constants[2] : 0);
    }
    return nn_saturate(value >> block->shift);
}

/* One channel of all pixels. */
static void store(nn_trio_block *block, const int32_t *constants, const uint32_t *words) {
    for (uint32_t odd = 0; odd < 2u; ++odd) {
        int32_t sums[3];
        nn_trio_sums(words[2u * odd], words[2u * odd + 1u], sums);
        for (uint32_t i = 0; i < 3u; ++i) {
            block->output[(2u * i + odd) * block->output_step] = value_of(block, constants, sums[i]);
        }
    }
    block->output += 1;
}

static void channels(nn_trio_block *block, uint32_t flip) {
    const uint32_t count = block->form == NN_TRIO_RAW ? 0u : block->form == NN_TRIO_SIGNED ? 3u : 2u;
    const int8_t *record = (const int8_t *)block->weights;
    while (record < (const int8_t *)block->limit) {
        const int8_t *constants = record + 2u * block->depth;
        for (uint32_t channel = 0; channel < 2u && constants != (const int8_t *)block->limit; ++channel) {
            uint32_t words[NN_TRIO_WORDS];
            multiply(block, record + channel, flip, words);
            if (count == 0u) {
                __builtin_memcpy(block->output, words, sizeof words);
                block->output += sizeof words;
            } else {
                store(block, (const int32_t *)(const void *)constants, words);
            }
            constants += count * sizeof(int32_t);
        }
        record = constants;
    }
}

void nn_trio_channels(nn_trio_block *block) { channels(block, 0u); }

void nn_trio_channels_flipped(nn_trio_block *block) { channels(block, 0x80u); }

#endif
