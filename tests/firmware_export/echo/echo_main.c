/* A small firmware for tests of boards and emulators: answers one-letter commands. */
#include "board.h"
#include "board_config.h"

const board_info board = {BOARD_NAME, BOARD_CORE, BOARD_BUILD_ID};

static uint32_t table[256];

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

/* Executes 3 + 4 * rounds instructions between its two readings, give or take those of the calls. */
static uint32_t counted_loop(uint32_t rounds) {
    uint32_t before = board_cycles();
    for (volatile uint32_t i = 0; i < rounds; i++) {
    }
    return board_cycles() - before;
}

static void command(uint8_t letter) {
    switch (letter) {
    case 'h':
        put_u32(board_clock_hz());
        put_u32(board_stack_size());
        put_u32(board_stack_used());
        put_u32(board_uart_overruns());
        put_text(board.name);
        put_text(board.core);
        put_text(board.build_id);
        put_text(board_cycle_unit());
        break;
    case 'c':
        put_u32(counted_loop(1000u));
        put_u32(counted_loop(2000u));
        break;
    case 'f':
        *(volatile uint32_t *)(uintptr_t)0xFFFFFFF0u = 1u;
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
            table[bytes[i]]++;
            if (bytes[i] >= 'a' && bytes[i] <= 'z') {
                command(bytes[i]);
            } else {
                board_uart_write(&bytes[i], 1u);
            }
        }
    }
}
