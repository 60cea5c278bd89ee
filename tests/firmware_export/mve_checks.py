"""What every kernel for Helium is held to: the simulator's bytes on an emulated Cortex-M55 and, in its C form, on the host."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from firmware_builder import COMPILER, compiler
from kernel_harness.machine import Run, has_qemu, run_host, run_qemu
from kernel_harness.program import GUARD, Case, build_program, host
from packed_cases import trained_weights

from firmware_export.graph import Graph, Quantization
from firmware_export.operators import _examples as make
from firmware_export.operators._accumulator import OutputStage
from firmware_export.requantize import Int64

CORE, FPU = "cortex-m55", "fpv5-d16"
KINDS = [COMPILER, *(pytest.param(kind, marks=pytest.mark.long) for kind in ("zig",) if kind != COMPILER)]
"""Compilers for the large programs of cases; the second one takes long."""
needs_qemu = pytest.mark.skipif(not has_qemu(), reason="qemu-system-arm is not installed: nothing else here emulates Helium")


def run_m55(cases: Sequence[Case], kind: str) -> Run:
    """Runs the cases on an emulated Cortex-M55."""
    run = run_qemu(build_program(cases, compiler(kind), CORE, FPU), CORE)
    assert len(run.failures) == len(cases), "the program did not come to its end"
    return run


def wrong_on_m55(cases: dict[str, Case], kind: str) -> list[str]:
    """Labels of the cases with a wrong byte, or one changed beside the buffers."""
    failures = run_m55(list(cases.values()), kind).failures
    return [label for label, wrong in zip(cases, failures, strict=True) if wrong]


def assert_right_on_host(cases: dict[str, Case]) -> None:
    """The C form of the inner steps on the same packed data."""
    assert not run_host(build_program(list(cases.values()), host(), "host")).failed


def moved(rng: np.random.Generator, case: Case) -> Case:
    """The same call with inputs and output at odd places; scratch stays aligned, as the planner has it."""
    places, end = [], 0
    for size in (*(x.size for x in case.inputs), case.expected.size):
        places.append(end + GUARD + int(rng.integers(0, 16)))
        end = places[-1] + size
    return Case(case.code, case.inputs, case.expected, (*places, -(-(end + GUARD) // 16) * 16))


def stage_of(multiplier: Int64, shift: Int64, zero_point: int = 0, clamp: tuple[int, int] = (-128, 127)) -> OutputStage:
    """An output stage of any constants."""
    return OutputStage(np.asarray(multiplier, np.int64), np.asarray(shift, np.int64), zero_point, clamp)


def vector_graph(rng: np.random.Generator, depth: int, outputs: int, *, batches: int = 1, zero_point: int = -128) -> Graph:
    """A fully connected layer like a trained one."""
    x = make.activation((batches, depth), Quantization.per_tensor(0.02, -3))
    weights = trained_weights(rng, (outputs, depth), 0)
    bias = make.random_bias(rng, x, weights, outputs, 2000)
    y = Quantization.per_tensor(float(np.float32(32 * np.sqrt(depth) * 2.0**-8 * 0.02)), zero_point)
    return make.single_node("fully_connected", (x, weights, bias), y, {"clamp": (-128, 127)})
