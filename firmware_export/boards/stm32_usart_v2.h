/* The USART of STM32G0 and H7: RDR, TDR, status ISR cleared through ICR (RM0444 chapter 33, RM0433 chapter 48). */
#ifndef STM32_USART_V2_H
#define STM32_USART_V2_H

#include "cortex_m.h"

#define USART_CR1 (BOARD_UART_BASE + 0x00u)
#define USART_BRR (BOARD_UART_BASE + 0x0Cu)
#define USART_ISR (BOARD_UART_BASE + 0x1Cu)
#define USART_ICR (BOARD_UART_BASE + 0x20u)
#define USART_RDR (BOARD_UART_BASE + 0x24u)
#define USART_TDR (BOARD_UART_BASE + 0x28u)

#define ISR_ORE (1u << 3)
#define ISR_RXNE (1u << 5)
#define ISR_TXE (1u << 7)
#define CR1_ENABLE ((1u << 3) | (1u << 2) | (1u << 0)) /* TE, RE, UE */
#define CR1_RXNEIE (1u << 5)

static inline void usart_start(uint32_t divider) {
    REGISTER(USART_BRR) = divider;
    REGISTER(USART_CR1) = CR1_ENABLE;
}

static inline void usart_receive_interrupt(int on) { REGISTER(USART_CR1) = on ? CR1_ENABLE | CR1_RXNEIE : CR1_ENABLE; }

/* Takes a byte when there is one; counts a lost one and clears its flag, which would else raise the interrupt for ever. */
static inline int usart_receive(uint8_t *byte, uint32_t *overruns) {
    uint32_t status = REGISTER(USART_ISR);
    if ((status & ISR_ORE) != 0u) {
        REGISTER(USART_ICR) = ISR_ORE;
        *overruns += 1u;
    }
    if ((status & ISR_RXNE) == 0u) {
        return 0;
    }
    *byte = (uint8_t)REGISTER(USART_RDR);
    return 1;
}

static inline int usart_wait_to_send(void) { return wait_until(USART_ISR, ISR_TXE, ISR_TXE); }

static inline void usart_send(uint8_t byte) { REGISTER(USART_TDR) = byte; }

#endif
