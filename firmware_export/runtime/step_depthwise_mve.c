/* See step_depthwise_mve.h. Cores with Helium get assembly, all others the same steps in C on the same data. */
#include "step_depthwise_mve.h"

#include "lanes.h"
#include "requantize.h"
#include "step_mve.h"

#if NN_MVE

#define STORE_WORDS                                                                                                           \
    "vst40.8 {q0, q1, q2, q3}, [r1]\n"                                                                                        \
    "vst41.8 {q0, q1, q2, q3}, [r1]\n"                                                                                        \
    "vst42.8 {q0, q1, q2, q3}, [r1]\n"                                                                                        \
    "vst43.8 {q0, q1, q2, q3}, [r1]!\n"

/* r3-r6: rows, r7-r10: their steps. */
NN_NAKED void nn_strip_interleave(const nn_strip_rows *rows NN_UNUSED, int8_t *to NN_UNUSED, uint32_t count NN_UNUSED) {
    __asm__ volatile(".syntax unified\n"
                     "push {r4-r11, lr}\n"
                     "ldm r0, {r3-r10}\n"
                     "lsr r11, r2, #4\n"
                     "wls lr, r11, 2f\n"
                     "1:\n"
                     "vldrb.u8 q0, [r3]\n"
                     "add r3, r3, r7\n"
                     "vldrb.u8 q1, [r4]\n"
                     "add r4, r4, r8\n"
                     "vldrb.u8 q2, [r5]\n"
                     "add r5, r5, r9\n"
                     "vldrb.u8 q3, [r6]\n"
                     "add r6, r6, r10\n" STORE_WORDS "le lr, 1b\n"
                     "2:\n"
                     "ands r2, r2, #15\n"
                     "beq 3f\n"
                     "vctp.8 r2\n"
                     "vpstttt\n"
                     "vldrbt.u8 q0, [r3]\n"
                     "vldrbt.u8 q1, [r4]\n"
                     "vldrbt.u8 q2, [r5]\n"
                     "vldrbt.u8 q3, [r6]\n" STORE_WORDS "3:\n"
                     "pop {r4-r11, pc}\n");
}

#define PLAIN "vqrdmulh.s32 q1, q1, r10\n"
#define SIGNED                                                                                                                \
    "vqrdmulh.s32 q1, q1, r10\n"                                                                                              \
    "vshr.s32 q0, q1, #31\n"                                                                                                  \
    "vqadd.s32 q1, q1, q0\n"

#define STORE "vstrb.32 q1, [r3, q2]\n"
#define STORE_PREDICATED                                                                                                      \
    "vpst\n"                                                                                                                  \
    "vstrbt.32 q1, [r3, q2]\n"

/* q1: sums, to four bytes at r3 + q2. r0: zero point, r9: start, r10: multiplier, r11: shift. */
#define FINISH(form, store)                                                                                                   \
    "vadd.i32 q1, q1, r9\n" form                                                                                              \
    "vrshl.s32 q1, r11\n"                                                                                                     \
    "vqmovnb.s32 q1, q1\n"                                                                                                    \
    "vqadd.s16 q1, q1, r0\n"                                                                                                  \
    "vqmovnb.s16 q1, q1\n" store

/* q4-q7: weights in columns 0 to 2 or 1 to 3, rows 0 to 2 or 1 to 3; q3: gather. r1: strip, r12: bytes to its next window. */
#define TWO_COLUMNS(form)                                                                                                     \
    "vldrw.u32 q0, [r1, q3]\n"                                                                                                \
    "vmladav.s8 r2, q0, q4\n"                                                                                                 \
    "vmladav.s8 r4, q0, q5\n"                                                                                                 \
    "vmladav.s8 r6, q0, q6\n"                                                                                                 \
    "vmladav.s8 r8, q0, q7\n"                                                                                                 \
    "add r1, r1, r12\n"                                                                                                       \
    "vmov q1[2], q1[0], r2, r4\n"                                                                                             \
    "vmov q1[3], q1[1], r6, r8\n" FINISH(form, STORE)                                                                            \
    "add r3, r3, r7\n"

#define ONE_WINDOW(sum)                                                                                                       \
    "vldrw.u32 q0, [r1, q3]\n"                                                                                                \
    "vmladav.s8 " sum ", q0, q4\n"                                                                                            \
    "add r1, r1, r12\n"
