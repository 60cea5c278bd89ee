/* What all Cortex-M cores share: register access, bounded waits, system control block. Addresses: ARMv6-M, ARMv7-M
 * Architecture Reference Manuals, "System Control Space". */
#ifndef CORTEX_M_H
#define CORTEX_M_H

#include <stdint.h>

#define REGISTER(address) (*(volatile uint32_t *)(uintptr_t)(address))

#define NVIC_ISER(n) REGISTER(0xE000E100u + 4u * (n))
#define SCB_VTOR REGISTER(0xE000ED08u)
#define SCB_AIRCR REGISTER(0xE000ED0Cu)
#define SCB_CCR REGISTER(0xE000ED14u)
#define SCB_CCSIDR REGISTER(0xE000ED80u)
#define SCB_CSSELR REGISTER(0xE000ED84u)
#define SCB_CPACR REGISTER(0xE000ED88u)
#define SCB_ICIALLU REGISTER(0xE000EF50u)
#define SCB_DCISW REGISTER(0xE000EF60u)
#define SCB_DEMCR REGISTER(0xE000EDFCu)
#define DWT_CTRL REGISTER(0xE0001000u)
#define DWT_CYCCNT REGISTER(0xE0001004u)
#define DWT_LAR REGISTER(0xE0001FB0u)

#define AIRCR_RESET 0x05FA0004u /* VECTKEY and SYSRESETREQ */

/* Times a ready flag is read before it is given up: some 10 ms at 16 MHz, longer than any crystal here needs. */
#define WAIT_LIMIT 20000u

/* Waits until (register & mask) == value, not longer than WAIT_LIMIT reads. Returns whether it came. */
static inline int wait_until(uintptr_t address, uint32_t mask, uint32_t value) {
    for (uint32_t i = 0; i < WAIT_LIMIT; i++) {
        if ((REGISTER(address) & mask) == value) {
            return 1;
        }
    }
    return 0;
}

static inline void set_bits(uintptr_t address, uint32_t bits) { REGISTER(address) |= bits; }

static inline void set_field(uintptr_t address, uint32_t mask, uint32_t value) {
    REGISTER(address) = (REGISTER(address) & ~mask) | value;
}

static inline void barrier(void) { __asm__ volatile("dsb\n\tisb" ::: "memory"); }

/* Masks interrupts; gives what interrupts_restore wants back. */
static inline uint32_t interrupts_mask(void) {
    uint32_t before;
    __asm__ volatile("mrs %0, primask\n\tcpsid i" : "=r"(before)::"memory");
    return before;
}

static inline void interrupts_restore(uint32_t before) { __asm__ volatile("msr primask, %0" ::"r"(before) : "memory"); }

static inline void interrupts_enable(void) { __asm__ volatile("cpsie i" ::: "memory"); }

static inline void wait_for_interrupt(void) { __asm__ volatile("dsb\n\twfi" ::: "memory"); }

#endif
