/* A small firmware for tests of boards and emulators: lower-case letters are commands, every other byte comes back. */
#include "board.h"
#include "board_config.h"

const board_info board = {BOARD_NAME, BOARD_CORE, BOARD_BUILD_ID};

static volatile uint32_t initialised = 0x12345678u;
static volatile uint32_t zeroed[16];
static volatile uint8_t activations[64] __attribute__((aligned(16), section(".bss.activations")));

static void put_u32(uint32_t value) {
    uint8_t bytes[4] = {(uint8_t)value, (uint8_t)(value >> 8), (uint8_t)(value >> 16), (uint8_t)(value >> 24)};
    board_uart_write(bytes, sizeof bytes);
}

static void put_text(const char *text) {
    size_t size = 0;
    while (text[size] != '\0') {
        size++;
    }
    board_uart_write((const uint8_t *)text, size + 1u);
}

static uint32_t counted_loop(uint32_t rounds) {
    uint32_t before = board_cycles();
    for (volatile uint32_t i = 0; i < rounds; i++) {
    }
    return board_cycles() - before;
}

static void describe(void) {
    put_u32(board_clock_hz());
    put_u32(board_stack_size());
    put_u32(board_stack_used());
    put_u32(board_uart_overruns());
    put_text(board.name);
    put_text(board.core);
    put_text(board.build_id);
    put_text(board_cycle_unit());
}

/* What start-up made of the variables; changed afterwards, so that a reset shows whether it does it again. */
static void variables(void) {
    uint32_t sum = 0;
    for (uint32_t i = 0; i < 16u; i++) {
        sum += zeroed[i];
        zeroed[i] = i + 1u;
    }
    put_u32(initialised);
    put_u32(sum);
    put_u32((uint32_t)((uintptr_t)activations & 15u));
    initialised = 0u;
    activations[0]++;
}

/* Recursion that no compiler can turn into a loop. */
__attribute__((noinline)) static uint32_t deeper(uint32_t depth) {
    volatile uint8_t frame[256];
    frame[0] = (uint8_t)depth;
    return depth == 0u ? frame[0] : deeper(depth - 1u) + frame[0];
}

static void arithmetic(void) {
    volatile uint64_t large = 0x123456789ABCDEF0u;
    volatile uint32_t divisor = 1000003u;
    volatile float real = 2.5f;
    put_u32((uint32_t)(large / divisor));
    put_u32((uint32_t)(large % divisor));
    put_u32((uint32_t)(real * 4.0f));
}

/* Sends "quiet" or "more": whether a read that does not wait finds something. */
static void look(void) {
    uint8_t byte;
    put_text(board_uart_read(&byte, 1u, 0) == 0u ? "quiet" : "more");
}

static void command(uint8_t letter) {
    switch (letter) {
    case 'a':
        arithmetic();
        break;
    case 'b':
        put_u32(counted_loop(20000000u));
        break;
    case 'c':
        put_u32(counted_loop(1000u));
        put_u32(counted_loop(2000u));
        break;
    case 'd':
        variables();
        break;
    case 'f':
        *(volatile uint32_t *)(uintptr_t)0xFFFFFFF0u = 1u;
        break;
    case 'h':
        describe();
        break;
    case 'l':
        look();
        break;
    case 'o':
        put_u32(deeper(1000000u));
        break;
    default:
        break;
    }
}

int main(void) {
    board_init();
    for (;;) {
        uint8_t bytes[64];
        size_t size = board_uart_read(bytes, sizeof bytes, 1);
        for (size_t i = 0; i < size; i++) {
            if (bytes[i] >= 'a' && bytes[i] <= 'z') {
                command(bytes[i]);
            } else {
                board_uart_write(&bytes[i], 1u);
            }
        }
    }
}