#define FOUR_COLUMNS(form, store)                                                                                             \
    ONE_WINDOW("r2")                                                                                                          \
    ONE_WINDOW("r4")                                                                                                          \
    ONE_WINDOW("r6")                                                                                                          \
    ONE_WINDOW("r8")                                                                                                          \
    "vmov q1[2], q1[0], r2, r6\n"                                                                                             \
    "vmov q1[3], q1[1], r4, r8\n" FINISH(form, store)

/* r5: records, [sp]: channels left, strip and output of this channel, columns, struct. */
#define ENTER                                                                                                                 \
    ".syntax unified\n"                                                                                                       \
    "push {r4-r11, lr}\n"                                                                                                     \
    "vpush {d8-d15}\n"                                                                                                        \
    "vldrw.u32 q3, [r0]\n"                                                                                                    \
    "vldrw.u32 q2, [r0, #16]\n"                                                                                               \
    "ldrd r1, r3, [r0, #32]\n"                                                                                                \
    "ldrd r5, r2, [r0, #40]\n"                                                                                                \
    "ldrd r4, r7, [r0, #48]\n"                                                                                                \
    "ldrd r12, r0, [r0, #56]\n"                                                                                               \
    "push {r1, r2, r3, r4}\n"
#define LEAVE                                                                                                                 \
    "add sp, sp, #16\n"                                                                                                       \
    "vpop {d8-d15}\n"                                                                                                         \
    "pop {r4-r11, pc}\n"

/* A record: q4: weights of rows 0 to 2, q6: the same a row lower. */
#define LOAD_CHANNEL                                                                                                          \
    "vldrw.u32 q4, [r5]\n"                                                                                                    \
    "movs r2, #0\n"                                                                                                           \
    "ldrsb r11, [r5, #3]\n"                                                                                                   \
    "vshl.i32 q6, q4, #8\n"                                                                                                   \
    "ldrd r9, r10, [r5, #12]\n"                                                                                               \
    "vmov.32 q6[3], r2\n"                                                                                                     \
    "adds r5, r5, #20\n"                                                                                                      \
    "vshr.u32 q4, q6, #8\n"
#define NEXT_CHANNEL                                                                                                          \
    "ldrd r1, r2, [sp]\n"                                                                                                     \
    "ldr r3, [sp, #8]\n"                                                                                                      \
    "adds r1, r1, #4\n"                                                                                                       \
    "adds r3, r3, #1\n"                                                                                                       \
    "str r3, [sp, #8]\n"                                                                                                      \
    "subs r2, r2, #1\n"                                                                                                       \
    "strd r1, r2, [sp]\n"                                                                                                     \
    "bne 1b\n"

#define TWO_ROWS(form)                                                                                                        \
    ENTER                                                                                                                     \
    "lsls r12, r12, #1\n"                                                                                                     \
    "lsls r7, r7, #1\n"                                                                                                       \
    "1:\n" LOAD_CHANNEL                                                                                                       \
    "vmov q5, q4\n"                                                                                                           \
    "ldr r4, [sp, #12]\n"                                                                                                     \
    "vshlc q5, r2, #32\n"                                                                                                     \
    "lsrs r6, r4, #1\n"                                                                                                       \
    "vshl.i32 q7, q5, #8\n"                                                                                                   \
    "dls lr, r6\n"                                                                                                            \
    "2:\n" TWO_COLUMNS(form)                                                                                                  \
    "le lr, 2b\n"                                                                                                             \
    "ldr r4, [sp, #12]\n"                                                                                                     \
    "lsls r4, r4, #31\n"                                                                                                      \
    "beq 3f\n"                                                                                                                \
    "sub r1, r1, r12, lsr #1\n"                                                                                               \
    "sub r3, r3, r7, lsr #1\n" TWO_COLUMNS(form)                                                                              \
    "3:\n" NEXT_CHANNEL LEAVE

