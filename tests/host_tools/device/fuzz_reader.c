/* Frames over a line with faults into the C reader. Usage: fuzz_reader FRAMES SEED. Prints what happened; exit code 1
 * when a frame was accepted that nobody sent. The sanitizers watch every access. */
#include "frame.h"
#include "random_bytes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KINDS 8u
#define HISTORY 10u
/* Two frames of the longest kind, and 16 bytes more from each of up to 4 faults. */
#define ROOM (2u * NN_FRAME_WIRE(NN_FRAME_MAX + 64u) + 64u)

typedef struct {
    uint8_t body[NN_FRAME_MAX + 64];
    size_t size;
} sent_frame;

static size_t make_frame(sent_frame *frame, uint8_t *wire, size_t room) {
    nn_frame_writer writer;
    /* Some are longer than a reader may hold. */
    frame->size = random_below(16) ? NN_FRAME_MIN + random_below(120) : NN_FRAME_MIN + random_below(NN_FRAME_MAX + 50u);
    random_fill(frame->body, frame->size);
    frame->body[0] |= 1u; /* no type is 0, and PROTOCOL.md says why */
    nn_frame_begin(&writer, wire, room, frame->body[0], nn_load_u32(frame->body + 1), nn_load_u32(frame->body + 5));
    nn_frame_put(&writer, frame->body + NN_FRAME_HEADER, frame->size - NN_FRAME_MIN);
    return nn_frame_end(&writer);
}

static size_t insert(uint8_t *wire, size_t size, size_t at, size_t count, int fill) {
    memmove(wire + at + count, wire + at, size - at);
    for (size_t i = 0; i < count; i++) {
        wire[at + i] = fill < 0 ? (uint8_t)random_u32() : (uint8_t)fill;
    }
    return size + count;
}

static size_t damage(uint8_t *wire, size_t size, uint32_t kind) {
    size_t at = random_below((uint32_t)size), count = 1u + random_below(16);
    size_t within = at + count < size ? count : size - at;
    uint8_t byte = wire[at];
    switch (kind) {
    case 0: wire[at] = (uint8_t)(byte ^ (1u << random_below(8))); return size;
    case 1: memmove(wire + at, wire + at + within, size - at - within); return size - within;
    case 2: return insert(wire, size, at, 1, byte);
    case 3: return insert(wire, size, at, count, -1);
    case 4: wire[at] = wire[size - 1 - at], wire[size - 1 - at] = byte; return size;
    case 5: random_fill(wire + at, within); return size;
    case 6: return at + 1;
    default: return insert(wire, size, at, count, 0);
    }
}

static int sent_before(const nn_frame_reader *reader, const sent_frame *sent) {
    for (size_t i = 0; i < HISTORY; i++) {
        if (reader->size == sent[i].size && memcmp(reader->body, sent[i].body, sent[i].size - 4) == 0) {
            return 1;
        }
    }
    return 0;
}

int main(int count, char **arguments) {
    unsigned long frames = count > 1 ? strtoul(arguments[1], NULL, 10) : 1000, accepted = 0, damaged = 0, wrong = 0;
    uint8_t *wire = malloc(ROOM);
    nn_frame_reader *reader = calloc(1, sizeof *reader);
    static sent_frame sent[HISTORY]; /* some earlier ones as well: a later 00 may complete one that lost its own */
    random_state = count > 2 ? (uint32_t)strtoul(arguments[2], NULL, 10) : 1u;
    for (unsigned long i = 0; i < frames; i += 2) {
        memmove(&sent[2], &sent[0], (HISTORY - 2u) * sizeof sent[0]);
        size_t size = make_frame(&sent[0], wire, ROOM);
        size += make_frame(&sent[1], wire + size, ROOM - size);
        for (uint32_t fault = random_below(5); fault > 0 && size > 1; fault--) {
            size = damage(wire, size, random_below(KINDS));
        }
        for (size_t k = 0; k < size; k++) {
            nn_frame_event event = nn_frame_read(reader, wire[k]);
            damaged += event == NN_FRAME_DAMAGED;
            if (event == NN_FRAME_COMPLETE) {
                accepted++;
                wrong += !sent_before(reader, sent);
            }
        }
    }
    printf("accepted %lu damaged %lu wrong %lu\n", accepted, damaged, wrong);
    free(reader);
    free(wire);
    return wrong != 0;
}
