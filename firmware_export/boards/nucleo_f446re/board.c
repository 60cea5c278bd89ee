/* NUCLEO-F446RE: 8 MHz clock signal from the ST-LINK; USART2 is its virtual COM port. */
#include "board_config.h"
#include "stm32f4.h"

stm32_clocks stm32_start(void) { return stm32f4_start(BOARD_CRYSTAL_HZ, CR_HSEBYP); }
