/* STM32F405 and F446: 168 MHz from an external clock over the PLL (RM0090, RM0390: chapters RCC, FLASH, GPIO). */
#ifndef STM32F4_H
#define STM32F4_H

#include "stm32.h"

#define RCC_CR 0x40023800u
#define RCC_PLLCFGR 0x40023804u
#define RCC_CFGR 0x40023808u
#define RCC_AHB1ENR 0x40023830u
#define RCC_APB1ENR 0x40023840u
#define FLASH_ACR 0x40023C00u
#define GPIOA 0x40020000u

#define CR_HSEON (1u << 16)
#define CR_HSERDY (1u << 17)
#define CR_HSEBYP (1u << 18)
#define CR_PLLON (1u << 24)
#define CR_PLLRDY (1u << 25)

#define PLL_DIVIDE_2 (0u << 16)
#define PLL_FROM_HSE (1u << 22)
#define PLL_RESERVED (2u << 28) /* reset value; PLLR of the F446 must not be 0 */

#define HSI_HZ 16000000u

/* The PLL: crystal / M = 1 MHz, times N = 336, / P = 2 gives 168 MHz; / Q = 7 gives 48 MHz, which must not be exceeded. */
static inline int stm32f4_pll(uint32_t crystal_hz, uint32_t bypass) {
    set_bits(RCC_CR, bypass); /* only while HSE is off */
    set_bits(RCC_CR, CR_HSEON);
    if (!wait_until(RCC_CR, CR_HSERDY, CR_HSERDY)) {
        return 0;
    }
    REGISTER(RCC_PLLCFGR) = (crystal_hz / 1000000u) | (336u << 6) | PLL_DIVIDE_2 | PLL_FROM_HSE | (7u << 24) | PLL_RESERVED;
    set_bits(RCC_CR, CR_PLLON);
    if (!wait_until(RCC_CR, CR_PLLRDY, CR_PLLRDY)) {
        return 0;
    }
    REGISTER(FLASH_ACR) = 0x705u; /* 5 wait states, both caches, prefetch: before the clock rises */
    if (!wait_until(FLASH_ACR, 0xFu, 5u)) {
        return 0;
    }
    set_field(RCC_CFGR, 0xFCF3u, (5u << 10) | (4u << 13) | 2u); /* APB1 / 4, APB2 / 2, PLL */
    return wait_until(RCC_CFGR, 0xCu, 0x8u);
}

/* Back to the internal oscillator, undivided, whatever state a failed start left. */
static inline void stm32f4_internal(void) {
    set_field(RCC_CFGR, 0xFCF3u, 0u);
    (void)wait_until(RCC_CFGR, 0xCu, 0u);
}

/* USART2 on PA2 and PA3, TIM2. bypass: CR_HSEBYP for a clock signal instead of a crystal, else 0. */
static inline stm32_clocks stm32f4_start(uint32_t crystal_hz, uint32_t bypass) {
    stm32_clocks clocks = {168000000u, 42000000u};
    if (!stm32f4_pll(crystal_hz, bypass)) {
        stm32f4_internal();
        clocks.core_hz = clocks.uart_hz = HSI_HZ;
    }
    set_bits(RCC_AHB1ENR, 1u);                /* GPIOA */
    set_bits(RCC_APB1ENR, (1u << 17) | 1u);   /* USART2, TIM2 */
    (void)REGISTER(RCC_APB1ENR);              /* the clock is there two cycles later */
    gpio_alternate(GPIOA, 2u, 7u);
    gpio_alternate(GPIOA, 3u, 7u);
    return clocks;
}

#endif
