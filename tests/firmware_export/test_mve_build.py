"""The kernels for Helium compile without a warning everywhere, need nothing from outside, and stay inside their buffers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from elftools.elf.elffile import ELFFile
from firmware_builder import COMPILERS, compiler
from kernel_harness.machine import run_unicorn
from kernel_harness.program import RUNTIME, Case, build_program, host
from mve_checks import CORE, FPU, vector_graph
from packed_cases import packed_case, random_input, trained_layer
from sanitized import run_sanitized

from firmware_export.graph import Quantization
from firmware_export.operators import _examples as make
from firmware_export.packing.add_mve import add_layer
from firmware_export.packing.conv2d_mve import conv2d_layer
from firmware_export.packing.depthwise_mve import depthwise_layer
from firmware_export.packing.fully_connected_mve import fully_connected_layer

WITH_VECTORS = ("average_pool2d_fast.c", "max_pool2d_fast.c", "mean_fast.c", "patch.c")
"""Kernels of all cores with vectors where there are some."""
FILES = (*sorted(path.name for path in RUNTIME.glob("*mve*.c")), *WITH_VECTORS)


def cases() -> Iterator[Case]:
    """Sizes that end in the middle of vectors, groups, rows and strips."""
    rng = np.random.default_rng(110)
    convolutions = [
        ((5, 7, 3), (5, 3, 3, 3)), ((4, 3, 5), (3, 1, 1, 5)), ((6, 5, 1), (2, 4, 3, 1)), ((3, 3, 16), (9, 3, 3, 16)),
        ((4, 5, 48), (8, 1, 1, 48)), ((1, 1, 33), (17, 1, 1, 33)),
    ]  # fmt: skip
    for size, weights in convolutions:
        for zero_points in ((-128, -128), (5, 7)):
            graph = trained_layer(rng, "conv2d", size, weights, zero_points=zero_points)
            yield packed_case(graph, conv2d_layer, random_input(rng, graph))
    for size in ((5, 7, 6), (3, 3, 3), (1, 1, 5), (9, 2, 4), (2, 9, 33), (8, 8, 16)):
        for stride in ((1, 1), (2, 2)):
            graph = trained_layer(rng, "depthwise_conv2d", size, (1, 3, 3, size[2]), stride=stride)
            yield packed_case(graph, depthwise_layer, random_input(rng, graph))
    for depth, outputs in ((1, 1), (16, 8), (33, 17)):
        graph = vector_graph(rng, depth, outputs, batches=2)
        yield packed_case(graph, fully_connected_layer, random_input(rng, graph))
    a, b, y = (Quantization.per_tensor(scale, 3) for scale in (0.031, 0.047, 0.039))
    sides = (make.activation((1, 37), a, "a"), make.activation((1, 37), b, "b"))
    graph = make.single_node("add", sides, y, {"clamp": (-100, 100)})
    yield packed_case(graph, add_layer, random_input(rng, graph))


def test_the_list_of_files_is_whole() -> None:
    used = {source for case in cases() for source in case.code.sources}
    assert used | set(WITH_VECTORS) == set(FILES)


def test_sanitizers(tmp_path: Path) -> None:
    """The C form, each buffer a heap block of exactly the size that the packer says."""
    run_sanitized(list(cases()), tmp_path)


@pytest.mark.parametrize("core", ["cortex-m0plus", "cortex-m3", "cortex-m4"])
def test_the_c_form_on_other_cores(core: str) -> None:
    """Data for Helium is right on cores without it, too: only slow."""
    some = list(cases())[::3]
    assert not run_unicorn(build_program(some, compiler("zig"), core), core).failed


@pytest.mark.parametrize("kind", COMPILERS)
@pytest.mark.parametrize("core, fpu", [(CORE, FPU), (CORE, "none"), ("cortex-m33", "none"), ("cortex-m33", "fpv5-sp-d16")])
@pytest.mark.parametrize("optimize", ["s", "2"])
def test_both_compilers_without_a_warning(kind: str, core: str, fpu: str, optimize: str, tmp_path: Path) -> None:
    toolchain = compiler(kind)
    for name in FILES:
        toolchain.compile(RUNTIME / name, tmp_path / "out.o", toolchain.compile_flags(core, fpu, optimize))


@pytest.mark.parametrize("optimize", ["s", "3"])
def test_host(optimize: str, tmp_path: Path) -> None:
    for name in FILES:
        host().compile(RUNTIME / name, tmp_path / "out.o", host().compile_flags("host", "none", optimize))


@pytest.mark.parametrize("kind", COMPILERS)
def test_objects_use_vectors_and_nothing_from_outside(kind: str, tmp_path: Path) -> None:
    """A vector instruction is in every kernel or in a step that it calls; memory functions are all that may be called."""
    toolchain = compiler(kind)
    defined, needed = set(), set()
    for name in FILES:
        toolchain.compile(RUNTIME / name, tmp_path / "out.o", toolchain.compile_flags(CORE, FPU, "2"))
        with (tmp_path / "out.o").open("rb") as stream:
            elf = ELFFile(stream)
            symbols = [s for s in elf.get_section_by_name(".symtab").iter_symbols() if s["st_info"]["bind"] == "STB_GLOBAL"]
            defined |= {s.name for s in symbols if s["st_shndx"] != "SHN_UNDEF"}
            needed |= {s.name for s in symbols if s["st_shndx"] == "SHN_UNDEF"}
            writable = sum(s["sh_size"] for s in elf.iter_sections() if s.name.startswith((".data", ".bss")))
        assert writable == 0, f"{name} has variables"
    memory = {"memcpy", "memset", "__aeabi_memcpy", "__aeabi_memset", "__aeabi_memclr", "__aeabi_memclr4", "__aeabi_memclr8"}
    assert needed - defined <= memory | {"nn_window_clip", ""}
    assert all(symbol.startswith("nn_") for symbol in defined)
