/* The inner step of the fully connected layers for cores without DSP extension: one vector times eight outputs at a time.
 *
 * The vector is used as u = x + 128, the weights as w + 128, so that all bytes are unsigned; T = sum(u w) of an output is the
 * sum of the products less 128 sum(u), which the sums start from. Weights: uint8 [depth][8] for eight outputs.
 *
 * ARMv7-M multiplies four outputs at once: the word of their weights w0..w3 times u gives W0 + 2^8 W1 + 2^16 W2 + 2^24 W3,
 * and what is left of the word when it is turned by 16 bits and its inner bytes are gone, W2 + 2^24 W1. Each T is within 24
 * bits, so that T2 and T1 come out of the latter, and with them T0 and T3 out of the former: two multiplications for four
 * products.
 */
#ifndef NN_STEP_OCTET_H
#define NN_STEP_OCTET_H

#include <stdint.h>

#include "lanes.h"

#define NN_OCTET_OUTPUTS 8u
/* Bytes of scratch for each element of the vector. */
#if NN_V6M
#define NN_OCTET_BYTES 4u
#else
#define NN_OCTET_BYTES 1u
#endif

/* Puts x + 128 to u, which takes NN_OCTET_BYTES for each element; gives their sum. */
uint32_t nn_octet_expand(const int8_t *x, uint32_t depth, void *u);

/* T of eight outputs. total: sum of u. */
void nn_octet_sums(const void *u, const uint8_t *weights, uint32_t depth, uint32_t total, int32_t *sums);

#endif
