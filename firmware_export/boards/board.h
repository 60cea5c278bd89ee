/* What every board gives the firmware. One board.c per folder implements it; `host` does so with a socket. */
#ifndef BOARD_H
#define BOARD_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
    const char *name;     /* the folder's name */
    const char *core;     /* "cortex-m4", "host", ... */
    const char *build_id; /* first 16 hexadecimal digits of the SHA-256 over the sources of the image */
} board_info;

extern const board_info board;

/* Clock, pins, UART, cycle counter; every wait in it is bounded. Interrupts are on when it returns. */
void board_init(void);

/* The clock that really runs, in Hz (a crystal that does not start leaves the internal oscillator). */
uint32_t board_clock_hz(void);

/* Received bytes, oldest first; 0 when there are none. With wait != 0 it may sleep until an interrupt first. */
size_t board_uart_read(uint8_t *data, size_t capacity, int wait);

/* Sends all bytes; a wait that outlasts its bound drops the rest, the host then asks again. */
void board_uart_write(const uint8_t *data, size_t size);

/* Bytes lost because the ring or the UART was full, since reset. */
uint32_t board_uart_overruns(void);

/* What board_cycles counts: "cycles" (DWT, timer) or "none". */
const char *board_cycle_unit(void);

/* A free-running counter, modulo 2^32. */
uint32_t board_cycles(void);

/* Bytes of stack used at most since reset (painted at start), and bytes reserved; 0 where the board cannot know. */
uint32_t board_stack_used(void);
uint32_t board_stack_size(void);

#endif
