/* What a generated program of kernel calls and its surroundings say to each other. */
#ifndef HARNESS_H
#define HARNESS_H

#include <stdint.h>

/* Runs every case and ends in finish(number of failed cases). */
void run_cases(void);

void finish(uint32_t failed);

/* Called around every kernel; the emulators count instructions between two calls. */
void marker(void);

#endif
