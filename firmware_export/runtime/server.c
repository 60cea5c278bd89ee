/* The board's end of the serial link. Every length and offset from the line is checked before it is used. */
#include "server.h"

#include "../boards/board.h"

/* ---- Tensors of the network laid end to end ---------------------------------------------------------------------- */

static uint32_t total_size(const nn_tensor *tensors, uint8_t count) {
    uint32_t size = 0;
    for (uint8_t i = 0; i < count; i++) {
        size += tensors[i].size;
    }
    return size;
}

static uint32_t input_size(const nn_server *server) {
    return total_size(server->network->inputs, server->network->input_count);
}

static uint32_t output_size(const nn_server *server) {
    return total_size(server->network->outputs, server->network->output_count);
}

/* The byte at `position`, and how many follow it in the same tensor; NULL behind the end. */
static uint8_t *locate(const nn_server *server, const nn_tensor *tensors, uint8_t count, uint32_t position, uint32_t *follow) {
    for (uint8_t i = 0; i < count; i++) {
        if (position < tensors[i].size) {
            *follow = tensors[i].size - position;
            return server->activations + tensors[i].offset + position;
        }
        position -= tensors[i].size;
    }
    *follow = 0;
    return NULL;
}

static uint32_t tensors_crc(const nn_server *server, const nn_tensor *tensors, uint8_t count) {
    uint32_t crc = 0;
    for (uint8_t i = 0; i < count; i++) {
        crc = nn_crc32(crc, server->activations + tensors[i].offset, tensors[i].size);
    }
    return crc;
}

static uint32_t input_crc(const nn_server *server) {
    return tensors_crc(server, server->network->inputs, server->network->input_count);
}

static uint32_t smaller(uint32_t a, uint32_t b) { return a < b ? a : b; }

/* ---- Answers ------------------------------------------------------------------------------------------------------ */

static void begin(nn_server *server, uint8_t type) {
    nn_frame_begin(&server->answer, server->wire, sizeof server->wire, type, server->sequence, server->session);
}

/* Throws away what was put so far and answers with an error instead. */
static void fail(nn_server *server, nn_link_error code, uint32_t detail) {
    begin(server, NN_ERROR);
    nn_frame_put_u8(&server->answer, (uint8_t)code);
    nn_frame_put_u32(&server->answer, detail);
}

static void put_text(nn_frame_writer *answer, const char *text) {
    uint8_t length = 0;
    while (length < 31u && text[length] != '\0') {
        length++;
    }
    nn_frame_put_u8(answer, length);
    nn_frame_put(answer, text, length);
}

static void put_tensor(nn_frame_writer *answer, const nn_tensor *tensor) {
    uint32_t scale_bits;
    __builtin_memcpy(&scale_bits, &tensor->scale, sizeof scale_bits);
    nn_frame_put_u8(answer, tensor->type);
    nn_frame_put_u8(answer, tensor->rank);
    for (uint8_t axis = 0; axis < tensor->rank; axis++) {
        nn_frame_put_u16(answer, tensor->shape[axis]);
    }
    nn_frame_put_u32(answer, tensor->size);
    nn_frame_put_u32(answer, scale_bits);
    nn_frame_put_u32(answer, (uint32_t)tensor->zero_point);
}

static void put_outputs(nn_server *server, uint32_t position, uint32_t size) {
    while (size > 0) {
        uint32_t follow;
        const uint8_t *bytes = locate(server, server->network->outputs, server->network->output_count, position, &follow);
        uint32_t step = smaller(follow, size);
        if (bytes == NULL || step == 0) {
            return;
        }
        nn_frame_put(&server->answer, bytes, step);
        position += step;
        size -= step;
    }
}

/* ---- Requests ----------------------------------------------------------------------------------------------------- */

