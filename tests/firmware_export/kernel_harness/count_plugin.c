/* A qemu TCG plugin (API version 1) that counts executed instructions between calls of one guest function.
 * Arguments: marker=ADDRESS of that function, out=FILE. The file gets one line per call, the instructions executed since
 * the start, and a last line with all of them. The few declarations below stand in for qemu's header.
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

static uint64_t executed;
static uint64_t marker;
static FILE *out;

static void on_marker(unsigned cpu, void *data) {
    (void)cpu;
    (void)data;
    fprintf(out, "%" PRIu64 "\n", executed);
}

static void on_translation(plugin_id id, struct translation_block *block) {
    (void)id;
    for (size_t i = 0; i < qemu_plugin_tb_n_insns(block); ++i) {
        struct instruction *instruction = qemu_plugin_tb_get_insn(block, i);
        if (qemu_plugin_insn_vaddr(instruction) == marker) {
            qemu_plugin_register_vcpu_insn_exec_cb(instruction, on_marker, NO_REGISTERS, NULL);
        }
        qemu_plugin_register_vcpu_insn_exec_inline(instruction, INLINE_ADD_U64, &executed, 1);
    }
}

static void on_exit_of_qemu(plugin_id id, void *data) {
    (void)id;
    on_marker(0, data);
    fclose(out);
}

EXPORT int qemu_plugin_install(plugin_id id, const void *info, int count, char **arguments) {
    (void)info;
    for (int i = 0; i < count; ++i) {
        if (strncmp(arguments[i], "marker=", 7) == 0) {
            marker = strtoull(arguments[i] + 7, NULL, 0);
        } else if (strncmp(arguments[i], "out=", 4) == 0) {
            out = fopen(arguments[i] + 4, "w");
        }
    }
    if (out == NULL || marker == 0) {
        return 1;
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
    qemu_plugin_register_atexit_cb(id, on_exit_of_qemu, NULL);
    return 0;
}
