/* Elements by tables of indexes, one for each axis, int8: mirrored borders and repeated pixels. */
#include "gather.h"

static uint32_t offset_of(const nn_gather *gather, const uint32_t *place) {
    const uint16_t *indexes = gather->indexes;
    uint32_t offset = 0;
    for (uint32_t axis = 0; axis < gather->rank; ++axis) {
        offset += indexes[place[axis]] * gather->axes[axis].step;
        indexes += gather->axes[axis].size;
    }
    return offset;
}

/* Moves on to the next element of the output; 0 after the last one. */
static int next_place(const nn_gather *gather, uint32_t *place) {
    for (uint32_t axis = gather->rank; axis-- > 0;) {
        if (++place[axis] < gather->axes[axis].size) {
            return 1;
        }
        place[axis] = 0;
    }
    return 0;
}

void nn_gather_run(const nn_gather *gather, const int8_t *input, int8_t *output) {
    uint32_t place[NN_GATHER_RANK] = {0};
    do {
        __builtin_memcpy(output, input + offset_of(gather, place), gather->run);
        output += gather->run;
    } while (next_place(gather, place));
}
