"""Random layers through the fast kernels: sizes, windows, scales and places in memory that nobody has thought of."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from firmware_builder import COMPILER, compiler
from kernel_harness.machine import run_host, run_unicorn
from kernel_harness.program import GUARD, Case, build_program, host
from packed_cases import packed_case, random_input, trained_layer

from firmware_export.graph import Graph, GraphError
from firmware_export.packing import Unpackable
from firmware_export.packing.conv2d_r256 import conv2d_layer
from firmware_export.packing.conv2d_winograd import winograd_layer
from firmware_export.packing.depthwise_planes import depthwise_layer

Make = Callable[[np.random.Generator], Case]


def moved(rng: np.random.Generator, case: Case) -> Case:
    """The same call with input and output at odd places; scratch stays aligned, as the planner has it."""
    begin = GUARD + int(rng.integers(0, 16))
    output = begin + case.inputs[0].size + GUARD + int(rng.integers(0, 16))
    scratch = -(-(output + case.expected.size + GUARD) // 16) * 16
    return Case(case.code, case.inputs, case.expected, (begin, output, scratch))


def zero_points(rng: np.random.Generator) -> tuple[int, int]:
    """Mostly behind a ReLU, as in trained networks."""
    return int(rng.integers(-128, 128)), -128 if rng.random() < 0.6 else int(rng.integers(-128, 128))


def random_convolution(rng: np.random.Generator, kernel: tuple[int, int], stride: tuple[int, int], multiple: int = 1) -> Graph:
    """A conv2d of up to 12 x 12 pixels and 24 channels."""
    size = (int(rng.integers(1, 13)), int(rng.integers(1, 13)), multiple * int(rng.integers(1, 1 + 24 // multiple)))
    outputs = multiple // 2 * int(rng.integers(1, 8)) if multiple > 1 else int(rng.integers(1, 14))
    return trained_layer(
        rng, "conv2d", size, (outputs, *kernel, size[2]), stride=stride, same=bool(rng.random() < 0.8),
        zero_points=zero_points(rng), deviation=float(np.exp2(rng.uniform(3, 8))),
    )  # fmt: skip


def convolution(rng: np.random.Generator) -> Case:
    kernel = tuple(int(k) for k in rng.integers(1, 6, 2)) if rng.random() < 0.5 else (1, 1)
    graph = random_convolution(rng, (kernel[0], kernel[1]), (int(rng.integers(1, 4)), int(rng.integers(1, 4))))
    packer = partial(conv2d_layer, border_limit=int(rng.choice([0, 4096])))
    return moved(rng, packed_case(graph, packer, random_input(rng, graph)))


def winograd(rng: np.random.Generator) -> Case:
    graph = random_convolution(rng, (3, 3), (1, 1), multiple=4)
    packer = partial(winograd_layer, scratch_limit=int(rng.integers(2000, 40_000)))
    return moved(rng, packed_case(graph, packer, random_input(rng, graph)))


def depthwise(rng: np.random.Generator) -> Case:
    size = (int(rng.integers(1, 20)), int(rng.integers(1, 20)), int(rng.integers(1, 14)))
    stride = int(rng.integers(1, 3))
    graph = trained_layer(
        rng, "depthwise_conv2d", size, (1, 3, 3, size[2]), stride=(stride, stride), same=bool(rng.random() < 0.7),
        zero_points=zero_points(rng), deviation=float(np.exp2(rng.uniform(3, 8))),
    )  # fmt: skip
    packer = partial(depthwise_layer, scratch_limit=int(rng.integers(0, 20_000)), in_place=bool(rng.random() < 0.5))
    return moved(rng, packed_case(graph, packer, random_input(rng, graph)))


def cases(kind: Make, count: int, seed: int) -> list[Case]:
    """Layers that exist and can be packed."""
    rng = np.random.default_rng(seed)
    found: list[Case] = []
    while len(found) < count:
        try:
            found.append(kind(rng))
        except (Unpackable, GraphError):
            continue
    return found


def check(found: list[Case]) -> None:
    run = run_unicorn(build_program(found, compiler(COMPILER)))
    wrong = [(place, found[place].code.summary, found[place].places()) for place, count in enumerate(run.failures) if count]
    assert wrong == []
    assert not run_host(build_program(found, host(), "host")).failed


KINDS = [convolution, winograd, depthwise]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_some(kind: Make) -> None:
    check(cases(kind, 40, 1))


@pytest.mark.long
@pytest.mark.parametrize("seed", range(2, 12))
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_many(kind: Make, seed: int) -> None:
    check(cases(kind, 150, seed))
