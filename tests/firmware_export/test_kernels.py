"""Generated C against the simulator, bit for bit, on every operator's examples: host compilers, sanitizers, Cortex-M."""

from __future__ import annotations

import shutil
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


@pytest.mark.parametrize("core", ["cortex-m4", "cortex-m0plus"])
def test_cortex_m_gcc(bundle: Bundle, core: str) -> None:
    check_core(bundle, gcc_or_skip(), core)


@pytest.mark.parametrize("core", ["cortex-m3"])
def test_cortex_m_zig(bundle: Bundle, core: str) -> None:
    check_core(bundle, arm_toolchain("zig"), core)
