"""What is said of the kernels of Cortex-M3 and M0+ beside their bytes: instructions, scratch, constants."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from firmware_builder import COMPILER, needs_gcc
from kernel_harness.program import Case
from packed_cases import packed_case, random_input, trained_layer
from plain_core_cases import CORES, conv2d_packer, depthwise_packer, fully_connected_packer, run, vector_layer

from firmware_export.packing.conv2d_trio import conv2d_layer

each_core = pytest.mark.parametrize("core_class", CORES)
CONVOLUTIONS = {
    "3x3x16": ((16, 16, 16), (16, 3, 3, 16), (1, 1)),
    "3x3x16 stride 2": ((16, 16, 16), (32, 3, 3, 16), (2, 2)),
    "1x1x8": ((20, 20, 8), (16, 1, 1, 8), (1, 1)),
    "1x1x64": ((12, 11, 64), (64, 1, 1, 64), (1, 1)),
    "3x3x64": ((8, 8, 64), (24, 3, 3, 64), (1, 1)),
    "5x1x12": ((14, 14, 12), (12, 5, 1, 12), (1, 1)),
}
DEPTHWISE = [(24, 24, 4, 1), (25, 5, 8, 1), (6, 6, 8, 1), (24, 24, 4, 2), (9, 9, 6, 2)]
VECTORS = [(640, 32), (128, 128), (64, 12), (256, 2)]


@cache
def cases(core_class: str) -> dict[str, Case]:
    rng = np.random.default_rng(170)
    found = {}
    for label, (size, weights, stride) in CONVOLUTIONS.items():
        for points in ((-128, -128), (-128, 4)):
            graph = trained_layer(rng, "conv2d", size, weights, stride=stride, zero_points=points)
            found[f"conv2d {label} {points}"] = packed_case(graph, conv2d_packer(core_class), random_input(rng, graph))
    for height, width, channels, stride in DEPTHWISE:
        graph = trained_layer(rng, "depthwise_conv2d", (height, width, channels), (1, 3, 3, channels), stride=(stride, stride))
        label = f"depthwise {height}x{width}x{channels} stride {stride}"
        found[label] = packed_case(graph, depthwise_packer(core_class), random_input(rng, graph))
    for depth, outputs in VECTORS:
        graph = vector_layer(rng, depth, outputs)
        found[f"vector {depth} {outputs}"] = packed_case(graph, fully_connected_packer(core_class), random_input(rng, graph))
    return found


@needs_gcc
@each_core
def test_estimates_are_near_the_counts(core_class: str) -> None:
    """The planner weighs kernels by them: never off by more than a third, in sum by less than a tenth."""
    counts = run(list(cases(core_class).values()), core_class, "gcc").instructions
    said = [case.code.instructions for case in cases(core_class).values()]
    off = {label: count / guess for label, count, guess in zip(cases(core_class), counts, said, strict=True)}
    assert {label: ratio for label, ratio in off.items() if not 0.67 < ratio < 1.5} == {}
    assert 0.9 < sum(counts) / sum(said) < 1.1


@needs_gcc
def test_counts_do_not_depend_on_the_values() -> None:
    """An M3 takes the same time for all images: no branch looks at a pixel, but for negative sums of the general form."""
    rng = np.random.default_rng(171)
    graph = trained_layer(rng, "conv2d", (8, 9, 6), (6, 3, 3, 6))
    deep = trained_layer(rng, "depthwise_conv2d", (8, 9, 3), (1, 3, 3, 3))
    found = []
    for layer, packer in ((graph, conv2d_packer("v7m")), (deep, depthwise_packer("v7m"))):
        inputs = [random_input(rng, layer) for _ in range(3)]
        inputs.append(tuple(np.full_like(x, 127) for x in inputs[0]))
        found += [packed_case(layer, packer, x) for x in inputs]
    counts = run(found, "v7m", "gcc").instructions
    for some in (counts[:4], counts[4:]):
        assert max(some) - min(some) <= 4  # the caller's way to its arguments


@needs_gcc
def test_saturated_values_cost_little_on_an_m0() -> None:
    """Three instructions more for each, nothing else."""
    rng = np.random.default_rng(172)
    graph = trained_layer(rng, "conv2d", (6, 6, 8), (4, 1, 1, 8), zero_points=(-128, -128), deviation=2000)
    inputs = [random_input(rng, graph) for _ in range(3)]
    found = [packed_case(graph, conv2d_packer("v6m"), x) for x in inputs]
    counts = run(found, "v6m", "gcc").instructions
    free = [int(np.sum((case.expected > -128) & (case.expected < 127))) for case in found]
    for one, other in ((0, 1), (0, 2)):
        difference = counts[one] - counts[other]
        assert abs(difference) <= 3 * (6 * 6 * 4) and difference * (free[other] - free[one]) >= 0


def tail_bytes(case: Case) -> int:
    """Of the scratch: the outputs of less than six pixels, which are used only where there are some."""
    return int(case.code.fields["outputs"]) * 6


@each_core
def test_scratch_is_not_more_than_is_used(core_class: str) -> None:
    """With less of it the kernel writes beside it: the last of its parts is there for a reason."""
    rng = np.random.default_rng(173)
    layers = [
        trained_layer(rng, "conv2d", (3, 5, 6), (8, 3, 3, 6)),
        trained_layer(rng, "conv2d", (2, 4, 64), (4, 3, 3, 64)),
        trained_layer(rng, "depthwise_conv2d", (4, 7, 3), (1, 3, 3, 3), same=False),
        vector_layer(rng, 64, 7),
    ]
    packers = [conv2d_packer(core_class)] * 2 + [depthwise_packer(core_class), fully_connected_packer(core_class)]
    for graph, packer in zip(layers, packers, strict=True):
        case = packed_case(graph, packer, random_input(rng, graph))
        less = case.code.scratch_bytes - 4 - (tail_bytes(case) // 6 if "conv2d_trio" in case.code.function else 0)
        short = Case(replace(case.code, scratch_bytes=less), case.inputs, case.expected)
        failures = run([case, short], core_class, COMPILER).failures
        assert failures[0] == 0 and failures[1] > 0, case.code.function


@pytest.mark.parametrize("core_class, six", [("v7m", 6.2), ("v6m", 10.3)])
def test_estimates_grow_with_the_layer(core_class: str, six: float) -> None:
    """Twice the outputs, about twice the instructions; one pixel more than six costs another six."""
    rng = np.random.default_rng(174)
    counts = {}
    for pixels, outputs in ((6, 8), (6, 16), (7, 8), (12, 8)):
        graph = trained_layer(rng, "conv2d", (1, pixels, 32), (outputs, 1, 1, 32))
        counts[pixels, outputs] = conv2d_layer(graph, graph.nodes[0], core_class=core_class).instructions
    assert counts[7, 8] == counts[12, 8] == 2 * counts[6, 8]
    assert 1.5 * counts[6, 8] < counts[6, 16] < 2 * counts[6, 8]
    assert counts[6, 16] - counts[6, 8] >= 8 * 32 * six


@each_core
def test_constants_of_a_layer(core_class: str) -> None:
    """A byte for each weight, eight for each channel behind a ReLU, twelve around zero; padding aside."""
    rng = np.random.default_rng(175)
    for points, each in (((-128, -128), 8), ((-128, 4), 12)):
        graph = trained_layer(rng, "conv2d", (5, 5, 16), (10, 3, 3, 16), zero_points=points)
        code = conv2d_layer(graph, graph.nodes[0], core_class=core_class)
        assert sum(constant.data.nbytes for constant in code.constants) == 10 * (144 + each)
    graph = trained_layer(rng, "depthwise_conv2d", (5, 5, 16), (1, 3, 3, 16))
    code = depthwise_packer(core_class)(graph, graph.nodes[0])
    tables = {constant.suffix: constant.data.nbytes for constant in code.constants}
    assert tables["weights"] == 16 * 9 and tables["constants"] == 16 * 8 and tables["runs"] <= 28
    graph = vector_layer(rng, 33, 16)
    code = fully_connected_packer(core_class)(graph, graph.nodes[0])
    assert sum(constant.data.nbytes for constant in code.constants) == 16 * (33 + 8)
