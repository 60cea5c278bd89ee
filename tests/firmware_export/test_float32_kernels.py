"""Generated C of the arithmetic float32 against the simulator, bit for bit: cores without FPU, in integers, and with one."""

from __future__ import annotations

import pytest
from bundle import Bundle, Emulator, gcc_or_skip
from example_cases import differences
from float32_cases import changed_cases

from firmware_export.toolchain import Toolchain, arm_toolchain, host_toolchain


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle(tmp_path_factory.mktemp("float32"), changed_cases()[::3])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Every example."""
    return Bundle(tmp_path_factory.mktemp("whole"), changed_cases())


@pytest.mark.parametrize("compiler", ["cc", "zig"])
def test_host(bundle: Bundle, compiler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if compiler == "zig":
        monkeypatch.setenv("PATH", "")
        monkeypatch.delenv("CC", raising=False)
    program = bundle.host_program(host_toolchain())
    for case, found in zip(bundle.cases, bundle.run_host(program), strict=True):
        assert differences(case, found) == ""


def check(bundle: Bundle, toolchain: Toolchain, core: str, fpu: str = "none") -> None:
    emulator = Emulator(bundle.arm_program(toolchain, core, fpu=fpu), core)
    for index, (case, layout) in enumerate(zip(bundle.cases, bundle.plans, strict=True)):
        assert differences(case, [emulator.run(index, case.graph, layout, vector) for vector in case.vectors]) == ""


def test_cortex_m4_with_fpu(bundle: Bundle) -> None:
    check(bundle, gcc_or_skip(), "cortex-m4", "fpv4-sp-d16")


@pytest.mark.long
def test_cortex_m7_with_fpu_zig(whole: Bundle) -> None:
    check(whole, arm_toolchain("zig"), "cortex-m7", "fpv5-d16")


@pytest.mark.long
def test_cortex_m3(whole: Bundle) -> None:
    check(whole, gcc_or_skip(), "cortex-m3")


def test_cortex_m0plus_zig(bundle: Bundle) -> None:
    check(bundle, arm_toolchain("zig"), "cortex-m0plus")


@pytest.mark.long
def test_every_example_with_fpu_and_without(whole: Bundle) -> None:
    check(whole, gcc_or_skip(), "cortex-m4", "fpv4-sp-d16")
    check(whole, arm_toolchain("zig"), "cortex-m0plus")