static void hello(nn_server *server, const uint8_t *payload, uint32_t size) {
    const nn_network *network = server->network;
    nn_frame_writer *answer = &server->answer;
    (void)payload, (void)size;
    nn_frame_put_u16(answer, NN_PROTOCOL_VERSION);
    nn_frame_put_u16(answer, NN_FRAME_MAX);
    nn_frame_put(answer, network->hash, NN_HASH_BYTES);
    nn_frame_put_u8(answer, network->arithmetic);
    nn_frame_put_u16(answer, network->layer_count);
    nn_frame_put_u32(answer, board_clock_hz());
    nn_frame_put_u32(answer, board_stack_size());
    put_text(answer, board.name);
    put_text(answer, board.core);
    put_text(answer, board.build_id);
    put_text(answer, board_cycle_unit());
    nn_frame_put_u8(answer, network->input_count);
    nn_frame_put_u8(answer, network->output_count);
    for (uint8_t i = 0; i < network->input_count; i++) {
        put_tensor(answer, &network->inputs[i]);
    }
    for (uint8_t i = 0; i < network->output_count; i++) {
        put_tensor(answer, &network->outputs[i]);
    }
}

static void store_input(nn_server *server, const uint8_t *data, uint32_t size) {
    while (size > 0) {
        uint32_t follow;
        uint8_t *bytes = locate(server, server->network->inputs, server->network->input_count, server->input_filled, &follow);
        uint32_t step = smaller(follow, size);
        if (bytes == NULL || step == 0) {
            return;
        }
        __builtin_memcpy(bytes, data, step);
        server->input_filled += step;
        data += step;
        size -= step;
    }
}

/* A chunk of input: offset u32, bytes. Offset 0 starts a new input; any other must follow the chunk before it. */
static int take_chunk(nn_server *server, const uint8_t *payload, uint32_t size) {
    uint32_t offset = nn_load_u32(payload);
    uint32_t bytes = size - 4u;
    if (offset == 0) {
        server->input_filled = 0;
        server->outputs_valid = 0; /* outputs may lie where the input goes */
    }
    if (offset != server->input_filled || bytes > input_size(server) - server->input_filled) {
        fail(server, NN_LINK_INPUT_ORDER, server->input_filled);
        return 0;
    }
    store_input(server, payload + 4, bytes);
    return 1;
}

/* Whether a whole input is there. Running destroys it: the buffer is shared with the layers. */
static int consume_input(nn_server *server) {
    if (server->input_filled != input_size(server)) {
        fail(server, NN_LINK_INPUT_INCOMPLETE, server->input_filled);
        return 0;
    }
    server->input_filled = 0;
    return 1;
}

static void write_input(nn_server *server, const uint8_t *payload, uint32_t size) {
    if (take_chunk(server, payload, size)) {
        nn_frame_put_u32(&server->answer, server->input_filled);
    }
}

/* Fields of a run's answer before its outputs: cycles, CRC of input, CRC of outputs, stack used, size of outputs. */
#define RUN_FIELDS 20u

static void run(nn_server *server, const uint8_t *payload, uint32_t size) {
    if (!take_chunk(server, payload, size) || !consume_input(server)) {
        return;
    }
    uint32_t seen = input_crc(server);
    uint32_t start = board_cycles();
    nn_status status = server->network->run(server->activations);
    uint32_t cycles = board_cycles() - start;
    server->runs++;
    if (status != NN_OK) {
        fail(server, NN_LINK_RUN_FAILED, (uint32_t)status);
        return;
    }
    server->outputs_valid = 1;
    nn_frame_put_u32(&server->answer, cycles);
    nn_frame_put_u32(&server->answer, seen);
    nn_frame_put_u32(&server->answer, tensors_crc(server, server->network->outputs, server->network->output_count));
    nn_frame_put_u32(&server->answer, board_stack_used());
    nn_frame_put_u32(&server->answer, output_size(server));
    put_outputs(server, 0, smaller(output_size(server), NN_FRAME_PAYLOAD_MAX - RUN_FIELDS));
}

static void read_output(nn_server *server, const uint8_t *payload, uint32_t size) {
    uint32_t offset = nn_load_u32(payload);
    (void)size;
    if (!server->outputs_valid || offset >= output_size(server)) {
        fail(server, NN_LINK_NO_OUTPUT, offset);
        return;
    }
    put_outputs(server, offset, smaller(output_size(server) - offset, NN_FRAME_PAYLOAD_MAX));
}

