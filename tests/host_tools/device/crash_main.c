/* A board that answers nothing and dies in a way that its first byte chooses. */
#include "board.h"

#include <stdlib.h>

const board_info board = {"crash", "host", ""};

int main(void) {
    uint8_t bytes[64];
    board_init();
    for (;;) {
        size_t count = board_uart_read(bytes, sizeof bytes, 1);
        volatile uint8_t *small = malloc(4);
        for (size_t i = 0; i < count; i++) {
            if (bytes[i] == 'o') {
                small[3 + count] = 1; /* found by the address sanitizer */
            } else if (bytes[i] == 'a') {
                abort();
            } else if (bytes[i] == 'e') {
                _Exit(3);
            }
        }
        free((void *)small);
    }
}
