/* What the export writes beside a generated network; here for the fake one, so that main.c is the real one. */
#include "fake_network.h"

#define NETWORK fake_network
#define NETWORK_ACTIVATIONS_SIZE FAKE_ACTIVATIONS_SIZE
