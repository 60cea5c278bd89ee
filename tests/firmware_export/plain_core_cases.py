"""Cases for the kernels of Cortex-M3 and M0+, and what they are held to there: the simulator's bytes on both compilers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from firmware_builder import compiler
from kernel_harness.machine import Run, run_host, run_unicorn
from kernel_harness.program import GUARD, Case, build_program, host
from packed_cases import Packer, trained_weights

from firmware_export.graph import Graph, GraphError, Quantization
from firmware_export.operators import _examples as make
from firmware_export.packing import Unpackable
from firmware_export.packing.conv2d_trio import conv2d_layer
from firmware_export.packing.depthwise_trio import depthwise_layer
from firmware_export.packing.fully_connected_octet import fully_connected_layer

CORES = {"v7m": "cortex-m3", "v6m": "cortex-m0plus"}
"""Core class -> the core that is emulated."""


def conv2d_packer(core_class: str) -> Packer:
    return partial(conv2d_layer, core_class=core_class)


def depthwise_packer(core_class: str) -> Packer:
    return partial(depthwise_layer, core_class=core_class)


def fully_connected_packer(core_class: str) -> Packer:
    return partial(fully_connected_layer, core_class=core_class)


def run(cases: Sequence[Case], core_class: str, kind: str) -> Run:
    """Calls on a core of the class."""
    core = CORES[core_class]
    return run_unicorn(build_program(cases, compiler(kind), core), core)


def wrong(cases: dict[str, Case], core_class: str, kind: str) -> list[str]:
    """The labels of the calls with a wrong byte, or a touched one beside their buffers."""
    failures = run(list(cases.values()), core_class, kind).failures
    return [label for label, count in zip(cases, failures, strict=True) if count]


def fails_on_host(cases: Sequence[Case]) -> bool:
    """Whether a call's portable steps give a wrong byte."""
    return run_host(build_program(cases, host(), "host")).failed


def overlapped(case: Case, ahead: int) -> Case:
    """The same call with the output beginning `ahead` bytes before the input, scratch behind both."""
    output = GUARD + max(0, -ahead)
    begin = output + ahead
    end = max(begin + case.inputs[0].size, output + case.expected.size)
    return Case(case.code, case.inputs, case.expected, (begin, output, -(-(end + GUARD) // 16) * 16))


def moved(rng: np.random.Generator, case: Case) -> Case:
    """The same call with input and output at odd places; scratch stays aligned, as the planner has it."""
    begin = GUARD + int(rng.integers(0, 16))
    output = begin + case.inputs[0].size + GUARD + int(rng.integers(0, 16))
    return Case(case.code, case.inputs, case.expected, (begin, output, -(-(output + case.expected.size + GUARD) // 16) * 16))


def vector_layer(
    rng: np.random.Generator,
    depth: int,
    outputs: int,
    zero_points: tuple[int, int] = (-128, -128),
    deviation: float = 80,
    batches: int = 1,
    clamp: tuple[int, int] = (-128, 127),
) -> Graph:
    """A fully connected layer with the statistics of a trained one."""
    x = make.activation((batches, depth), Quantization.per_tensor(0.02, zero_points[0]))
    weights = trained_weights(rng, (outputs, depth), 0)
    bias = make.random_bias(rng, x, weights, outputs, 2000)
    scale = float(np.float32(74 * 32 * np.sqrt(depth) * 0.02 * 2.0**-8 / deviation))
    quantization = Quantization.per_tensor(scale, zero_points[1])
    return make.single_node("fully_connected", (x, weights, bias), quantization, {"clamp": clamp})


def packable(make_case: Callable[[np.random.Generator], Case], count: int, seed: int) -> list[Case]:
    """Random calls, those left out that do not exist or cannot be packed."""
    rng = np.random.default_rng(seed)
    found: list[Case] = []
    while len(found) < count:
        try:
            found.append(make_case(rng))
        except (Unpackable, GraphError):
            continue
    return found
