/* NUCLEO-G071RB (RM0444): no crystal fitted, 64 MHz from the internal 16 MHz over the PLL; USART2 on PA2 and PA3 is the
 * ST-LINK's virtual COM port. */
#include "board_config.h"
#include "stm32.h"

#define RCC_CR 0x40021000u
#define RCC_CFGR 0x40021008u
#define RCC_PLLCFGR 0x4002100Cu
#define RCC_IOPENR 0x40021034u
#define RCC_APBENR1 0x4002103Cu
#define FLASH_ACR 0x40022000u
#define GPIOA 0x50000000u

#define CR_PLLON (1u << 24)
#define CR_PLLRDY (1u << 25)

#define HSI_HZ 16000000u

/* 16 MHz / M = 1, times N = 8, / R = 2. */
static int start_pll(void) {
    REGISTER(RCC_PLLCFGR) = 2u | (0u << 4) | (8u << 8) | (1u << 28) | (1u << 29);
    set_bits(RCC_CR, CR_PLLON);
    if (!wait_until(RCC_CR, CR_PLLRDY, CR_PLLRDY)) {
        return 0;
    }
    set_field(FLASH_ACR, 0x307u, 0x302u); /* 2 wait states, instruction cache, prefetch: before the clock rises */
    if (!wait_until(FLASH_ACR, 7u, 2u)) {
        return 0;
    }
    set_field(RCC_CFGR, 7u, 2u);
    return wait_until(RCC_CFGR, 0x38u, 0x10u);
}

stm32_clocks stm32_start(void) {
    stm32_clocks clocks = {BOARD_CLOCK_HZ, BOARD_CLOCK_HZ};
    if (!start_pll()) {
        set_field(RCC_CFGR, 7u, 0u);
        (void)wait_until(RCC_CFGR, 0x38u, 0u);
        clocks.core_hz = clocks.uart_hz = HSI_HZ;
    }
    set_bits(RCC_IOPENR, 1u);               /* GPIOA */
    set_bits(RCC_APBENR1, (1u << 17) | 1u); /* USART2, TIM2 */
    (void)REGISTER(RCC_APBENR1);
    gpio_alternate(GPIOA, 2u, 1u);
    gpio_alternate(GPIOA, 3u, 1u);
    return clocks;
}
