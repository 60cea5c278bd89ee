/* The C codec for calls from Python: one frame in, its wire bytes out, and back. */
#include "frame.h"

#include <string.h>

size_t codec_encode(uint32_t type, uint32_t sequence, uint32_t session, const uint8_t *payload, size_t size, uint8_t *wire,
                    size_t room) {
    nn_frame_writer writer;
    nn_frame_begin(&writer, wire, room, (uint8_t)type, sequence, session);
    nn_frame_put(&writer, payload, size);
    return nn_frame_end(&writer);
}

/* Gives the body of the only frame in `wire`; 0 when there is none, SIZE_MAX when there are several. */
size_t codec_decode(const uint8_t *wire, size_t size, uint8_t *body) {
    static nn_frame_reader reader;
    size_t found = 0;
    for (size_t i = 0; i < size; i++) {
        if (nn_frame_read(&reader, wire[i]) == NN_FRAME_COMPLETE) {
            if (found != 0) {
                return SIZE_MAX;
            }
            found = reader.size;
            memcpy(body, reader.body, found);
        }
    }
    return found;
}
