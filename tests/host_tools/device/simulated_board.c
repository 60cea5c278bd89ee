/* The real server on a board that is a pair of byte queues, for calls from Python; time does not pass in it. */
#include <string.h>

#include "board.h"
#include "fake_network.h"
#include "server.h"

const board_info board = {"simulated", "a core with a name longer than thirty-one letters", "0123456789abcdef"};

static nn_server server;
static uint8_t activations[FAKE_ACTIVATIONS_SIZE] __attribute__((aligned(16)));
static const uint8_t *incoming;
static size_t incoming_left;
static uint8_t *outgoing;
static size_t outgoing_size, outgoing_room;
static uint32_t clock_cycles, counts_cycles;

void board_init(void) {}
uint32_t board_clock_hz(void) { return 72000000u; }
uint32_t board_uart_overruns(void) { return 7; }
const char *board_cycle_unit(void) { return counts_cycles ? "cycles" : "none"; }
uint32_t board_cycles(void) { return clock_cycles += 1234u; }
uint32_t board_stack_used(void) { return 600; }
uint32_t board_stack_size(void) { return 2048; }

size_t board_uart_read(uint8_t *data, size_t capacity, int wait) {
    size_t count = incoming_left < capacity ? incoming_left : capacity;
    (void)wait;
    memcpy(data, incoming, count);
    incoming += count;
    incoming_left -= count;
    return count;
}

void board_uart_write(const uint8_t *data, size_t size) {
    if (size > outgoing_room - outgoing_size) {
        size = outgoing_room - outgoing_size;
    }
    memcpy(outgoing + outgoing_size, data, size);
    outgoing_size += size;
}

/* Memory holds anything when a board starts. */
void sim_power_on(uint32_t cycles) {
    memset(&server, 0xA5, sizeof server);
    memset(activations, 0xA5, sizeof activations);
    clock_cycles = 0xFFFFFF00u; /* wraps during the first run */
    counts_cycles = cycles;
    nn_server_init(&server, &fake_network, activations);
}

/* Feeds bytes and gives what the server sends meanwhile; returns how much that is. */
size_t sim_exchange(const uint8_t *in, size_t size, uint8_t *out, size_t room) {
    incoming = in;
    incoming_left = size;
    outgoing = out;
    outgoing_size = 0;
    outgoing_room = room;
    while (incoming_left > 0) {
        nn_server_poll(&server);
    }
    return outgoing_size;
}

size_t sim_server_size(void) { return sizeof server; }
