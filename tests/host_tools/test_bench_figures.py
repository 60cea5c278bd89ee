"""The committed figures: no model may take more than 1 % more instructions, code, constants, RAM or stack than it did.

Made with: python -m host_tools bench ../shared/data/mlperf_tiny_models --cores cortex-m0plus,cortex-m3,cortex-m4,cortex-m55
--optimize balanced,ram --toolchain gcc --save tests/host_tools/bench_figures.json
"""

from __future__ import annotations

import functools
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from firmware_export.export import arranged
from firmware_export.toolchain import arm_toolchain
from host_tools.bench import BenchModel, Row, core_row, grown, read_rows, runnable, save_figures
from host_tools.bench_models import bench_models
from host_tools.bench_picture import REFERENCE

FIGURES = read_rows(Path(__file__).with_name("bench_figures.json"))
MODELS = ("ad01_int8", "kws_ref_model", "pretrainedResnet_quant", "vww_96_int8")
KIB = 1024
AIMS = {
    "pretrainedResnet_quant": (11_000_000, 49_152, 12 * KIB, 36_000),
    "kws_ref_model": (2_600_000, 16_000, 14 * KIB, 9_000),
    "vww_96_int8": (4_500_000, 37_000, 14 * KIB, 31_000),
    "ad01_int8": (260_000, 1_408, 5 * KIB, 768),
}
"""On a Cortex-M4, for goal balanced: instructions, bytes of RAM, bytes of code; for goal ram: bytes of RAM."""


def figure(model: str, core: str, optimize: str = "balanced") -> Row:
    return next(row for row in FIGURES if (row.model, row.core, row.optimize) == (model, core, optimize))


def name_of(row: Row) -> str:
    return f"{row.model}-{row.core}-{row.optimize}"


@functools.cache
def model(path: Path, optimize: str) -> BenchModel:
    (found,) = bench_models([str(path)], path.parent)
    return replace(found, graph=arranged(found.graph, optimize))


def cases() -> list[object]:
    """Other cores with goal ram only among the long tests: their kernels are hardly others."""
    quick = [row.optimize == "balanced" or row.core == "cortex-m4" for row in FIGURES]
    marks = [() if is_quick else pytest.mark.long for is_quick in quick]
    return [pytest.param(row, id=name_of(row), marks=mark) for row, mark in zip(FIGURES, marks, strict=True)]


@pytest.mark.parametrize("committed", cases())
def test_nothing_grows(committed: Row, shared_data: Path) -> None:
    if shutil.which("arm-none-eabi-gcc") is None:
        pytest.skip("arm-none-eabi-gcc is not installed")
    toolchain = arm_toolchain("gcc")
    if toolchain.label != committed.toolchain:
        pytest.skip(f"the figures are those of {committed.toolchain}, here is {toolchain.label}")
    if not runnable(committed.core):
        pytest.skip(f"no emulator of {committed.core} is installed")
    path = shared_data / "mlperf_tiny_models" / f"{committed.model}.tflite"
    found = core_row(model(path, committed.optimize), committed.core, committed.optimize, toolchain)
    assert found.exact
    assert grown([found], [committed]) == []


@pytest.mark.parametrize("name", MODELS)
def test_the_aims_on_a_cortex_m4_are_met(name: str) -> None:
    instructions, ram, code, least_ram = AIMS[name]
    found, small = figure(name, "cortex-m4"), figure(name, "cortex-m4", "ram")
    assert (found.instructions or 0) <= instructions and found.activation_bytes <= ram and (found.code_bytes or 0) <= code
    assert small.activation_bytes <= least_ram and (small.instructions or 0) <= 1.3 * (found.instructions or 0)


SHARES = {"cortex-m3": 0.5, "cortex-m0plus": 0.5, "cortex-m55": 0.5}
NOT_REACHED = {("ad01_int8", "cortex-m0plus"): 0.54}
"""A load, a product and a sum for each weight of a single vector are 0.83 M of its 0.94 M instructions."""


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("core", sorted(SHARES))
def test_other_cores_need_at_most_half_of_tflite_micro(name: str, core: str) -> None:
    share = NOT_REACHED.get((name, core), SHARES[core])
    assert (figure(name, core).instructions or 0) <= share * REFERENCE[name, core]


def test_every_committed_row_is_exact_and_bounded() -> None:
    assert {row.model for row in FIGURES} == {*MODELS}
    for row in FIGURES:
        assert row.exact and row.arithmetic == "double" and (row.stack_bytes or 0) <= (row.stack_bound_bytes or 0)


def test_figures_are_saved_and_read(tmp_path: Path) -> None:
    host = FIGURES[0].model_copy(update={"core": "host", "instructions": None})
    layered = FIGURES[0].model_copy(update={"per_layer": (("0 conv2d", 5),)})
    save_figures(tmp_path / "f.json", [FIGURES[-1], host, layered])
    assert read_rows(tmp_path / "f.json") == [FIGURES[0], FIGURES[-1]]
    assert len((tmp_path / "f.json").read_text().splitlines()) == 4
