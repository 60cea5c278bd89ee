/* A qemu TCG plugin (API version 1) that counts executed instructions up to marked addresses.
 * Arguments: marker=ADDRESS, as often as wanted, and out=FILE. The file gets one line each time a marked instruction is
 * about to run: its address and the instructions executed before it. The few declarations below stand in for qemu's header.
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))
#define INLINE_ADD_U64 0
#define NO_REGISTERS 0

typedef uint64_t plugin_id;
struct translation_block;
struct instruction;

extern void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id id, void (*callback)(plugin_id, struct translation_block *));
extern void qemu_plugin_register_atexit_cb(plugin_id id, void (*callback)(plugin_id, void *), void *data);
extern void qemu_plugin_register_vcpu_insn_exec_cb(struct instruction *, void (*callback)(unsigned, void *), int, void *);
extern void qemu_plugin_register_vcpu_insn_exec_inline(struct instruction *, int operation, void *address, uint64_t value);
extern size_t qemu_plugin_tb_n_insns(const struct translation_block *);
extern struct instruction *qemu_plugin_tb_get_insn(const struct translation_block *, size_t);
extern uint64_t qemu_plugin_insn_vaddr(const struct instruction *);

EXPORT int qemu_plugin_version = 1;

#define MARKERS 16384u

static uint64_t executed;
static uint64_t markers[MARKERS];
static size_t marker_count;
static FILE *out;

static void on_marker(unsigned cpu, void *data) {
    (void)cpu;
    fprintf(out, "%" PRIx64 " %" PRIu64 "\n", *(const uint64_t *)data, executed);
}

static uint64_t *marker_at(uint64_t address) {
    for (size_t i = 0; i < marker_count; ++i) {
        if (markers[i] == address) {
            return &markers[i];
        }
    }
    return NULL;
}

static void on_translation(plugin_id id, struct translation_block *block) {
    (void)id;
    for (size_t i = 0; i < qemu_plugin_tb_n_insns(block); ++i) {
        struct instruction *instruction = qemu_plugin_tb_get_insn(block, i);
        uint64_t *marker = marker_at(qemu_plugin_insn_vaddr(instruction));
        if (marker != NULL) {
            qemu_plugin_register_vcpu_insn_exec_cb(instruction, on_marker, NO_REGISTERS, marker);
        }
        qemu_plugin_register_vcpu_insn_exec_inline(instruction, INLINE_ADD_U64, &executed, 1);
    }
}

static void on_exit_of_qemu(plugin_id id, void *data) {
    (void)id;
    (void)data;
    fclose(out);
}

EXPORT int qemu_plugin_install(plugin_id id, const void *info, int count, char **arguments) {
    (void)info;
    for (int i = 0; i < count; ++i) {
        if (strncmp(arguments[i], "marker=", 7) == 0 && marker_count < MARKERS) {
            markers[marker_count++] = strtoull(arguments[i] + 7, NULL, 0);
        } else if (strncmp(arguments[i], "out=", 4) == 0) {
            out = fopen(arguments[i] + 4, "w");
        }
    }
    if (out == NULL || marker_count == 0) {
        return 1;
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
    qemu_plugin_register_atexit_cb(id, on_exit_of_qemu, NULL);
    return 0;
}
