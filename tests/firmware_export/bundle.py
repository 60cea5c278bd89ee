"""Many generated networks in one program: compiled once, run on the host through pipes or on an emulated Cortex-M.

One compilation for hundreds of example graphs keeps the tests quick; each network has its own name prefix.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from example_cases import Case

from firmware_export.emit import emit, runtime_sources
from firmware_export.graph import Graph
from firmware_export.hostlib import compile_host
from firmware_export.plan import Plan, plan
from firmware_export.target import Target
from firmware_export.toolchain import Toolchain

RUNTIME = Path(__file__).resolve().parents[2] / "firmware_export" / "runtime"
MEMORY_C = RUNTIME.parent / "boards" / "memory.c"
FLASH, FLASH_SIZE = 0x08000000, 8 << 20
RAM, RAM_SIZE = 0x20000000, 1 << 20
ACTIVATIONS = RAM + 0x40000
JUNK = 0xA5

HOST_MAIN = """
#include <stdio.h>
#include <stdlib.h>

/* stdin: (index, input bytes) again and again; stdout: output bytes. The buffer has exactly the promised size. */
int main(void) {
    uint32_t index;
    while (fread(&index, sizeof index, 1, stdin) == 1) {
        const nn_network *network = networks[index];
        void *activations;
        if (posix_memalign(&activations, NN_ALIGNMENT, network->activations_size) != 0) {
            return 2;
        }
        memset(activations, JUNK, network->activations_size);
        for (uint32_t i = 0; i < network->input_count; ++i) {
            const nn_tensor *tensor = &network->inputs[i];
            if (fread((uint8_t *)activations + tensor->offset, 1, tensor->size, stdin) != tensor->size) {
                return 3;
            }
        }
        if (network->run(activations) != NN_OK) {
            return 4;
        }
        for (uint32_t i = 0; i < network->output_count; ++i) {
            const nn_tensor *tensor = &network->outputs[i];
            fwrite((uint8_t *)activations + tensor->offset, 1, tensor->size, stdout);
        }
        free(activations);
    }
    return 0;
}
"""
ARM_ENTRY = """
nn_status bundle_run(uint32_t index, void *activations);
nn_status bundle_run(uint32_t index, void *activations) { return networks[index]->run(activations); }

