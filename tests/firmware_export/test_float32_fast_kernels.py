"""Short output stages and fast kernels in the arithmetic float32: exact where they are taken, else the portable form runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bundle import Bundle, Emulator, gcc_or_skip
from example_cases import Case, differences
from float32_cases import float32_cases_of
from float32_definition import by_definition

from firmware_export.kernels import node_options
from firmware_export.operators._accumulator import OutputStage
from firmware_export.packing import Unpackable
from firmware_export.packing.requantize_forms import STEPS, LinearForm, SignedForm, Stage, linear_form, signed_form
from firmware_export.target import CORE_CLASSES, GOALS, Target
from firmware_export.toolchain import host_toolchain

PACKED = ("conv2d", "depthwise_conv2d", "fully_connected", "add")
"""Operators with fast kernels."""


def stage_of(scales: np.ndarray, zero_point: int, low: np.ndarray, high: np.ndarray) -> Stage:
    output = OutputStage.from_scales("float32", 1.0, scales.astype(np.float32), 1.0, len(scales), zero_point, (-128, 127))
    return Stage.of(output, low.astype(np.int64), high.astype(np.int64))


def random_stage(seed: int, zero_point: int, channels: int, exponents: tuple[float, float] = (3.2, 6)) -> Stage:
    rng = np.random.default_rng(seed)
    exponent = rng.uniform(*exponents, channels)
    reach = np.exp2(exponent + rng.uniform(6.5, 8.5, channels))
    below, above = (reach * rng.uniform(0.3, 1, channels) for _ in range(2))
    return stage_of(np.exp2(-exponent), zero_point, -below, above)


def assert_exact(stage: Stage, form: LinearForm | SignedForm, channel: int) -> None:
    """At every accumulator within reach, against the definition in fractions."""
    assert stage.scale is not None
    accumulators = np.arange(stage.low[channel], stage.high[channel] + 1)
    scale = float(stage.scale[channel])
    expected = [min(127, max(-128, by_definition(int(x), scale) + stage.zero_point)) for x in accumulators]
    sums = np.zeros_like(accumulators) if form.constant[channel] else accumulators
    np.testing.assert_array_equal(form.apply(sums, channel), expected)


@pytest.mark.parametrize("zero_point", [-128, -17, 4])
def test_linear_forms_are_the_definition(zero_point: int) -> None:
    """Rounding to even knows no sign, so that sums on both sides of zero have linear forms too; in double they have none."""
    stage = random_stage(zero_point + 200, zero_point, 5)
    form = linear_form(stage, 10)
    for channel in range(5):
        assert_exact(stage, form, channel)


def test_signed_forms_are_the_definition() -> None:
    stage = random_stage(11, 4, 4)
    form = signed_form(stage, 10)
    for channel in range(4):
        assert_exact(stage, form, channel)


def test_ties_have_no_short_form() -> None:
    """With a factor of 2^-5 every second half goes up and every second one down: no straight line does so."""
    stage = stage_of(np.array([2.0**-5]), 0, np.array([-3000.0]), np.array([3000.0]))
    for find in (linear_form, signed_form):
        with pytest.raises(Unpackable, match="channel 0 has no"):
            find(stage, 10)


def test_one_channel_without_a_form_is_told_apart() -> None:
    free = random_stage(3, -128, 1)
    scales = np.array([float(free.scale[0]), 2.0**-5]) if free.scale is not None else np.zeros(2)
    both = stage_of(scales, -128, np.array([free.low[0], -3000.0]), np.array([free.high[0], 6000.0]))
    form = linear_form(both, 10, partial=True)
    assert form.factor[0] != 0 and form.factor[1] == 0
    assert_exact(both, form, 0)


def test_thresholds_are_the_first_accumulators_of_each_step() -> None:
    stage = random_stage(8, 3, 3)
    for channel in range(3):
        scale = float(stage.scale[channel]) if stage.scale is not None else 0.0
        for step, at in zip(STEPS[::17].tolist(), stage.thresholds[channel][::17].tolist(), strict=True):
            if stage.low[channel] < at <= stage.high[channel]:
                assert by_definition(at, scale) + 3 >= step > by_definition(at - 1, scale) + 3


@pytest.fixture(scope="module")
def cases() -> tuple[Case, ...]:
    """Every second example, with two of its inputs."""
    found = [case for operator in PACKED for case in float32_cases_of(operator)][::2]
    return tuple(replace(case, vectors=case.vectors[:2], answers=case.answers[:2]) for case in found)


@pytest.fixture(scope="module")
def dsp(tmp_path_factory: pytest.TempPathFactory, cases: tuple[Case, ...]) -> Bundle:
    return Bundle(tmp_path_factory.mktemp("dsp"), cases, Target("dsp", "balanced"))


def test_most_examples_have_a_fast_kernel(dsp: Bundle) -> None:
    functions = [layout.codes[0].function for layout in dsp.plans]
    short = [name for name in functions if any(word in name for word in ("linear", "signed", "planes", "winograd"))]
    assert len(short) > len(functions) // 4
    assert any("general" in name for name in functions)


def test_host(dsp: Bundle) -> None:
    for case, found in zip(dsp.cases, dsp.run_host(dsp.host_program(host_toolchain())), strict=True):
        assert differences(case, found) == ""


def check_core(bundle: Bundle, core: str, fpu: str) -> None:
    emulator = Emulator(bundle.arm_program(gcc_or_skip(), core, fpu=fpu), core)
    for index, (case, layout) in enumerate(zip(bundle.cases, bundle.plans, strict=True)):
        found = [emulator.run(index, case.graph, layout, vector) for vector in case.vectors]
        assert differences(case, found) == ""


@pytest.mark.parametrize("fpu", ["fpv4-sp-d16", pytest.param("none", marks=pytest.mark.long)])
def test_cortex_m4(dsp: Bundle, fpu: str) -> None:
    check_core(dsp, "cortex-m4", fpu)


@pytest.mark.parametrize("core", ["cortex-m3", "cortex-m0plus"])
def test_cores_without_dsp_extension(core: str, cases: tuple[Case, ...], tmp_path: Path) -> None:
    check_core(Bundle(tmp_path, cases[::5], Target.of(core, "balanced")), core, "none")


@pytest.mark.long
@pytest.mark.parametrize("goal", GOALS)
@pytest.mark.parametrize("core", ["cortex-m4", "cortex-m3", "cortex-m0plus"])
def test_every_goal(core: str, goal: str, cases: tuple[Case, ...], tmp_path: Path) -> None:
    check_core(Bundle(tmp_path, cases, Target.of(core, goal)), core, "none")


def test_vector_kernels_round_as_double_does_and_are_not_taken(cases: tuple[Case, ...]) -> None:
    target = Target(CORE_CLASSES["cortex-m55"], "balanced")
    for case in cases[::5]:
        node = case.graph.nodes[0]
        sources = {source for code in node_options(case.graph, node, target) for source in code.sources}
        assert node.op == "add" or not any(source.endswith("_mve.c") for source in sources)
