/* NUCLEO-F103RB (RM0008): 8 MHz clock signal from the ST-LINK, times 9; USART2 on PA2 and PA3 is its virtual COM port. */
#include "board_config.h"
#include "stm32.h"

#define RCC_CR 0x40021000u
#define RCC_CFGR 0x40021004u
#define RCC_APB2ENR 0x40021018u
#define RCC_APB1ENR 0x4002101Cu
#define FLASH_ACR 0x40022000u
#define GPIOA_CRL 0x40010800u
#define GPIOA_ODR 0x4001080Cu

#define CR_HSEON (1u << 16)
#define CR_HSERDY (1u << 17)
#define CR_HSEBYP (1u << 18)
#define CR_PLLON (1u << 24)
#define CR_PLLRDY (1u << 25)
#define CFGR_PLL ((BOARD_CLOCK_HZ / BOARD_CRYSTAL_HZ - 2u) << 18 | 1u << 16) /* PLLMUL, source HSE */
#define CFGR_APB1_HALF (4u << 8)

#define HSI_HZ 8000000u

/* 72 MHz; APB1, and with it the UART, at most 36 MHz. */
static int start_pll(void) {
    set_bits(RCC_CR, CR_HSEBYP); /* only while HSE is off */
    set_bits(RCC_CR, CR_HSEON);
    if (!wait_until(RCC_CR, CR_HSERDY, CR_HSERDY)) {
        return 0;
    }
    REGISTER(RCC_CFGR) = CFGR_PLL | CFGR_APB1_HALF;
    set_bits(RCC_CR, CR_PLLON);
    if (!wait_until(RCC_CR, CR_PLLRDY, CR_PLLRDY)) {
        return 0;
    }
    REGISTER(FLASH_ACR) = 0x12u; /* 2 wait states, prefetch: before the clock rises */
    set_field(RCC_CFGR, 3u, 2u);
    return wait_until(RCC_CFGR, 0xCu, 0x8u);
}

stm32_clocks stm32_start(void) {
    stm32_clocks clocks = {BOARD_CLOCK_HZ, BOARD_CLOCK_HZ / 2u};
    if (!start_pll()) {
        set_field(RCC_CFGR, 0x703u, 0u);
        (void)wait_until(RCC_CFGR, 0xCu, 0u);
        clocks.core_hz = clocks.uart_hz = HSI_HZ;
    }
    set_bits(RCC_APB2ENR, (1u << 2) | 1u);  /* GPIOA, alternate functions */
    set_bits(RCC_APB1ENR, (1u << 17) | 1u); /* USART2, TIM2 */
    (void)REGISTER(RCC_APB1ENR);
    set_bits(GPIOA_ODR, 1u << 3);             /* PA3 pulled up: a line without a cable is idle */
    set_field(GPIOA_CRL, 0xFF00u, 0x8B00u);   /* PA2 push-pull alternate function, PA3 input with pull */
    return clocks;
}
