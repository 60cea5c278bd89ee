/* What a board.c of an STM32 board gives to stm32_board.c, and pins for the families that share the GPIO of RM0090, RM0390,
 * RM0444 and RM0433 (all but STM32F1). */
#ifndef STM32_H
#define STM32_H

#include "cortex_m.h"

typedef struct {
    uint32_t core_hz; /* of the CPU and, on cores without DWT, of TIM2 */
    uint32_t uart_hz; /* of the UART's baud rate generator */
} stm32_clocks;

/* Clock tree, pins, clocks of UART and TIM2; in board.c. Whatever does not start leaves the internal oscillator. */
stm32_clocks stm32_start(void);

/* The interrupt of the UART, in stm32_board.c; the vector table refers to it. */
void uart_interrupt(void);

/* Makes a pin (0 to 15) an alternate function with pull-up and high speed. port: base address of its GPIO. */
static inline void gpio_alternate(uintptr_t port, uint32_t pin, uint32_t function) {
    uint32_t two = 2u * pin;
    uintptr_t afr = port + 0x20u + 4u * (pin / 8u);
    uint32_t four = 4u * (pin % 8u);
    set_field(port + 0x0Cu, 3u << two, 1u << two);    /* PUPDR: a line without a cable is idle, not noise */
    set_field(port + 0x08u, 3u << two, 2u << two);    /* OSPEEDR */
    set_field(afr, 0xFu << four, function << four);   /* AFRL, AFRH */
    set_field(port + 0x00u, 3u << two, 2u << two);    /* MODER, last: the pin never drives the wrong function */
}

#endif
