/* The firmware: one network, one server, one loop. Everything about the network comes from network_config.h, which the
 * export writes; everything about the board from board.h. */
#include "board.h"
#include "board_config.h"
#include "network_config.h"
#include "server.h"

const board_info board = {BOARD_NAME, BOARD_CORE, BOARD_BUILD_ID};

#if defined(BOARD_UART_RING)
/* The host sends a whole request before it waits: the ring must hold the longest. */
typedef char ring_holds_a_frame[BOARD_UART_RING >= NN_FRAME_WIRE(NN_FRAME_MAX) ? 1 : -1];
#endif

/* A section of its own, so that the linker script can put the largest buffer into another RAM. */
static uint8_t activations[NETWORK_ACTIVATIONS_SIZE] __attribute__((aligned(16), section(".bss.activations")));

static nn_server server;

int main(void) {
    board_init();
    nn_server_init(&server, &NETWORK, activations);
    for (;;) {
        nn_server_poll(&server);
    }
}