void reset_handler(void);
void reset_handler(void) { (void)bundle_run(0, 0); }
"""
LINKER_SCRIPT = f"""
MEMORY {{ FLASH (rx) : ORIGIN = {FLASH:#x}, LENGTH = {FLASH_SIZE} }}
SECTIONS {{
    .text : {{ KEEP(*(.text.bundle_run)) *(.text .text.* .rodata .rodata.* .data .data.*) }} > FLASH
    /DISCARD/ : {{ *(.ARM.exidx* .ARM.extab* .eh_frame* .debug* .comment .note*) }}
}}
"""


class Bundle:
    """The generated C of many cases, in one folder, and the one file that includes it all."""

    def __init__(self, folder: Path, cases: Sequence[Case], target: Target | None = None) -> None:
        self.folder, self.cases = folder, cases
        self.plans: list[Plan] = [plan(case.graph, target or Target()) for case in cases]
        for index, case in enumerate(cases):
            for name, text in emit(case.graph, self.plans[index], f"e{index}", selftest=False).items():
                (folder / name).write_text(text)
        self._needed = sorted({source for layout in self.plans for source in runtime_sources(layout)})

    def _main(self, name: str, entry: str) -> Path:
        names = [f"e{index}" for index in range(len(self.cases))]
        includes = "".join(f'#include "{name}_data.c"\n#include "{name}.c"\n' for name in names)
        table = ", ".join(f"&{name}_network" for name in names)
        path = self.folder / name
        head = f"#define _POSIX_C_SOURCE 200809L\n#include <string.h>\n#define JUNK {JUNK}\n" if entry == HOST_MAIN else ""
        path.write_text(f"{head}{includes}\nstatic const nn_network *const networks[] = {{{table}}};\n{entry}")
        return path

    def host_program(self, toolchain: Toolchain, flags: Sequence[str] = (), optimize: str = "2") -> Path:
        """Compiles the host program; the runtime's files are compiled on their own, as in a firmware."""
        program = self.folder / "bundle"
        sources = [self._main("host_bundle.c", HOST_MAIN), *(RUNTIME / name for name in self._needed)]
        compile_host(sources, [RUNTIME, self.folder], program, flags, optimize=optimize, toolchain=toolchain)
        return program

    def run_host(self, program: Path) -> list[list[tuple[np.ndarray, ...]]]:
        """The outputs of all cases: [case][vector][output]."""
        request = b"".join(
            struct.pack("<I", index) + b"".join(value.tobytes() for value in vector)
            for index, case in enumerate(self.cases)
            for vector in case.vectors
        )
        result = subprocess.run([str(program)], input=request, capture_output=True, timeout=120)
        assert result.returncode == 0, result.stderr.decode(errors="replace")[-2000:]
        return self._split(result.stdout)

    def _split(self, answer: bytes) -> list[list[tuple[np.ndarray, ...]]]:
        place, results = 0, []
        for case in self.cases:
            vectors = []
            for _ in case.vectors:
                outputs = []
                for index in case.graph.outputs:
                    tensor = case.graph.tensors[index]
                    outputs.append(np.frombuffer(answer, tensor.dtype, tensor.elements, place).reshape(tensor.shape))
                    place += tensor.nbytes
                vectors.append(tuple(outputs))
            results.append(vectors)
        assert place == len(answer)
        return results

    def arm_program(self, toolchain: Toolchain, core: str, optimize: str = "2", fpu: str = "none") -> Path:
        """Compiles and links for a core; the image lies at FLASH and needs no start-up."""
        sources = [self._main("arm_bundle.c", ARM_ENTRY), *(RUNTIME / name for name in self._needed), MEMORY_C]
        flags = [*toolchain.compile_flags(core, fpu, optimize), f"-I{RUNTIME}", f"-I{self.folder}"]
        objects = []
        for source in sources:
            objects.append(self.folder / f"{core}_{fpu}_{source.stem}.o")
            extra = ["-fno-builtin"] if source == MEMORY_C else []
            if extra and toolchain.kind == "gcc":
                extra.append("-fno-tree-loop-distribute-patterns")
            toolchain.compile(source, objects[-1], [*flags, *extra])
        script, image = self.folder / "bundle.ld", self.folder / f"{core}_{fpu}.elf"
        script.write_text(LINKER_SCRIPT)
        toolchain.link(objects, image, script, core, fpu)
        return image


class Emulator:
    """A Cortex-M that calls functions of an ELF directly: no start-up, no peripherals."""

    def __init__(self, image: Path, core: str) -> None:
        arm_const = pytest.importorskip("unicorn.arm_const", reason="the Python package unicorn is not installed")
        import unicorn
        from elftools.elf.elffile import ELFFile

        self._registers = arm_const
        self.accesses, self.unaligned = 0, list[int]()
        self._cpu = unicorn.Uc(unicorn.UC_ARCH_ARM, unicorn.UC_MODE_THUMB | unicorn.UC_MODE_MCLASS)
        models = {"cortex-m0plus": "UC_CPU_ARM_CORTEX_M0", "cortex-m3": "UC_CPU_ARM_CORTEX_M3"}
        models |= {"cortex-m4": "UC_CPU_ARM_CORTEX_M4", "cortex-m7": "UC_CPU_ARM_CORTEX_M7"}
        self._cpu.ctl_set_cpu_model(getattr(arm_const, models[core]))
        self._cpu.mem_map(FLASH, FLASH_SIZE)
        self._cpu.mem_map(RAM, RAM_SIZE)
        with image.open("rb") as stream:
            elf = ELFFile(stream)
            for segment in elf.iter_segments("PT_LOAD"):
                self._cpu.mem_write(segment["p_paddr"], segment.data())
            symbols = elf.get_section_by_name(".symtab")
            self._functions = {s.name: s["st_value"] for s in symbols.iter_symbols() if s["st_info"]["type"] == "STT_FUNC"}

    def refuse_unaligned(self) -> None:
        """From now on run() fails on an access that is not at a multiple of its size: v6-M faults there, unicorn does not."""
        import unicorn

        def check(_cpu: object, _kind: int, address: int, size: int, _value: int, _data: object) -> None:
            self.accesses += 1
            if address % size:
                self.unaligned.append(address)

        self._cpu.hook_add(unicorn.UC_HOOK_MEM_READ | unicorn.UC_HOOK_MEM_WRITE, check)

    def call(self, function: str, *arguments: int) -> int:
        """Calls a function with up to four integers; returns r0. A fault or an endless loop fails the test."""
        registers, stop = self._registers, FLASH + FLASH_SIZE - 4
        for number, value in enumerate(arguments):
            self._cpu.reg_write(registers.UC_ARM_REG_R0 + number, value)
        self._cpu.reg_write(registers.UC_ARM_REG_SP, ACTIVATIONS)
        self._cpu.reg_write(registers.UC_ARM_REG_LR, stop | 1)
        self._cpu.emu_start(self._functions[function] | 1, stop, timeout=60_000_000)
        assert self._cpu.reg_read(registers.UC_ARM_REG_PC) & ~1 == stop, f"{function} did not return"
        return self._cpu.reg_read(registers.UC_ARM_REG_R0)

    def run(self, index: int, graph: Graph, layout: Plan, vector: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
        """One inference of network `index` of the bundle."""
        self._cpu.mem_write(ACTIVATIONS, bytes([JUNK]) * (layout.size + 16))
        for place, value in zip(graph.inputs, vector, strict=True):
            self._cpu.mem_write(ACTIVATIONS + layout.offsets[place], value.tobytes())
        assert self.call("bundle_run", index, ACTIVATIONS) == 0
        assert not self.unaligned
        assert self._cpu.mem_read(ACTIVATIONS + layout.size, 16) == bytes([JUNK]) * 16, "written behind the buffer"
        tensors = [(layout.offsets[place], graph.tensors[place]) for place in graph.outputs]
        return tuple(
            np.frombuffer(self._cpu.mem_read(ACTIVATIONS + offset, tensor.nbytes), tensor.dtype).reshape(tensor.shape)
            for offset, tensor in tensors
        )


def gcc_or_skip() -> Toolchain:
    """arm-none-eabi-gcc; skips where it is not installed."""
    from firmware_export.toolchain import arm_toolchain

    if shutil.which("arm-none-eabi-gcc") is None:
        pytest.skip("arm-none-eabi-gcc is not installed")
    return arm_toolchain("gcc")
