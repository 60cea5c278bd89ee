/* Hostile but intact requests, and junk, into the C server. Usage: fuzz_server REQUESTS SEED. Exit code 1 when an answer
 * is not one intact frame, or when a byte outside the network's inputs was written before anything ran. */
#include "board.h"
#include "fake_network.h"
#include "random_bytes.h"
#include "server.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const board_info board = {"a board with a name longer than thirty-one characters", "fuzz", ""};

static uint8_t incoming[2 * NN_FRAME_WIRE(NN_FRAME_MAX)];
static size_t incoming_size, incoming_at;
static nn_frame_reader answers;
static unsigned long answered, broken, refused;

void board_init(void) {}
uint32_t board_clock_hz(void) { return 0; }
uint32_t board_uart_overruns(void) { return 0; }
const char *board_cycle_unit(void) { return "none"; }
uint32_t board_cycles(void) { return 0; }
uint32_t board_stack_used(void) { return 0; }
uint32_t board_stack_size(void) { return 0; }

size_t board_uart_read(uint8_t *data, size_t capacity, int wait) {
    size_t left = incoming_size - incoming_at, count = left < capacity ? left : capacity;
    (void)wait;
    memcpy(data, incoming + incoming_at, count);
    incoming_at += count;
    return count;
}

void board_uart_write(const uint8_t *data, size_t size) {
    for (size_t i = 0; i < size; i++) {
        nn_frame_event event = nn_frame_read(&answers, data[i]);
        answered += event == NN_FRAME_COMPLETE;
        broken += event == NN_FRAME_DAMAGED;
        refused += event == NN_FRAME_COMPLETE && answers.body[0] == NN_ERROR;
    }
}

static void send(uint32_t kind, uint32_t sequence, uint32_t session, const uint8_t *payload, size_t size) {
    nn_frame_writer writer;
    nn_frame_begin(&writer, incoming, sizeof incoming, (uint8_t)kind, sequence, session);
    nn_frame_put(&writer, payload, size);
    incoming_size = nn_frame_end(&writer);
    incoming_at = 0;
}

/* Sizes and offsets lie near the truth now and then, else nothing would get far. */
static void request(const nn_server *server, uint32_t sequence, uint32_t session) {
    uint8_t payload[NN_FRAME_PAYLOAD_MAX];
    uint32_t kind = random_below(12), size = random_below(3) ? random_below(14) : random_below(NN_FRAME_PAYLOAD_MAX + 1u);
    uint32_t whole = fake_network.inputs[0].size + (fake_network.input_count > 1 ? fake_network.inputs[1].size : 0u);
    random_fill(payload, size);
    if (random_below(2)) {
        uint32_t left = whole - server->input_filled + 4u;
        payload[0] = (uint8_t)server->input_filled;
        payload[1] = (uint8_t)(server->input_filled >> 8);
        payload[2] = payload[3] = 0;
        kind = 1u + random_below(NN_SELFTEST);
        size = kind > NN_RUN ? (kind == NN_TENSOR ? 8u : kind == NN_LAYERS ? 2u : 4u) : left > sizeof payload ? sizeof payload : left;
    }
    send(kind < 10 ? kind : random_u32(), sequence, session, payload, size);
    if (random_below(16) == 0) {
        random_fill(incoming, incoming_size);
    }
}

/* Whether every byte that no input covers still holds its mark. */
static int marks_stand(const uint8_t *memory) {
    for (uint32_t i = 0; i < FAKE_ACTIVATIONS_SIZE; i++) {
        const nn_tensor *a = &fake_network.inputs[0], *b = &fake_network.inputs[1];
        int covered = i - a->offset < a->size || (fake_network.input_count > 1 && i - b->offset < b->size);
        if (!covered && memory[i] != 0xC3) {
            return 0;
        }
    }
    return 1;
}

int main(int count, char **arguments) {
    unsigned long requests = count > 1 ? strtoul(arguments[1], NULL, 10) : 1000, overwritten = 0, checked = 0;
    nn_server *server = malloc(sizeof *server);
    uint8_t *memory = malloc(FAKE_ACTIVATIONS_SIZE);
    uint32_t sequence = 0, session = 0;
    random_state = count > 2 ? (uint32_t)strtoul(arguments[2], NULL, 10) : 1u;
    for (unsigned long i = 0; i < requests; i++) {
        if (i % 500 == 0) {
            fake_configure(1 + random_below(600), random_below(40), 1 + random_below(900), random_below(40), 1 + random_below(300), 0);
            memset(memory, 0xC3, FAKE_ACTIVATIONS_SIZE);
            nn_server_init(server, &fake_network, memory);
            session = 0;
        }
        if (session == 0 || random_below(50) == 0) {
            session = random_u32();
            sequence = random_u32();
            send(NN_HELLO, sequence, session, NULL, 0);
        } else {
            sequence += random_below(8) ? 1u : random_below(3) - 1u;
            request(server, sequence, session + !random_below(20));
        }
        while (incoming_at < incoming_size) {
            nn_server_poll(server);
        }
        if (i % 500 < 8 && !fake_touched()) {
            checked++;
            overwritten += !marks_stand(memory);
        }
    }
    printf("answered %lu refused %lu broken %lu overwritten %lu checked %lu runs %u\n", answered, refused, broken,
           overwritten, checked, (unsigned)fake_runs());
    free(memory);
    free(server);
    return broken != 0 || overwritten != 0;
}
