/* The board's end of the serial link: answers one request at a time, never runs an image twice, owns all its buffers.
 * About 1.2 KB of RAM with NN_FRAME_MAX 512. host_tools/PROTOCOL.md says what every request means. */
#ifndef NN_SERVER_H
#define NN_SERVER_H

#include "frame.h"
#include "nn.h"

#ifdef __cplusplus
extern "C" {
#endif

#define NN_PROTOCOL_VERSION 1u

#if NN_FRAME_MAX < 256 || NN_FRAME_MAX > 4096
#error "NN_FRAME_MAX must hold a hello (256 bytes) and be one that the host takes (4096)"
#endif

/* An answer has its request's type with NN_ANSWER set. */
typedef enum {
    NN_HELLO = 1,
    NN_WRITE_INPUT = 2,
    NN_RUN = 3,
    NN_READ_OUTPUT = 4,
    NN_LAYERS = 5,
    NN_TENSOR = 6,
    NN_STATS = 7,
    NN_SELFTEST = 8,
    NN_ANSWER = 0x80,
    NN_ERROR = 0xFF
} nn_frame_type;

/* In an error frame: code u8, detail u32. */
typedef enum {
    NN_LINK_NO_SESSION = 1,       /* no hello since the last reset, or another host's hello since */
    NN_LINK_SEQUENCE = 2,         /* requests are missing; detail: the last one seen */
    NN_LINK_UNKNOWN_REQUEST = 3,  /* detail: the type */
    NN_LINK_BAD_LENGTH = 4,       /* detail: the payload's bytes */
    NN_LINK_INPUT_ORDER = 5,      /* the chunk is not the next one, or too long; detail: bytes of input so far */
    NN_LINK_INPUT_INCOMPLETE = 6, /* detail: bytes of input so far */
    NN_LINK_RUN_FAILED = 7,       /* detail: nn_status */
    NN_LINK_NO_OUTPUT = 8,        /* nothing has been run since the last input, or the offset is too large */
    NN_LINK_NO_SUCH_TENSOR = 9,   /* detail: the layer asked for */
    NN_LINK_TOO_LONG = 10         /* the answer does not fit a frame */
} nn_link_error;

/* All zero is its first state; only server.c looks inside. */
typedef struct {
    const nn_network *network;
    uint8_t *activations;
    uint32_t session;  /* chosen by the host in its hello; 0 after a reset: there is none */
    uint32_t sequence; /* of the last request that was acted on; its answer is in `wire` */
    uint32_t input_filled;
    uint32_t frames, damaged, runs, replays, stale;
    nn_frame_reader reader;
    nn_frame_writer answer;
    uint8_t outputs_valid;
    uint8_t wire[NN_FRAME_WIRE(NN_FRAME_MAX)];
} nn_server;

/* `activations`: network->activations_size bytes, aligned to NN_ALIGNMENT; they hold the input as it arrives. */
void nn_server_init(nn_server *server, const nn_network *network, void *activations);

/* Sleeps until bytes arrive, acts on them and answers. Call it for ever. */
void nn_server_poll(nn_server *server);

#ifdef __cplusplus
}
#endif

#endif
