"""What both compilers think a core has, and that the kernel harness counts and judges on qemu's Cortex-M33 and Cortex-M55."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from elftools.elf.elffile import ELFFile
from fast_kernel_checks import shifted
from firmware_builder import COMPILERS, compiler
from kernel_harness.machine import Image, run_qemu, run_unicorn
from kernel_harness.program import HERE, MEMORIES, Case, Memory, build_program, linker_script
from mve_checks import needs_qemu
from packed_cases import example_layers

from firmware_export.packing.add_linear import add_layer
from firmware_export.target import CORE_CLASSES, Target
from firmware_export.toolchain import CORES, FPUS

FEATURES = {
    ("cortex-m0plus", "none"): set(),
    ("cortex-m3", "none"): set(),
    ("cortex-m4", "none"): {"DSP"},
    ("cortex-m4", "fpv4-sp-d16"): {"DSP", "FP"},
    ("cortex-m7", "fpv5-d16"): {"DSP", "FP"},
    ("cortex-m33", "none"): {"DSP"},
    ("cortex-m33", "fpv5-sp-d16"): {"DSP", "FP"},
    ("cortex-m55", "none"): {"DSP"},
    ("cortex-m55", "fpv5-d16"): {"DSP", "FP", "MVE"},
}
PROBE = """\
#ifdef __ARM_FEATURE_DSP
int has_DSP(void);
int has_DSP(void) { return 1; }
#endif
#ifdef __ARM_FP
int has_FP(void);
int has_FP(void) { return 1; }
#endif
#ifdef __ARM_FEATURE_MVE
int has_MVE(void);
int has_MVE(void) { return 1; }
#endif
int always(void);
int always(void) { return 0; }
"""
NEW = {"cortex-m33": "none", "cortex-m55": "fpv5-d16"}


def symbols_of(path: Path) -> set[str]:
    with path.open("rb") as stream:
        return {s.name for s in ELFFile(stream).get_section_by_name(".symtab").iter_symbols()}


@pytest.mark.parametrize("kind", COMPILERS)
@pytest.mark.parametrize("core, fpu", sorted(FEATURES))
def test_features(core: str, fpu: str, kind: str, tmp_path: Path) -> None:
    """The inner steps are chosen by these macros: both compilers must define the same."""
    source = tmp_path / "probe.c"
    source.write_text(PROBE)
    compiler(kind).compile(source, tmp_path / "probe.o", compiler(kind).compile_flags(core, fpu, "2"))
    found = {name.removeprefix("has_") for name in symbols_of(tmp_path / "probe.o") if name.startswith("has_")}
    assert found == FEATURES[core, fpu]


def test_every_core_is_looked_at() -> None:
    assert {core for core, _ in FEATURES} == set(CORES) == set(CORE_CLASSES) - {"host"}
    assert {fpu for _, fpu in FEATURES} == set(FPUS)


@pytest.mark.parametrize("core, core_class", [("cortex-m33", "dsp"), ("cortex-m55", "mve"), ("cortex-m4", "dsp")])
def test_core_class(core: str, core_class: str) -> None:
    assert Target.of(core, "time") == Target(core_class, "time")


@pytest.mark.parametrize("kind", COMPILERS)
def test_a_cortex_m55_without_fpu_has_no_vectors(kind: str) -> None:
    """Helium's registers are the FPU's: neither compiler uses them in code for a core without."""
    assert "mve" not in " ".join(compiler(kind).target_flags("cortex-m55", "none"))
    if kind == "zig":
        assert "+mve_fp" in " ".join(compiler(kind).target_flags("cortex-m55", "fpv5-d16"))
        assert "+mve" not in " ".join(compiler(kind).target_flags("cortex-m33", "fpv5-d16"))


def some_cases() -> list[Case]:
    return [case for _, case in example_layers("add", add_layer)][:4]


@needs_qemu
@pytest.mark.parametrize("kind", COMPILERS)
@pytest.mark.parametrize("core", sorted(NEW))
def test_qemu_runs_and_judges(core: str, kind: str) -> None:
    """A wrong expectation fails its case and no other, and says how many bytes."""
    cases = some_cases()
    wrong = cases[1].expected.copy()
    wrong.reshape(-1)[:3] += 1
    cases[1] = replace(cases[1], expected=wrong)
    run = run_qemu(build_program(cases, compiler(kind), core, NEW[core]), core)
    assert run.failures == [0, 3, 0, 0] and run.failed


@needs_qemu
@pytest.mark.parametrize("core", sorted(NEW))
def test_qemu_sees_what_is_written_elsewhere(core: str) -> None:
    """The output over the end of its input's neighbour: bytes beside the buffers have lost their pattern."""
    case = some_cases()[0]
    longer = replace(case, expected=case.expected.reshape(-1)[:-4])
    run = run_qemu(build_program([longer], compiler("zig"), core, NEW[core]), core)
    assert run.failures == [4]


@needs_qemu
def test_a_cortex_m33_executes_as_many_as_a_cortex_m4() -> None:
    """The same kernels: what differs is how compilers schedule around them."""
    cases = some_cases()
    m33 = run_qemu(build_program(cases, compiler("zig"), "cortex-m33"), "cortex-m33").instructions
    m4 = run_unicorn(build_program(cases, compiler("zig"))).instructions
    assert all(abs(a - b) <= 20 for a, b in zip(m33, m4, strict=True))


@needs_qemu
@pytest.mark.parametrize("core", sorted(NEW))
def test_counts_do_not_depend_on_the_place(core: str) -> None:
    """Twice the same call, and once more in other places: the same but for how the caller loads the addresses."""
    case = some_cases()[0]
    run = run_qemu(build_program([case, case, shifted(case, 64)], compiler("zig"), core, NEW[core]), core)
    assert run.failures == [0, 0, 0]
    assert np.ptp(run.instructions) <= 4


@pytest.mark.parametrize("core", ["cortex-m4", *sorted(NEW)])
def test_linker_script(core: str, tmp_path: Path) -> None:
    """Vectors, code and RAM where the board has them, without overlap."""
    text = linker_script(core, tmp_path).read_text()
    regions = {
        name: (int(start, 0), int(size))
        for name, start, size in re.findall(r"(\w+) \(\w+\) : ORIGIN = (\w+), LENGTH = (\d+)", text)
    }
    memory = MEMORIES.get(core, Memory())
    assert set(regions) == {"VECTORS", "FLASH", "RAM"}
    assert regions["VECTORS"] == (memory.vectors, 1024)
    assert regions["RAM"] == (memory.ram, memory.size)
    spans = sorted((start, start + size) for start, size in regions.values())
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans))
    assert "SECTIONS" in text and (HERE / "flash.ld").read_text().split("SECTIONS")[1] == text.split("SECTIONS")[1]


@pytest.mark.parametrize("core", sorted(NEW))
def test_programs_lie_where_their_board_has_memory(core: str) -> None:
    image = Image(build_program(some_cases()[:1], compiler("zig"), core, NEW[core]))
    memory = MEMORIES[core]
    for start, data in image.segments:
        inside = any(base <= start and start + len(data) <= base + memory.size for base in (memory.flash, memory.vectors))
        assert inside, hex(start)
    assert memory.ram < image.symbols["stack_top"][0] <= memory.ram + memory.size
    assert np.all([address < memory.ram + memory.size for address, _ in image.symbols.values()])
