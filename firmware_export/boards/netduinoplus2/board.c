/* Netduino Plus 2: 25 MHz crystal; USART2 on D3 (PA2, transmit) and D2 (PA3, receive). */
#include "board_config.h"
#include "stm32f4.h"

stm32_clocks stm32_start(void) { return stm32f4_start(BOARD_CRYSTAL_HZ, 0u); }
