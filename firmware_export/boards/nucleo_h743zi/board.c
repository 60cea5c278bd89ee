/* NUCLEO-H743ZI (RM0433): 8 MHz clock signal from the ST-LINK, 400 MHz at voltage scale 1 (every silicon revision); USART3
 * on PD8 and PD9 is the virtual COM port. Both caches are on: no DMA here, so memory and caches never disagree. */
#include "board_config.h"
#include "stm32.h"

#define RCC_CR 0x58024400u
#define RCC_CFGR 0x58024410u
#define RCC_D1CFGR 0x58024418u
#define RCC_D2CFGR 0x5802441Cu
#define RCC_D3CFGR 0x58024420u
#define RCC_PLLCKSELR 0x58024428u
#define RCC_PLLCFGR 0x5802442Cu
#define RCC_PLL1DIVR 0x58024430u
#define RCC_AHB4ENR 0x580244E0u
#define RCC_APB1LENR 0x580244E8u
#define PWR_CSR1 0x58024804u
#define PWR_CR3 0x5802480Cu
#define PWR_D3CR 0x58024818u
#define FLASH_ACR 0x52002000u
#define GPIOD 0x58020C00u

#define CR_HSEON (1u << 16)
#define CR_HSERDY (1u << 17)
#define CR_HSEBYP (1u << 18)
#define CR_PLL1ON (1u << 24)
#define CR_PLL1RDY (1u << 25)
#define VOS_READY (1u << 13)

#define HSI_HZ 64000000u

/* The regulator alone feeds the core (CR3 takes one write after power-on), then scale 1 for 400 MHz. */
static int raise_voltage(void) {
    set_field(PWR_CR3, 7u, 2u);
    if (!wait_until(PWR_CSR1, VOS_READY, VOS_READY)) {
        return 0;
    }
    set_field(PWR_D3CR, 3u << 14, 3u << 14);
    return wait_until(PWR_D3CR, VOS_READY, VOS_READY);
}

/* 8 MHz / M = 2, times N = 200 (VCO 800 MHz), / P = 2. */
static int start_pll(void) {
    set_bits(RCC_CR, CR_HSEBYP); /* only while HSE is off */
    set_bits(RCC_CR, CR_HSEON);
    if (!wait_until(RCC_CR, CR_HSERDY, CR_HSERDY)) {
        return 0;
    }
    set_field(RCC_PLLCKSELR, 0x3F3u, (2u << 4) | 2u);
    set_field(RCC_PLLCFGR, 0x7000Fu, (1u << 16) | (2u << 2)); /* output P only, input 4 to 8 MHz, wide VCO */
    REGISTER(RCC_PLL1DIVR) = (200u - 1u) | ((2u - 1u) << 9) | ((2u - 1u) << 16) | ((2u - 1u) << 24);
    set_bits(RCC_CR, CR_PLL1ON);
    return wait_until(RCC_CR, CR_PLL1RDY, CR_PLL1RDY);
}

/* Core 400 MHz, buses 200 MHz, peripherals 100 MHz; flash slowed down before the clock rises. */
static int switch_to_pll(void) {
    set_field(FLASH_ACR, 0x3Fu, 0x22u);
    if (!wait_until(FLASH_ACR, 0x3Fu, 0x22u)) {
        return 0;
    }
    REGISTER(RCC_D1CFGR) = 8u | (4u << 4);
    REGISTER(RCC_D2CFGR) = (4u << 4) | (4u << 8);
    REGISTER(RCC_D3CFGR) = 4u << 4;
    set_field(RCC_CFGR, 7u, 3u);
    return wait_until(RCC_CFGR, 0x38u, 0x18u);
}

static void stay_internal(void) {
    set_field(RCC_CFGR, 7u, 0u);
    (void)wait_until(RCC_CFGR, 0x38u, 0u);
    REGISTER(RCC_D1CFGR) = 0u;
    REGISTER(RCC_D2CFGR) = 0u;
    REGISTER(RCC_D3CFGR) = 0u;
}

/* ARMv7-M manual B2.2.7: invalidate by set and way, as the contents are unknown after reset, then enable. */
static void enable_caches(void) {
    SCB_CSSELR = 0u; /* level 1 data cache */
    barrier();
    uint32_t sets = (SCB_CCSIDR >> 13) & 0x7FFFu;
    uint32_t ways = (SCB_CCSIDR >> 3) & 0x3FFu;
    for (uint32_t set = 0; set <= sets; set++) {
        for (uint32_t way = 0; way <= ways; way++) {
            SCB_DCISW = (way << 30) | (set << 5); /* 4 ways, lines of 32 bytes: Cortex-M7 manual 4.3 */
        }
    }
    SCB_ICIALLU = 0u;
    barrier();
    SCB_CCR |= (1u << 17) | (1u << 16);
    barrier();
}

stm32_clocks stm32_start(void) {
    stm32_clocks clocks = {BOARD_CLOCK_HZ, BOARD_CLOCK_HZ / 4u};
    enable_caches();
    if (!raise_voltage() || !start_pll() || !switch_to_pll()) {
        stay_internal();
        clocks.core_hz = clocks.uart_hz = HSI_HZ;
    }
    set_bits(RCC_AHB4ENR, 1u << 3);          /* GPIOD */
    set_bits(RCC_APB1LENR, (1u << 18) | 1u); /* USART3, TIM2 */
    (void)REGISTER(RCC_APB1LENR);
    gpio_alternate(GPIOD, 8u, 7u);
    gpio_alternate(GPIOD, 9u, 7u);
    return clocks;
}
