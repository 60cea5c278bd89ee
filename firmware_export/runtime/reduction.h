#ifndef NN_REDUCTION_H
#define NN_REDUCTION_H

#include <stdint.h>

/* Axes that stay and axes that go take turns, so that six dimensions have three of each. */
#define NN_REDUCTION_AXES 3

typedef struct {
    uint32_t size;
    uint32_t step; /* elements */
} nn_axis;

/* Outermost first; axes that are not there have size 1. */
typedef struct {
    nn_axis kept[NN_REDUCTION_AXES];
    nn_axis reduced[NN_REDUCTION_AXES];
} nn_reduction;

/* Computes one output from the elements that `reduced` reaches from input. */
typedef int8_t (*nn_reduce_one)(const void *params, const nn_axis *reduced, const int8_t *input);

/* Calls `one` for every output, in order. */
void nn_reduce(const nn_reduction *shape, nn_reduce_one one, const void *params, const int8_t *input, int8_t *output);

#endif
