/* board.h for every STM32 board: UART with a receive ring, cycle counter, stack measure. The clock tree and the pins are
 * the board's own (stm32_start in its board.c), the UART's registers its driver's (board_config.h). */
#include "board.h"
#include "board_config.h"
#include "stm32.h"
#include BOARD_UART_DRIVER

#define TIM2_CR1 REGISTER(0x40000000u)
#define TIM2_EGR REGISTER(0x40000014u)
#define TIM2_CNT REGISTER(0x40000024u)
#define TIM2_PSC REGISTER(0x40000028u)
#define TIM2_ARR REGISTER(0x4000002Cu)

#define STACK_PAINT 0xA5C35A3Cu

extern uint32_t stack_bottom[], stack_top[]; /* linker script */

static struct {
    uint8_t bytes[BOARD_UART_RING];
    volatile uint32_t head, tail; /* counters modulo 2^32: head written by receive, tail by board_uart_read */
    volatile uint32_t overruns;
} ring;

static uint32_t clock_hz;
static volatile uint32_t *counter;
static const char *counter_unit;

static uint32_t ring_used(void) { return ring.head - ring.tail; }

/* Moves what the UART holds into the ring; interrupts are masked or this is the interrupt. A full ring stops the receive
 * interrupt, so that bytes are lost in the UART only (and counted there), never overwritten. */
static void receive(void) {
    uint32_t overruns = 0;
    uint8_t byte;
    while (ring_used() < BOARD_UART_RING && usart_receive(&byte, &overruns)) {
        ring.bytes[ring.head % BOARD_UART_RING] = byte;
        ring.head++;
    }
    ring.overruns += overruns;
    if (ring_used() == BOARD_UART_RING) {
        usart_receive_interrupt(0);
    }
}

void uart_interrupt(void) { receive(); }

/* The UART is asked directly too: the same image then runs in an emulator without interrupt controller. WFI wakes up with
 * interrupts masked, so that no byte can slip in between the look and the sleep. */
size_t board_uart_read(uint8_t *data, size_t capacity, int wait) {
    uint32_t masked = interrupts_mask();
    receive();
    if (wait && ring_used() == 0u) {
        wait_for_interrupt();
        receive();
    }
    interrupts_restore(masked);
    size_t size = 0;
    for (; size < capacity && ring_used() != 0u; size++) {
        data[size] = ring.bytes[ring.tail % BOARD_UART_RING];
        ring.tail++;
    }
    usart_receive_interrupt(1); /* there is room again */
    return size;
}

void board_uart_write(const uint8_t *data, size_t size) {
    for (size_t i = 0; i < size; i++) {
        if (!usart_wait_to_send()) {
            return;
        }
        usart_send(data[i]);
    }
}

uint32_t board_uart_overruns(void) { return ring.overruns; }

/* A loop lies between the readings: an emulator that counts whole basic blocks then sees two of them. */
static int counts(volatile const uint32_t *candidate) {
    uint32_t first = *candidate;
    for (volatile uint32_t i = 0; i < 16u; i++) {
    }
    return *candidate != first;
}

/* TIM2 runs on every board, on most slower than the core; DWT_CYCCNT counts core cycles where there is one that moves (not
 * on Cortex-M0+, whose TIM2 runs at the core's clock, nor in qemu, where it reads 0). */
static void start_counter(void) {
    TIM2_PSC = 0;
    TIM2_ARR = 0xFFFFFFFFu;
    TIM2_EGR = 1u;
    TIM2_CR1 = 1u;
    counter = &TIM2_CNT;
#if BOARD_HAS_DWT
    set_bits((uintptr_t)&SCB_DEMCR, 1u << 24); /* TRCENA */
    DWT_LAR = 0xC5ACCE55u;                     /* Cortex-M7 locks it */
    DWT_CYCCNT = 0;
    set_bits((uintptr_t)&DWT_CTRL, 1u);
    if (counts(&DWT_CYCCNT)) {
        counter = &DWT_CYCCNT;
    }
#endif
    counter_unit = counts(counter) ? "cycles" : "none";
}

void board_init(void) {
    stm32_clocks clocks = stm32_start();
    clock_hz = clocks.core_hz;
    usart_start((clocks.uart_hz + BOARD_UART_BAUD / 2u) / BOARD_UART_BAUD);
    start_counter();
    usart_receive_interrupt(1);
    NVIC_ISER(BOARD_UART_IRQ / 32u) = 1u << (BOARD_UART_IRQ % 32u);
    interrupts_enable();
}

uint32_t board_clock_hz(void) { return clock_hz; }

uint32_t board_cycles(void) { return *counter; }

const char *board_cycle_unit(void) { return counter_unit; }

uint32_t board_stack_used(void) {
    const uint32_t *word = stack_bottom;
    while (word < stack_top && *word == STACK_PAINT) {
        word++;
    }
    return (uint32_t)((uintptr_t)stack_top - (uintptr_t)word);
}

uint32_t board_stack_size(void) { return (uint32_t)((uintptr_t)stack_top - (uintptr_t)stack_bottom); }
