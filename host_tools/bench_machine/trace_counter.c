/* Counts what unicorn executes: it calls count_block at the start of every basic block. In C, because a Python function here
 * would make the emulation 30 times slower. Counts are kept for the halfword at which a block starts. An instruction whose
 * condition fails (in an IT block) counts, as it does in qemu: the core spends its cycle. */
#include <stdint.h>

typedef struct {
    uint64_t executed;   /* instructions of all blocks begun */
    uint64_t unknown;    /* blocks outside the code, or seen with two sizes: not counted */
    uint64_t origin;     /* address of the code */
    uint64_t size;       /* bytes of the code */
    const uint16_t *code;
    uint32_t *blocks;    /* bytes << 16 | instructions of the block at each halfword; 0: not seen yet */
    uint32_t *counts;    /* how often it has begun */
    uint32_t *jumps;     /* how often what followed it was not the next address */
    uint32_t *wide;      /* of those, how often to a 32-bit instruction that is not aligned to 4 */
    const uint8_t *marks; /* 1 for each halfword at which a lap ends */
    uint64_t *laps;      /* address and `executed` at each lap */
    uint64_t lap_count;
    uint64_t lap_limit;
    uint64_t previous; /* start of the block before, as an offset, or all ones */
} trace_counter;

void count_block(void *engine, uint64_t address, uint32_t size, void *context);

/* An instruction whose first halfword starts with 11101, 11110 or 11111 has a second one (ARMv7-M manual A5.1). */
static int is_wide(uint16_t halfword) { return (halfword >> 11) >= 0x1Du; }

static uint32_t instructions(const uint16_t *code, uint32_t halfwords) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < halfwords; count++) {
        i += is_wide(code[i]) ? 2u : 1u;
    }
    return count;
}

static void count_jump(trace_counter *counter, uint64_t offset) {
    if (counter->previous == UINT64_MAX) {
        return;
    }
    const uint64_t start = counter->previous / 2u;
    if (counter->previous + (counter->blocks[start] >> 16) != offset) {
        counter->jumps[start]++;
        counter->wide[start] += is_wide(counter->code[offset / 2u]) && offset % 4u != 0u ? 1u : 0u;
    }
}

void count_block(void *engine, uint64_t address, uint32_t size, void *context) {
    trace_counter *counter = context;
    (void)engine;
    const uint64_t offset = address - counter->origin;
    if (address < counter->origin || offset + size > counter->size || size > 0xFFFFu) {
        counter->unknown++;
        counter->previous = UINT64_MAX;
        return;
    }
    uint32_t *block = &counter->blocks[offset / 2u];
    if (*block == 0u) {
        *block = size << 16 | instructions(&counter->code[offset / 2u], size / 2u);
    }
    counter->unknown += *block >> 16 != size ? 1u : 0u;
    count_jump(counter, offset);
    if (counter->marks[offset / 2u] != 0u && counter->lap_count < counter->lap_limit) {
        counter->laps[2u * counter->lap_count] = address;
        counter->laps[2u * counter->lap_count++ + 1u] = counter->executed;
    }
    counter->executed += *block & 0xFFFFu;
    counter->counts[offset / 2u]++;
    counter->previous = offset;
}
