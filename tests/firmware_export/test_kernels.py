"""Generated C against the simulator, bit for bit, on every operator's examples: host compilers, sanitizers, Cortex-M."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from bundle import Bundle, Emulator, gcc_or_skip
from example_cases import all_cases, differences

from firmware_export.toolchain import Toolchain, arm_toolchain, host_toolchain

SANITIZE = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle(tmp_path_factory.mktemp("bundle"), all_cases())


def check_host(bundle: Bundle, program: Path) -> None:
    for case, found in zip(bundle.cases, bundle.run_host(program), strict=True):
        assert differences(case, found) == ""


def test_host_compiler(bundle: Bundle) -> None:
    check_host(bundle, bundle.host_program(host_toolchain()))


def test_host_sanitizers(bundle: Bundle) -> None:
    """No access outside the buffer of exactly the promised size, no undefined behaviour."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed; the sanitizers are tested with gcc")
    gcc = Toolchain("cc", ("gcc",), "any")
    check_host(bundle, bundle.host_program(gcc, SANITIZE, optimize="1"))


def test_host_zig(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CC", raising=False)
    zig = host_toolchain()
    assert zig.kind == "zig"
    check_host(bundle, bundle.host_program(zig))


def check_core(bundle: Bundle, toolchain: Toolchain, core: str) -> None:
    emulator = Emulator(bundle.arm_program(toolchain, core), core)
    for index, (case, layout) in enumerate(zip(bundle.cases, bundle.plans, strict=True)):
        assert differences(case, [emulator.run(index, case.graph, layout, vector) for vector in case.vectors]) == ""


def test_cortex_m4_gcc(bundle: Bundle) -> None:
    check_core(bundle, gcc_or_skip(), "cortex-m4")


def test_cortex_m3_zig(bundle: Bundle) -> None:
    check_core(bundle, arm_toolchain("zig"), "cortex-m3")


def test_cortex_m0plus_gcc(bundle: Bundle) -> None:
    """One vector for each case, and not one unaligned access."""
    emulator = Emulator(bundle.arm_program(gcc_or_skip(), "cortex-m0plus"), "cortex-m0plus")
    emulator.refuse_unaligned()
    for index, (case, layout) in enumerate(zip(bundle.cases, bundle.plans, strict=True)):
        found = emulator.run(index, case.graph, layout, case.vectors[-1])
        assert differences(replace(case, vectors=case.vectors[-1:], answers=case.answers[-1:]), [found]) == ""
    assert emulator.accesses > 1_000_000
