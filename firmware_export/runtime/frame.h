/* Frames of the serial link: 00 | COBS(type u8, sequence u32, session u32, payload, CRC-32) | 00, little-endian.
 *
 * The reader decodes in place as bytes arrive and never holds more than NN_FRAME_MAX of them; the writer encodes as it
 * is filled, so that what it leaves in its buffer can be sent again as it is. host_tools/PROTOCOL.md has the whole story.
 */
#ifndef NN_FRAME_H
#define NN_FRAME_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Bytes of the longest frame before COBS: header, payload and CRC-32. The reader and the cached answer cost this each. */
#ifndef NN_FRAME_MAX
#define NN_FRAME_MAX 512
#endif
#define NN_FRAME_HEADER 9u
/* Shorter ones are refused: the CRC-32 of nothing is 0, so a run of zeros would be a frame. */
#define NN_FRAME_MIN (NN_FRAME_HEADER + 4u)
#define NN_FRAME_PAYLOAD_MAX (NN_FRAME_MAX - NN_FRAME_MIN)
/* The same on the wire: one COBS code per 254 bytes begun, and the two delimiters. */
#define NN_FRAME_WIRE(body) ((body) + (body) / 254u + 3u)

/* CRC-32 (IEEE 802.3, as zlib's) of more bytes; start with 0. */
uint32_t nn_crc32(uint32_t crc, const void *data, size_t size);

uint16_t nn_load_u16(const uint8_t *data);
uint32_t nn_load_u32(const uint8_t *data);

typedef enum { NN_FRAME_PENDING = 0, NN_FRAME_COMPLETE = 1, NN_FRAME_DAMAGED = 2 } nn_frame_event;

/* All zero is its first state. */
typedef struct {
    uint8_t body[NN_FRAME_MAX]; /* after NN_FRAME_COMPLETE: type, sequence, session, payload, CRC-32 */
    uint16_t size;              /* bytes of body, CRC-32 included */
    uint8_t code;               /* COBS code of the current block; 0 between frames */
    uint8_t left;               /* bytes of the block still to come */
    uint8_t overlong;
} nn_frame_reader;

/* Takes one byte from the wire. A complete frame stays in `body` until the next byte that is not 00. */
nn_frame_event nn_frame_read(nn_frame_reader *reader, uint8_t byte);

typedef struct {
    uint8_t *wire;
    size_t capacity;
    size_t size;    /* bytes in wire, or 0 after an overflow */
    size_t code_at; /* where the code of the open block goes */
    uint32_t crc;
    uint8_t code;
    uint8_t overflow;
} nn_frame_writer;

/* Starts a frame in a buffer of `capacity` >= NN_FRAME_WIRE(body) bytes. */
void nn_frame_begin(nn_frame_writer *writer, uint8_t *wire, size_t capacity, uint8_t type, uint32_t sequence, uint32_t session);
void nn_frame_put(nn_frame_writer *writer, const void *data, size_t size);
void nn_frame_put_u8(nn_frame_writer *writer, uint8_t value);
void nn_frame_put_u16(nn_frame_writer *writer, uint16_t value);
void nn_frame_put_u32(nn_frame_writer *writer, uint32_t value);
/* Ends it with its CRC-32 and 00. Returns the bytes on the wire, or 0 when they did not fit. */
size_t nn_frame_end(nn_frame_writer *writer);

#ifdef __cplusplus
}
#endif

#endif