/* What an observer needs while the network is traced. */
typedef struct {
    nn_frame_writer *answer;
    uint32_t first, end; /* layers wanted */
    uint32_t next;       /* the layer after the last one told */
    uint32_t crc;
    uint32_t output, offset, room;
} trace_request;

/* Runs with an observer over a complete input, if there is one. */
static int trace(nn_server *server, nn_observer observer, trace_request *request) {
    if (!consume_input(server)) {
        return 0;
    }
    request->answer = &server->answer;
    nn_frame_put_u32(request->answer, input_crc(server));
    nn_status status = server->network->trace(server->activations, observer, request);
    if (status != NN_OK) {
        fail(server, NN_LINK_RUN_FAILED, (uint32_t)status);
    }
    return status == NN_OK;
}

static void tell_layer(trace_request *request) {
    if (request->next > request->first) {
        nn_frame_put_u32(request->answer, request->crc);
    }
}

/* CRC-32 of each layer's outputs, one after the other. */
static void sum_layer(void *context, uint32_t layer, uint32_t output, const void *data, uint32_t size) {
    trace_request *request = context;
    (void)output;
    if (layer < request->first || layer >= request->end) {
        return;
    }
    if (layer >= request->next) {
        tell_layer(request);
        request->crc = 0;
        request->next = layer + 1u;
    }
    request->crc = nn_crc32(request->crc, data, size);
}

static void layers(nn_server *server, const uint8_t *payload, uint32_t size) {
    trace_request request = {0};
    uint32_t room = (NN_FRAME_PAYLOAD_MAX - 4u) / 4u;
    (void)size;
    request.first = nn_load_u16(payload);
    if (request.first >= server->network->layer_count) {
        fail(server, NN_LINK_NO_SUCH_TENSOR, request.first);
        return;
    }
    request.end = request.first + smaller(room, server->network->layer_count - request.first);
    request.next = request.first;
    if (trace(server, sum_layer, &request)) {
        tell_layer(&request);
    }
}

/* Whole size u32, CRC-32 of the whole u32, then the bytes from the offset on. */
static void copy_tensor(void *context, uint32_t layer, uint32_t output, const void *data, uint32_t size) {
    trace_request *request = context;
    if (layer != request->first || output != request->output || request->offset >= size) {
        return;
    }
    nn_frame_put_u32(request->answer, size);
    nn_frame_put_u32(request->answer, nn_crc32(0, data, size));
    nn_frame_put(request->answer, (const uint8_t *)data + request->offset, smaller(size - request->offset, request->room));
    request->next = layer + 1u;
}

static void tensor(nn_server *server, const uint8_t *payload, uint32_t size) {
    trace_request request = {0};
    (void)size;
    request.first = nn_load_u16(payload);
    request.output = nn_load_u16(payload + 2);
    request.offset = nn_load_u32(payload + 4);
    request.room = NN_FRAME_PAYLOAD_MAX - 12u;
    if (trace(server, copy_tensor, &request) && request.next == 0) {
        fail(server, NN_LINK_NO_SUCH_TENSOR, request.first);
    }
}

static void stats(nn_server *server, const uint8_t *payload, uint32_t size) {
    const uint32_t figures[] = {server->frames,  server->damaged, board_uart_overruns(), server->runs,
                                server->replays, server->stale,   board_stack_used()};
    (void)payload, (void)size;
    for (size_t i = 0; i < sizeof figures / sizeof figures[0]; i++) {
        nn_frame_put_u32(&server->answer, figures[i]);
    }
}

static void selftest(nn_server *server, const uint8_t *payload, uint32_t size) {
    (void)payload, (void)size;
    server->input_filled = 0; /* it runs in the same buffer */
    server->outputs_valid = 0;
    nn_frame_put_u8(&server->answer, (uint8_t)server->network->selftest(server->activations));
}

typedef void (*request_handler)(nn_server *server, const uint8_t *payload, uint32_t size);

typedef struct {
    request_handler handler;
    uint16_t minimum, maximum; /* bytes of payload */
} request_kind;

