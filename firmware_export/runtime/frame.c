/* Frames of the serial link: CRC-32, COBS decoding byte by byte, COBS encoding as the payload is put. */
#include "frame.h"

/* One entry per nibble, computed by the compiler from the polynomial: 64 bytes of flash. */
#define STEP(c) (((c) >> 1) ^ (((c) & 1u) ? 0xEDB88320u : 0u))
#define ENTRY(i) STEP(STEP(STEP(STEP((uint32_t)(i)))))

static const uint32_t crc_table[16] = {ENTRY(0),  ENTRY(1),  ENTRY(2),  ENTRY(3), ENTRY(4),  ENTRY(5),
                                       ENTRY(6),  ENTRY(7),  ENTRY(8),  ENTRY(9), ENTRY(10), ENTRY(11),
                                       ENTRY(12), ENTRY(13), ENTRY(14), ENTRY(15)};

uint32_t nn_crc32(uint32_t crc, const void *data, size_t size) {
    const uint8_t *bytes = data;
    crc = ~crc;
    for (size_t i = 0; i < size; i++) {
        crc ^= bytes[i];
        crc = (crc >> 4) ^ crc_table[crc & 15u];
        crc = (crc >> 4) ^ crc_table[crc & 15u];
    }
    return ~crc;
}

uint16_t nn_load_u16(const uint8_t *data) { return (uint16_t)(data[0] | (uint16_t)(data[1] << 8)); }

uint32_t nn_load_u32(const uint8_t *data) { return nn_load_u16(data) | ((uint32_t)nn_load_u16(data + 2) << 16); }

static void append(nn_frame_reader *reader, uint8_t byte) {
    if (reader->size < NN_FRAME_MAX) {
        reader->body[reader->size++] = byte;
    } else {
        reader->overlong = 1; /* skip to the next 00 */
    }
}

static int intact(const nn_frame_reader *reader) {
    if (reader->overlong || reader->left != 0 || reader->size < NN_FRAME_MIN) {
        return 0;
    }
    size_t covered = reader->size - 4u;
    return nn_crc32(0, reader->body, covered) == nn_load_u32(reader->body + covered);
}

static nn_frame_event end_of_frame(nn_frame_reader *reader) {
    if (reader->code == 0) {
        return NN_FRAME_PENDING; /* 00 after 00 */
    }
    nn_frame_event event = intact(reader) ? NN_FRAME_COMPLETE : NN_FRAME_DAMAGED;
    reader->code = 0;
    reader->left = 0;
    return event;
}

static void start_block(nn_frame_reader *reader, uint8_t code) {
    if (reader->code == 0) {
        reader->size = 0;
        reader->overlong = 0;
    } else if (reader->code != 0xFFu) {
        append(reader, 0); /* the zero that the last block stood for */
    }
    reader->code = code;
    reader->left = (uint8_t)(code - 1u);
}

nn_frame_event nn_frame_read(nn_frame_reader *reader, uint8_t byte) {
    if (byte == 0) {
        return end_of_frame(reader);
    }
    if (reader->left == 0) {
        start_block(reader, byte);
    } else {
        append(reader, byte);
        reader->left--;
    }
    return NN_FRAME_PENDING;
}

static void emit(nn_frame_writer *writer, uint8_t byte) {
    if (writer->size < writer->capacity) {
        writer->wire[writer->size++] = byte;
    } else {
        writer->overflow = 1;
    }
}

static void open_block(nn_frame_writer *writer) {
    writer->code_at = writer->size;
    writer->code = 1;
    emit(writer, 1);
}

static void close_block(nn_frame_writer *writer) {
    if (!writer->overflow) {
        writer->wire[writer->code_at] = writer->code;
    }
}

static void stuff(nn_frame_writer *writer, uint8_t byte) {
    if (writer->code == 0xFFu) { /* a full block stands for no zero; the next one opens only when there is more */
        close_block(writer);
        open_block(writer);
    }
    if (byte == 0) {
        close_block(writer);
        open_block(writer);
    } else {
        emit(writer, byte);
        writer->code++;
    }
}

void nn_frame_begin(nn_frame_writer *writer, uint8_t *wire, size_t capacity, uint8_t type, uint32_t sequence, uint32_t session) {
    writer->wire = wire;
    writer->capacity = capacity;
    writer->size = 0;
    writer->crc = 0;
    writer->overflow = 0;
    emit(writer, 0);
    open_block(writer);
    nn_frame_put_u8(writer, type);
    nn_frame_put_u32(writer, sequence);
    nn_frame_put_u32(writer, session);
}

void nn_frame_put(nn_frame_writer *writer, const void *data, size_t size) {
    const uint8_t *bytes = data;
    writer->crc = nn_crc32(writer->crc, data, size);
    for (size_t i = 0; i < size; i++) {
        stuff(writer, bytes[i]);
    }
}

void nn_frame_put_u8(nn_frame_writer *writer, uint8_t value) { nn_frame_put(writer, &value, 1); }

void nn_frame_put_u16(nn_frame_writer *writer, uint16_t value) {
    const uint8_t bytes[2] = {(uint8_t)value, (uint8_t)(value >> 8)};
    nn_frame_put(writer, bytes, sizeof bytes);
}

void nn_frame_put_u32(nn_frame_writer *writer, uint32_t value) {
    const uint8_t bytes[4] = {(uint8_t)value, (uint8_t)(value >> 8), (uint8_t)(value >> 16), (uint8_t)(value >> 24)};
    nn_frame_put(writer, bytes, sizeof bytes);
}

size_t nn_frame_end(nn_frame_writer *writer) {
    nn_frame_put_u32(writer, writer->crc);
    close_block(writer);
    emit(writer, 0);
    if (writer->overflow) {
        writer->size = 0;
    }
    return writer->size;
}
