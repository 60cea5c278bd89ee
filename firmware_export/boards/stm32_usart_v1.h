/* The USART of STM32F1 and F4: one data register DR, status SR (RM0008 chapter 27, RM0090 chapter 30, RM0390 chapter 25). */
#ifndef STM32_USART_V1_H
#define STM32_USART_V1_H

#include "cortex_m.h"

#define USART_SR (BOARD_UART_BASE + 0x00u)
#define USART_DR (BOARD_UART_BASE + 0x04u)
#define USART_BRR (BOARD_UART_BASE + 0x08u)
#define USART_CR1 (BOARD_UART_BASE + 0x0Cu)

#define SR_ORE (1u << 3)
#define SR_RXNE (1u << 5)
#define SR_TXE (1u << 7)
#define CR1_ENABLE ((1u << 13) | (1u << 3) | (1u << 2)) /* UE, TE, RE */
#define CR1_RXNEIE (1u << 5)

static inline void usart_start(uint32_t divider) {
    REGISTER(USART_BRR) = divider;
    REGISTER(USART_CR1) = CR1_ENABLE;
}

static inline void usart_receive_interrupt(int on) { REGISTER(USART_CR1) = on ? CR1_ENABLE | CR1_RXNEIE : CR1_ENABLE; }

/* Takes a byte when there is one; counts lost ones. Reading DR after SR clears RXNE and ORE. ORE without RXNE is left when
 * a byte was lost between the two readings of the last call: what DR then holds is not new. */
static inline int usart_receive(uint8_t *byte, uint32_t *overruns) {
    uint32_t status = REGISTER(USART_SR);
    if ((status & (SR_RXNE | SR_ORE)) == 0u) {
        return 0;
    }
    *byte = (uint8_t)REGISTER(USART_DR);
    *overruns += (status & SR_ORE) != 0u;
    return (status & SR_RXNE) != 0u;
}

static inline int usart_wait_to_send(void) { return wait_until(USART_SR, SR_TXE, SR_TXE); }

static inline void usart_send(uint8_t byte) { REGISTER(USART_DR) = byte; }

#endif