static const request_kind kinds[] = {
    [NN_HELLO] = {hello, 0, NN_FRAME_PAYLOAD_MAX}, [NN_WRITE_INPUT] = {write_input, 5, NN_FRAME_PAYLOAD_MAX},
    [NN_RUN] = {run, 4, NN_FRAME_PAYLOAD_MAX},     [NN_READ_OUTPUT] = {read_output, 4, 4},
    [NN_LAYERS] = {layers, 2, 2},                  [NN_TENSOR] = {tensor, 8, 8},
    [NN_STATS] = {stats, 0, 0},                    [NN_SELFTEST] = {selftest, 0, 0},
};

static void act(nn_server *server, uint8_t type, const uint8_t *payload, uint32_t size) {
    if (type >= sizeof kinds / sizeof kinds[0] || kinds[type].handler == NULL) {
        fail(server, NN_LINK_UNKNOWN_REQUEST, type);
    } else if (size < kinds[type].minimum || size > kinds[type].maximum) {
        fail(server, NN_LINK_BAD_LENGTH, size);
    } else {
        begin(server, (uint8_t)(type | (uint8_t)NN_ANSWER));
        kinds[type].handler(server, payload, size);
    }
    if (nn_frame_end(&server->answer) == 0) {
        fail(server, NN_LINK_TOO_LONG, NN_FRAME_MAX);
        (void)nn_frame_end(&server->answer);
    }
}

/* ---- Sessions and sequences ---------------------------------------------------------------------------------------- */

/* An error outside the session's order of requests: the cached answer stays as it is. */
static void reject(nn_link_error code, uint32_t detail, uint32_t sequence, uint32_t session) {
    uint8_t wire[NN_FRAME_WIRE(NN_FRAME_MIN + 5u)];
    nn_frame_writer writer;
    nn_frame_begin(&writer, wire, sizeof wire, NN_ERROR, sequence, session);
    nn_frame_put_u8(&writer, (uint8_t)code);
    nn_frame_put_u32(&writer, detail);
    board_uart_write(wire, nn_frame_end(&writer));
}

static void adopt(nn_server *server, uint32_t session, uint32_t sequence) {
    server->session = session;
    server->sequence = sequence - 1u; /* so that the hello itself is next */
    server->input_filled = 0;
    server->outputs_valid = 0;
}

static void serve(nn_server *server) {
    const uint8_t *body = server->reader.body;
    uint32_t sequence = nn_load_u32(body + 1), session = nn_load_u32(body + 5);
    if (body[0] == NN_HELLO && session != 0 && session != server->session) {
        adopt(server, session, sequence);
    }
    if (session == 0 || session != server->session) {
        reject(NN_LINK_NO_SESSION, 0, sequence, session);
    } else if (sequence == server->sequence) {
        server->replays++; /* the answer was lost: send it again, do nothing twice */
        board_uart_write(server->wire, server->answer.size);
    } else if (sequence == server->sequence + 1u) {
        server->sequence = sequence;
        act(server, body[0], body + NN_FRAME_HEADER, (uint32_t)server->reader.size - NN_FRAME_MIN);
        board_uart_write(server->wire, server->answer.size);
    } else if (server->sequence - sequence < 0x80000000u) {
        server->stale++; /* answered long ago; the host is not waiting for it any more */
    } else {
        reject(NN_LINK_SEQUENCE, server->sequence, sequence, session);
    }
}

void nn_server_init(nn_server *server, const nn_network *network, void *activations) {
    __builtin_memset(server, 0, sizeof *server);
    server->network = network;
    server->activations = activations;
}

void nn_server_poll(nn_server *server) {
    uint8_t bytes[32];
    size_t count = board_uart_read(bytes, sizeof bytes, 1);
    for (size_t i = 0; i < count; i++) {
        nn_frame_event event = nn_frame_read(&server->reader, bytes[i]);
        if (event == NN_FRAME_COMPLETE) {
            server->frames++;
            serve(server);
        } else if (event == NN_FRAME_DAMAGED) {
            server->damaged++;
        }
    }
}
