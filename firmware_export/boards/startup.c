/* Start-up of every Cortex-M board: vectors, stack painting, variables, FPU. A fault becomes a reset, which the host sees:
 * a board that was reset has lost its session. */
#include "board_config.h"
#include "cortex_m.h"

#define STACK_PAINT 0xA5C35A3Cu /* stm32_board.c looks for it */

extern uint32_t stack_bottom[], stack_top[], data_load[], data_start[], data_end[], bss_start[], bss_end[]; /* linker script */

/* Reserves the stack; a section of its own, so that a linker that runs out of RAM says so. */
__attribute__((section(".bss.stack"), aligned(8), used)) static uint8_t stack[BOARD_STACK_BYTES];

int main(void);
void reset_handler(void);
void uart_interrupt(void);

/* Without a stack of its own: the fault may be that there is none left. Repeated, as a write can be lost while the bus is
 * held; ends with the reset. SCB_AIRCR = AIRCR_RESET. */
__attribute__((naked)) static void reset(void) {
    __asm__ volatile(".syntax unified\n"
                     "    ldr r0, =0xE000ED0C\n"
                     "    ldr r1, =0x05FA0004\n"
                     "1:  dsb\n"
                     "    isb\n"
                     "    str r1, [r0]\n"
                     "    b 1b\n"
                     "    .pool\n");
}

typedef void (*vector)(void);

__attribute__((section(".vectors"), used)) static const struct {
    uint32_t *stack;
    vector handlers[15 + BOARD_UART_IRQ + 1];
} vectors = {
    stack_top,
    {
        [0] = reset_handler, [1 ... 14 + BOARD_UART_IRQ] = reset,
        [15 + BOARD_UART_IRQ] = uart_interrupt,
    },
};

/* volatile: no loop here may become a call of memset, whose frame would lie in what is being painted. */
static inline void fill(volatile uint32_t *from, const volatile uint32_t *to, uint32_t value) {
    while (from < to) {
        *from++ = value;
    }
}

void reset_handler(void) {
    uint32_t *stack_pointer;
    __asm__ volatile("mov %0, sp" : "=r"(stack_pointer));
    fill(stack_bottom, stack_pointer, STACK_PAINT);
    const volatile uint32_t *load = data_load;
    for (volatile uint32_t *word = data_start; word < data_end;) {
        *word++ = *load++;
    }
    fill(bss_start, bss_end, 0u);
    SCB_VTOR = (uint32_t)(uintptr_t)&vectors;
#if BOARD_HAS_FPU
    SCB_CPACR |= 0xFu << 20; /* CP10, CP11: full access */
#endif
    barrier();
    main();
    reset();
}
