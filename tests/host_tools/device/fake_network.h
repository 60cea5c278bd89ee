/* A "network" whose answers are easy to compute elsewhere, and wrong at once when its input, or a second run on top of
 * the first, is wrong: outputs lie over the inputs and every byte of them is destroyed. */
#ifndef FAKE_NETWORK_H
#define FAKE_NETWORK_H

#include "nn.h"

#define FAKE_ACTIVATIONS_SIZE 65536u

extern nn_network fake_network;

/* Sizes in bytes; b = 0 leaves the second tensor out. Up to 16 tensors of one byte more with `extra`. */
void fake_configure(uint32_t input_a, uint32_t input_b, uint32_t output_a, uint32_t output_b, uint32_t layers, uint32_t extra);
void fake_identify(uint8_t hash_byte, uint8_t arithmetic, uint8_t type);
void fake_fail(uint32_t run_status, uint32_t selftest_status);
uint32_t fake_runs(void);
/* Whether anything but the server wrote into the activation buffer since fake_configure. */
uint32_t fake_touched(void);

#endif