#define ONE_ROW(form)                                                                                                         \
    ENTER                                                                                                                     \
    "lsls r7, r7, #2\n"                                                                                                       \
    "1:\n" LOAD_CHANNEL                                                                                                       \
    "ldr r4, [sp, #12]\n"                                                                                                     \
    "lsrs r6, r4, #2\n"                                                                                                       \
    "wls lr, r6, 4f\n"                                                                                                        \
    "2:\n" FOUR_COLUMNS(form, STORE)                                                                               \
    "add r3, r3, r7\n"                                                                                                        \
    "le lr, 2b\n"                                                                                                             \
    "ldr r4, [sp, #12]\n"                                                                                                     \
    "ands r6, r4, #3\n"                                                                                                       \
    "beq 5f\n"                                                                                                                \
    "rsb r6, r6, #4\n"                                                                                                        \
    "mls r1, r6, r12, r1\n"                                                                                                   \
    "lsr r8, r7, #2\n"                                                                                                        \
    "mls r3, r6, r8, r3\n"                                                                                                    \
    "4:\n"                                                                                                                    \
    "vctp.32 r4\n" FOUR_COLUMNS(form, STORE_PREDICATED)                                                                \
    "5:\n" NEXT_CHANNEL LEAVE

#define TWO_ROWS_STEP(name, form)                                                                                             \
    NN_NAKED void name(const nn_strip *strip NN_UNUSED) { __asm__ volatile(TWO_ROWS(form)); }
#define ONE_ROW_STEP(name, form)                                                                                              \
    NN_NAKED void name(const nn_strip *strip NN_UNUSED) { __asm__ volatile(ONE_ROW(form)); }

#else

#define PLAIN 0
#define SIGNED 1
#define WINDOW 3u

/* A channel's record. */
typedef struct {
    const int8_t *weights;
    int32_t shift;
    uint32_t start;
    int32_t multiplier;
} channel_record;

void nn_strip_interleave(const nn_strip_rows *rows, int8_t *to, uint32_t count) {
    for (uint32_t i = 0; i < count; ++i) {
        for (uint32_t row = 0; row < NN_STRIP_ROWS; ++row) {
            *to++ = rows->row[row][i / NN_MVE_BYTES * rows->step[row] + i % NN_MVE_BYTES];
        }
    }
}

static channel_record read_record(const uint32_t *record) {
    const int8_t *weights = (const int8_t *)record;
    const channel_record found = {weights, weights[3], record[3], (int32_t)record[4]};
    return found;
}

static int8_t output_of(const nn_strip *strip, const channel_record *channel, const int8_t *window, int is_signed) {
    uint32_t sum = channel->start;
    for (uint32_t column = 0; column < WINDOW; ++column) {
        for (uint32_t row = 0; row < WINDOW; ++row) {
            sum += (uint32_t)(window[strip->gather[column] + row] * channel->weights[NN_STRIP_ROWS * column + row]);
        }
    }
    const uint32_t exponent = (uint32_t)-channel->shift;
    int32_t scaled = nn_high_mul((int32_t)sum, channel->multiplier);
    if (is_signed != 0) {
        scaled = nn_rounding_divide_by_pot(scaled, exponent);
    } else if (exponent > 0u) {
        scaled = (scaled >> exponent) + (scaled >> (exponent - 1u) & 1);
    }
    return nn_saturate((scaled > INT16_MAX ? INT16_MAX : scaled < INT16_MIN ? INT16_MIN : scaled) + strip->zero_point);
}

/* next_row: bytes between the outputs of two rows. */
static void compute(const nn_strip *strip, uint32_t rows, uint32_t next_row, int is_signed) {
    for (uint32_t i = 0; i < strip->count; ++i) {
        const channel_record channel = read_record(strip->records + i * 5u);
        for (uint32_t column = 0; column < strip->columns; ++column) {
            const int8_t *window = strip->strip + NN_STRIP_ROWS * i + column * strip->stride;
            int8_t *output = strip->output + i + column * strip->column;
            for (uint32_t row = 0; row < rows; ++row) {
                output[row * next_row] = output_of(strip, &channel, window + row, is_signed);
            }
        }
    }
}

#define TWO_ROWS_STEP(name, form)                                                                                             \
    void name(const nn_strip *strip) { compute(strip, 2u, strip->scatter[1], form); }
#define ONE_ROW_STEP(name, form)                                                                                              \
    void name(const nn_strip *strip) { compute(strip, 1u, 0u, form); }

#endif

TWO_ROWS_STEP(nn_strip_two_rows_plain, PLAIN)
TWO_ROWS_STEP(nn_strip_two_rows_signed, SIGNED)
ONE_ROW_STEP(nn_strip_one_row_plain, PLAIN)
ONE_ROW_STEP(nn_strip_one_row_signed, SIGNED)
