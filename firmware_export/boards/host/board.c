/* The firmware as a process of this computer: its serial port is standard input and output (a socket or pipes).
 * Same code as on a part, so the sanitizers see all of it. The process ends when the other side closes the line. */
#define _POSIX_C_SOURCE 200809L

#include "../board.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

void board_init(void) { (void)signal(SIGPIPE, SIG_IGN); }

uint32_t board_clock_hz(void) { return 0; }

static int readable(int wait) {
    struct pollfd line = {STDIN_FILENO, POLLIN, 0};
    return poll(&line, 1, wait ? -1 : 0) > 0;
}

size_t board_uart_read(uint8_t *data, size_t capacity, int wait) {
    ssize_t count;
    if (!readable(wait)) {
        return 0;
    }
    count = read(STDIN_FILENO, data, capacity);
    if (count == 0 || (count < 0 && errno != EINTR && errno != EAGAIN)) {
        exit(0); /* the host has gone: so does the board */
    }
    return count < 0 ? 0 : (size_t)count;
}

void board_uart_write(const uint8_t *data, size_t size) {
    while (size > 0) {
        ssize_t count = write(STDOUT_FILENO, data, size);
        if (count < 0 && errno == EINTR) {
            continue;
        }
        if (count < 0) {
            exit(0);
        }
        data += count;
        size -= (size_t)count;
    }
}

uint32_t board_uart_overruns(void) { return 0; }

const char *board_cycle_unit(void) { return "none"; }

uint32_t board_cycles(void) { return 0; }

uint32_t board_stack_used(void) { return 0; }

uint32_t board_stack_size(void) { return 0; }
