/* The inner steps of the fast fully connected kernels: one int8 vector times packed weights, four outputs at a time.
 * The arithmetic is that of step_r256.h. firmware_export/packing/fully_connected_r256.py makes the packed weights.
 */
#ifndef NN_STEP_R256_VECTOR_H
#define NN_STEP_R256_VECTOR_H

#include <stdint.h>

#define NN_R256_OUTPUTS 4u
/* Elements of the vector in one step, and words of their expanded form: A, B, A, B. */
#define NN_R256_VECTOR_ELEMENTS 8u
#define NN_R256_VECTOR_WORDS 4u

/* One vector and the outputs to compute.
 * x: expanded, steps * NN_R256_VECTOR_WORDS words, aligned to 4; for the direct steps the int8 vector itself.
 * weights: one record for every four outputs: start[4], steps x word[2][4], factor[4], for the signed forms negative[4].
 * end: where the last record to compute ends.
 */
typedef struct {
    const void *x;
    uint32_t steps;
    int8_t *output;
    const uint32_t *end;
    int32_t rounding;
    const uint32_t *weights;
} nn_r256_vector;

/* The vector as A and B words; behind its end come zeros up to the next step. */
void nn_r256_vector_expand(const int8_t *x, uint32_t depth, uint32_t *expanded);

/* All outputs of the records, requantized by packing/requantize_forms.py's linear or signed form with the shift of the name. */
void nn_r256_vector_linear_8(const nn_r256_vector *vector);
void nn_r256_vector_linear_12(const nn_r256_vector *vector);
void nn_r256_vector_signed_8(const nn_r256_vector *vector);
void nn_r256_vector_signed_12(const nn_r256_vector *vector);
/* The same without expanding the vector first: no scratch, more instructions. */
void nn_r256_vector_direct_linear_8(const nn_r256_vector *vector);
void nn_r256_vector_direct_linear_12(const nn_r256_vector *vector);
void nn_r256_vector_direct_signed_8(const nn_r256_vector *vector);
void nn_r256_vector_direct_signed_12(const nn_r256_vector *vector);
/* Not requantized: output is an int32 array of 256 times the sums; records without factors. */
void nn_r256_vector_sums(const nn_r256_vector *vector);

#endif
