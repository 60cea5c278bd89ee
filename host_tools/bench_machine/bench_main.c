/* The program of `bench`: one inference on a bare Cortex-M, its input in flash, its output and stack use left in memory.
 * Whoever runs it counts instructions between bench_begin and bench_end, and may say the output through semihosting.
 */
#include <stdint.h>

#include "bench_input.h"
#include "network_config.h"

#define BENCH(section_name) __attribute__((noinline, section(section_name)))
#define PAINT 0xA5C35A3Cu

extern uint32_t data_source[], data_begin[], data_end[], bss_begin[], bss_end[], stack_bottom[], stack_top[];

void reset_handler(void);
void bench_begin(void);
void bench_end(void);
void bench_done(void);

__attribute__((aligned(16))) uint8_t bench_activations[NETWORK_ACTIVATIONS_SIZE];
volatile uint32_t bench_stack_used;
volatile uint32_t bench_status;

BENCH(".bench") void bench_begin(void) { __asm__ volatile("" ::: "memory"); }
BENCH(".bench") void bench_end(void) { __asm__ volatile("" ::: "memory"); }

/* SYS_WRITE0 or SYS_EXIT, for an emulator that was started with semihosting. */
BENCH(".bench") static void semihosting(uint32_t operation, uint32_t argument) {
    register uint32_t r0 __asm__("r0") = operation;
    register uint32_t r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
}

BENCH(".bench") static void say(const volatile void *from, uint32_t size) {
    const volatile uint8_t *bytes = from;
    for (uint32_t i = 0; i < size; ++i) {
        char text[3];
        for (uint32_t half = 0; half < 2u; ++half) {
            const uint32_t nibble = half == 0u ? bytes[i] >> 4 : bytes[i] & 15u;
            text[half] = (char)(nibble < 10u ? (uint32_t)'0' + nibble : (uint32_t)'a' + nibble - 10u);
        }
        text[2] = 0;
        semihosting(0x04u, (uint32_t)(uintptr_t)text);
    }
    semihosting(0x04u, (uint32_t)(uintptr_t) "\n");
}

/* An emulator without semihosting stops here. */
BENCH(".bench") void bench_done(void) {
    say(&bench_status, 4u);
    say(&bench_stack_used, 4u);
    for (uint32_t i = 0; i < NETWORK.output_count; ++i) {
        say(bench_activations + NETWORK.outputs[i].offset, NETWORK.outputs[i].size);
    }
    semihosting(0x18u, 0x20026u);
    for (;;) {
    }
}

BENCH(".bench") static void copy_input(void) {
    const uint8_t *from = bench_input;
    for (uint32_t i = 0; i < NETWORK.input_count; ++i) {
        volatile uint8_t *to = bench_activations + NETWORK.inputs[i].offset;
        for (uint32_t byte = 0; byte < NETWORK.inputs[i].size; ++byte) {
            *to++ = *from++;
        }
    }
}

BENCH(".bench") static uint32_t stack_pointer(void) {
    uint32_t value;
    __asm__ volatile("mov %0, sp" : "=r"(value));
    return value;
}

BENCH(".bench") static uint32_t painted(void) {
    const volatile uint32_t *word = stack_bottom;
    while (*word == PAINT) {
        ++word;
    }
    return (uint32_t)(uintptr_t)word;
}

BENCH(".bench") static void bench(void) {
    copy_input();
    const uint32_t top = stack_pointer();
    for (volatile uint32_t *word = stack_bottom; (uint32_t)(uintptr_t)word < top; ++word) {
        *word = PAINT;
    }
    bench_begin();
    bench_status = (uint32_t)NETWORK.run(bench_activations);
    bench_end();
    bench_stack_used = top - painted();
    bench_done();
}

BENCH(".bench") void reset_handler(void) {
    volatile uint32_t *from = data_source;
    for (volatile uint32_t *to = data_begin; to < data_end; ++to) {
        *to = *from++;
    }
    for (volatile uint32_t *to = bss_begin; to < bss_end; ++to) {
        *to = 0u;
    }
#if defined __ARM_FP || defined __ARM_FEATURE_MVE
    *(volatile uint32_t *)0xE000ED88u |= 0xFu << 20; /* CPACR: the coprocessor is off after reset */
    __asm__ volatile("dsb\n isb" ::: "memory");
#endif
    bench();
}

__attribute__((section(".vectors"), used)) static const void *const vectors[16] = {
    stack_top,           (const void *)reset_handler, (const void *)bench_done, (const void *)bench_done,
    (const void *)bench_done, (const void *)bench_done,    (const void *)bench_done,
};
