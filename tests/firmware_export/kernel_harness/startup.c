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

/* SYS_EXIT: "application exit" is success for the emulator's own exit status, anything else a failure. */
__attribute__((noinline)) void finish(uint32_t failed) {
    semihosting(0x18u, failed == 0u ? 0x20026u : 0x20023u);
    for (;;) {
    }
}

__attribute__((noinline)) void marker(void) { __asm__ volatile("" ::: "memory"); }

static void fault(void) { finish(1u); }

void reset_handler(void) {
    uint32_t *from = data_source;
    for (uint32_t *to = data_begin; to < data_end; ++to) {
        *to = *from++;
    }
    for (uint32_t *to = bss_begin; to < bss_end; ++to) {
        *to = 0u;
    }
#ifdef __ARM_FP
    *(volatile uint32_t *)0xE000ED88u |= 0xFu << 20; /* CPACR: the FPU is off after reset */
#endif
    run_cases();
}

__attribute__((section(".vectors"), used)) static const void *const vectors[16] = {
    stack_top, (const void *)reset_handler, (const void *)fault, (const void *)fault,
    (const void *)fault, (const void *)fault, (const void *)fault};
