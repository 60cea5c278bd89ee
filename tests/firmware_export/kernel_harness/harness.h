/* What a generated program of kernel calls and its surroundings say to each other. */
#ifndef HARNESS_H
#define HARNESS_H

#include <stdint.h>

/* Runs every case and ends in finish. */
void run_cases(void);

/* failed: number of failed cases; failures: wrong or touched bytes of each of count cases. */
void finish(uint32_t failed, const volatile uint32_t *failures, uint32_t count);

/* Called around every kernel; the emulators count instructions between two calls. */
void marker(void);

#endif
