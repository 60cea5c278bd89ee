/* Start-up of the kernel harness on an emulated Cortex-M: vectors, memory, the end of the run, the marker between counts. */
#include <stdint.h>

#include "harness.h"

extern uint32_t data_source[], data_begin[], data_end[], bss_begin[], bss_end[], stack_top[];

void reset_handler(void);

static void semihosting(uint32_t operation, uint32_t argument) {
    register uint32_t r0 __asm__("r0") = operation;
    register uint32_t r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
}

/* SYS_WRITEC: a number and a new line. */
static void print(uint32_t value) {
    for (uint32_t divisor = 1000000000u; divisor > 0u; divisor /= 10u) {
        const char digit = (char)('0' + value / divisor % 10u);
        semihosting(0x03u, (uint32_t)(uintptr_t)&digit);
    }
    const char end = '\n';
    semihosting(0x03u, (uint32_t)(uintptr_t)&end);
}

/* Prints the failures of every case, then SYS_EXIT: "application exit" is success for the emulator's own exit status,
 * anything else a failure. */
__attribute__((noinline)) void finish(uint32_t failed, const volatile uint32_t *failures, uint32_t count) {
    for (uint32_t i = 0; i < count; ++i) {
        print(failures[i]);
    }
    semihosting(0x18u, failed == 0u ? 0x20026u : 0x20023u);
    for (;;) {
    }
}

__attribute__((noinline)) void marker(void) { __asm__ volatile("" ::: "memory"); }

static void fault(void) { finish(1u, 0, 0u); }

static __attribute__((noinline)) void start(void) {
    uint32_t *from = data_source;
    for (uint32_t *to = data_begin; to < data_end; ++to) {
        *to = *from++;
    }
    for (uint32_t *to = bss_begin; to < bss_end; ++to) {
        *to = 0u;
    }
    run_cases();
}

void reset_handler(void) {
#if defined(__ARM_FP) || defined(__ARM_FEATURE_MVE)
    *(volatile uint32_t *)0xE000ED88u |= 0xFu << 20; /* CPACR: FPU and vector unit are off after reset, start() may use them */
    __asm__ volatile("dsb\n\tisb" ::: "memory");
#endif
    start();
}

__attribute__((section(".vectors"), used)) static const void *const vectors[16] = {
    stack_top, (const void *)reset_handler, (const void *)fault, (const void *)fault,
    (const void *)fault, (const void *)fault, (const void *)fault};
