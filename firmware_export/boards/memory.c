/* The four functions that a freestanding compiler may call on its own. Compiled with -fno-builtin, else the loops become
 * calls of themselves. */
#include <stddef.h>
#include <stdint.h>

void *memcpy(void *restrict destination, const void *restrict source, size_t size);
void *memmove(void *destination, const void *source, size_t size);
void *memset(void *destination, int value, size_t size);
int memcmp(const void *first, const void *second, size_t size);

typedef uint32_t __attribute__((may_alias)) word;

static int words_aligned(const void *a, const void *b) { return (((uintptr_t)a | (uintptr_t)b) & 3u) == 0u; }

/* Four words at a time are read before any is written: memmove allows `to` anywhere before `from`. */
static void copy_up(uint8_t *to, const uint8_t *from, size_t size) {
    if (words_aligned(to, from)) {
        for (; size >= 16u; size -= 16u, to += 16, from += 16) {
            const word *read = (const word *)(const void *)from;
            const word a = read[0], b = read[1], c = read[2], d = read[3];
            word *write = (word *)(void *)to;
            write[0] = a;
            write[1] = b;
            write[2] = c;
            write[3] = d;
        }
        for (; size >= 4u; size -= 4u, to += 4, from += 4) {
            *(word *)(void *)to = *(const word *)(const void *)from;
        }
    }
    while (size-- != 0u) {
        *to++ = *from++;
    }
}

void *memcpy(void *restrict destination, const void *restrict source, size_t size) {
    copy_up(destination, source, size);
    return destination;
}

void *memmove(void *destination, const void *source, size_t size) {
    uint8_t *to = destination;
    const uint8_t *from = source;
    if ((uintptr_t)to - (uintptr_t)from >= size) { /* also when `to` lies before `from` */
        copy_up(to, from, size);
        return destination;
    }
    while (size-- != 0u) {
        to[size] = from[size];
    }
    return destination;
}

void *memset(void *destination, int value, size_t size) {
    uint8_t *to = destination;
    uint8_t byte = (uint8_t)value;
    for (; size != 0u && ((uintptr_t)to & 3u) != 0u; size--) {
        *to++ = byte;
    }
    for (; size >= 4u; size -= 4u, to += 4) {
        *(word *)(void *)to = 0x01010101u * byte;
    }
    while (size-- != 0u) {
        *to++ = byte;
    }
    return destination;
}

int memcmp(const void *first, const void *second, size_t size) {
    const uint8_t *a = first, *b = second;
    for (; size != 0u; size--, a++, b++) {
        if (*a != *b) {
            return (int)*a - (int)*b;
        }
    }
    return 0;
}
