/* Counts executed Thumb instructions: unicorn calls count_block at the start of every basic block. In C, because a Python
 * function here would make the emulation 30 times slower. An instruction whose condition fails (in an IT block) counts, as it
 * does in qemu: the core spends its cycle. */
#include <stdint.h>

typedef struct {
    uint64_t executed; /* instructions of all blocks begun */
    uint64_t limit;    /* no block begins when `executed` has reached it */
    uint64_t unknown;  /* blocks outside the flash image: not counted */
    uint64_t origin;   /* address of the image */
    uint64_t size;     /* bytes of the image */
    const uint16_t *code;
    uint32_t *counted; /* for the block at each halfword: bytes << 16 | instructions; 0 when not seen yet */
    int (*stop)(void *engine);
} block_counter;

void count_block(void *engine, uint64_t address, uint32_t size, void *context);

/* An instruction whose first halfword starts with 11101, 11110 or 11111 has a second one (ARMv7-M manual A5.1). */
static uint32_t instructions(const uint16_t *code, uint32_t halfwords) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < halfwords; count++) {
        i += (code[i] >> 11) >= 0x1Du ? 2u : 1u;
    }
    return count;
}

/* The engine has not begun the block when it is stopped here: it calls again for it when it goes on. */
void count_block(void *engine, uint64_t address, uint32_t size, void *context) {
    block_counter *counter = context;
    if (counter->executed >= counter->limit) {
        (void)counter->stop(engine);
        return;
    }
    uint64_t offset = address - counter->origin;
    if (address < counter->origin || offset + size > counter->size || size > 0xFFFFu) {
        counter->unknown++;
        return;
    }
    uint32_t *known = &counter->counted[offset / 2u];
    if (*known >> 16 != size) {
        *known = size << 16 | instructions(&counter->code[offset / 2u], size / 2u);
    }
    counter->executed += *known & 0xFFFFu;
}
