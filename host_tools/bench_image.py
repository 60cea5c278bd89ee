"""The program that `bench` measures: a network alone on a bare core, and what of it is code, weights and tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from firmware_export.board import BOARDS
from firmware_export.c_text import array_definition
from firmware_export.emit import RUNTIME, emit, runtime_sources
from firmware_export.graph import Array, Graph
from firmware_export.memory_usage import ImageMemory, read_memory
from firmware_export.plan import Plan, plan
from firmware_export.target import Target
from firmware_export.toolchain import Toolchain

MACHINE = Path(__file__).parent / "bench_machine"
NAME = "network"


@dataclass(frozen=True)
class BenchCore:
    """Where a core's program lies on qemu's evaluation board of that core. fpu: a key of toolchain.FPUS.

    vectors: 1 KB. flash, ram: `size` bytes each.
    """

    core: str
    fpu: str
    vectors: int = 0x00000000
    flash: int = 0x00000400
    ram: int = 0x20000000
    size: int = (4 << 20) - 0x400


CORES = {
    core.core: core
    for core in (
        BenchCore("cortex-m0plus", "none"),
        BenchCore("cortex-m3", "none"),
        BenchCore("cortex-m4", "fpv4-sp-d16"),
        BenchCore("cortex-m7", "fpv5-d16"),
        BenchCore("cortex-m33", "fpv5-sp-d16", vectors=0x10000000, flash=0x10000400, ram=0x38000000),
        BenchCore("cortex-m55", "fpv5-d16", flash=0x11000000, ram=0x31000000, size=2 << 20),
    )
}
"""The secure aliases of mps2-an505 and mps3-an547 for the last two."""


@dataclass(frozen=True)
class BenchImage:
    """A linked program.

    code_bytes: of the network and its kernels, start-up and harness aside. weights_bytes: the network's constants as they are
    stored. tables_bytes: parameters of layers and constants of the kernels.
    """

    elf: Path
    core: BenchCore
    toolchain: str
    graph: Graph
    plan: Plan
    code_bytes: int
    weights_bytes: int
    tables_bytes: int
    memory: ImageMemory


def build_bench_image(
    graph: Graph, core: BenchCore, optimize: str, inputs: Sequence[Array], work: Path, toolchain: Toolchain, level: str = "s"
) -> BenchImage:
    """Generates, compiles and links a network with one set of inputs in flash.

    Args:
        graph: as `simplify` left it. optimize: a goal of target.GOALS. level: the compiler's -O level.
        inputs: one array for each input of the graph.
        work: folder for everything; the image is work/bench.elf.
    Raises:
        ToolchainError: the compiler failed.
    """
    layout = plan(graph, Target.of(core.core, optimize))
    work.mkdir(parents=True, exist_ok=True)
    for name, text in emit(graph, layout, NAME, selftest=False).items():
        (work / name).write_text(text)
    (work / "bench_input.h").write_text(_input_header(inputs))
    script = work / "bench.ld"
    script.write_text(_linker_script(core))
    flags = [*toolchain.compile_flags(core.core, core.fpu, level), f"-I{RUNTIME}", f"-I{work}"]
    objects = []
    sources = [work / f"{NAME}.c", work / f"{NAME}_data.c", *(RUNTIME / name for name in runtime_sources(layout))]
    for source in (*sources, MACHINE / "bench_main.c", BOARDS / "memory.c"):
        objects.append(work / f"{source.stem}.o")
        toolchain.compile(source, objects[-1], [*flags, *_own_flags(source, toolchain)])
    elf = work / "bench.elf"
    toolchain.link(objects, elf, script, core.core, core.fpu)
    memory = read_memory(elf)
    sizes = {section.name: section.size for section in memory.sections}
    code, weights, tables = (sizes.get(section, 0) for section in (".text", ".weights", ".rodata"))
    return BenchImage(elf, core, toolchain.label, graph, layout, code, weights, tables, memory)


def _own_flags(source: Path, toolchain: Toolchain) -> list[str]:
    """Constants of the network into a section of their own; memory.c must not be turned into calls of itself."""
    if source.name == f"{NAME}_data.c":
        return [f'-D{NAME.upper()}_DATA_ATTRIBUTE=__attribute__((section(".weights")))']
    if source.name == "memory.c":
        return ["-fno-builtin", *(["-fno-tree-loop-distribute-patterns"] if toolchain.kind == "gcc" else [])]
    return []


def _input_header(inputs: Sequence[Array]) -> str:
    joined = np.frombuffer(b"".join(value.tobytes() for value in inputs), np.uint8)
    return f"#include <stdint.h>\nstatic {array_definition(joined, 'bench_input')}\n"


def _linker_script(core: BenchCore) -> str:
    text = (MACHINE / "bench.ld.in").read_text()
    values = {"VECTORS": core.vectors, "FLASH": core.flash, "RAM": core.ram, "SIZE": core.size}
    for key, value in values.items():
        text = text.replace(f"@{key}@", f"{value:#010x}")
    return text
