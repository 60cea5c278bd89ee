"""Convolution and fully connected layers for Helium: every byte the simulator's; how few instructions; how far they overlap."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from fast_kernel_checks import shifted
from firmware_builder import needs_gcc
from kernel_harness.program import Case
from mve_checks import KINDS, assert_right_on_host, needs_qemu, run_m55, vector_graph, wrong_on_m55
from packed_cases import example_layers, packed_case, random_input, refused_layers, trained_layer

from firmware_export.packing import Unpackable
from firmware_export.packing.conv2d_mve import conv2d_layer
from firmware_export.packing.fully_connected_mve import fully_connected_layer

SHAPES = {
    "3x3x16": ((9, 10, 16), (16, 3, 3, 16), (1, 1)),
    "3x3x16 odd width": ((5, 7, 16), (8, 3, 3, 16), (1, 1)),
    "3x3x16 stride 2": ((10, 10, 16), (24, 3, 3, 16), (2, 2)),
    "3x3x32, two vectors a row": ((4, 5, 32), (8, 1, 3, 32), (1, 1)),
    "3x3x48, nine vectors a row": ((4, 4, 48), (9, 3, 3, 48), (1, 1)),
    "3x3x80, more than one pass a row": ((3, 4, 80), (8, 3, 3, 80), (1, 1)),
    "3x3x3": ((12, 11, 3), (16, 3, 3, 3), (1, 1)),
    "3x3x3 stride 2": ((16, 16, 3), (8, 3, 3, 3), (2, 2)),
    "10x4x1 stride 2": ((21, 10, 1), (64, 10, 4, 1), (2, 2)),
    "1x1x64": ((5, 5, 64), (32, 1, 1, 64), (1, 1)),
    "1x1x64 stride 2": ((5, 5, 64), (8, 1, 1, 64), (2, 2)),
    "1x1x57 odd channels": ((6, 6, 57), (31, 1, 1, 57), (1, 1)),
    "1x1x2 one output": ((3, 7, 2), (1, 1, 1, 2), (1, 1)),
    "5x5x6": ((7, 7, 6), (5, 5, 5, 6), (1, 1)),
    "one pixel": ((1, 1, 40), (12, 3, 3, 40), (1, 1)),
    "one column": ((9, 1, 16), (3, 3, 3, 16), (1, 1)),
}
DEPTHS = (1, 2, 15, 16, 17, 31, 32, 64, 100, 640)


@cache
def convolutions() -> dict[str, Case]:
    """Examples, and layers like trained ones, with and without ReLU, with factors of 1 and more."""
    rng = np.random.default_rng(80)
    found = {f"{label} {i}": case for i, (label, case) in enumerate(example_layers("conv2d", conv2d_layer))}
    for label, (size, weights, stride) in SHAPES.items():
        for zero_points in ((-128, -128), (4, 11)):
            graph = trained_layer(rng, "conv2d", size, weights, stride=stride, zero_points=zero_points)
            found[f"{label} {zero_points}"] = packed_case(graph, conv2d_layer, random_input(rng, graph))
    for deviation in (0.5, 2000, 12000, 4e5):
        graph = trained_layer(rng, "conv2d", (5, 4, 16), (6, 3, 3, 16), zero_points=(0, 7), deviation=deviation)
        found[f"deviation {deviation}"] = packed_case(graph, conv2d_layer, random_input(rng, graph))
    return found


@cache
def vectors() -> dict[str, Case]:
    """Examples, and vectors of every kind of length."""
    rng = np.random.default_rng(81)
    found = {f"{label} {i}": case for i, (label, case) in enumerate(example_layers("fully_connected", fully_connected_layer))}
    for depth in DEPTHS:
        for outputs, zero_point in ((8, -128), (13, 5), (1, -128)):
            graph = vector_graph(rng, depth, outputs, batches=1 + depth % 2, zero_point=zero_point)
            found[f"{depth} -> {outputs}"] = packed_case(graph, fully_connected_layer, random_input(rng, graph))
    return found


def test_every_example_can_be_packed() -> None:
    assert refused_layers("conv2d", conv2d_layer) == {}
    assert refused_layers("fully_connected", fully_connected_layer) == {}


def test_all_forms_and_ways_of_reading_are_among_the_cases() -> None:
    codes = [case.code for case in convolutions().values()]
    forms = {code.function.removeprefix("nn_conv2d_mve_") for code in codes}
    assert forms == {"plain", "signed", "general"}
    assert {code.function.removeprefix("nn_fully_connected_mve_") for code in (c.code for c in vectors().values())} == forms
    vectors_in_row = {int(code.fields["vectors"]) for code in codes if int(code.fields["rows"]) > 1}
    assert {count % 4 for count in vectors_in_row} >= {1, 3} and max(vectors_in_row) > 4
    assert {code.fields["gathered"] for code in codes} == {"0", "1"}
    assert {int(code.fields["tail"]) for code in codes} >= {0, 1, 2, 9, 11}
    assert {int(code.fields["outputs"]) % 8 for code in codes} >= {0, 1, 7}


@needs_qemu
@pytest.mark.parametrize("kind", KINDS)
def test_convolutions_on_a_cortex_m55(kind: str) -> None:
    assert wrong_on_m55(convolutions(), kind) == []


@needs_qemu
@pytest.mark.parametrize("kind", KINDS)
def test_vectors_on_a_cortex_m55(kind: str) -> None:
    assert wrong_on_m55(vectors(), kind) == []


def test_the_host_runs_the_same_data() -> None:
    assert_right_on_host(convolutions() | vectors())


@needs_qemu
@needs_gcc
@pytest.mark.parametrize(
    "size, weights, most",
    [((8, 8, 64), (64, 3, 3, 64), 0.155), ((16, 16, 32), (32, 3, 3, 32), 0.165), ((6, 6, 128), (128, 1, 1, 128), 0.148)],
)
def test_instructions_for_each_product(size: tuple[int, int, int], weights: tuple[int, ...], most: float) -> None:
    """Fourteen for 128 in the inner loop, 0.11; all that is around it included."""
    rng = np.random.default_rng(82)
    graph = trained_layer(rng, "conv2d", size, weights)
    run = run_m55([packed_case(graph, conv2d_layer, random_input(rng, graph))], "gcc")
    assert run.failures == [0]
    assert 14 / 128 < run.instructions[0] / (size[0] * size[1] * int(np.prod(weights))) < most


@needs_qemu
@needs_gcc
def test_instructions_of_a_vector() -> None:
    rng = np.random.default_rng(83)
    graph = vector_graph(rng, 640, 128)
    run = run_m55([packed_case(graph, fully_connected_layer, random_input(rng, graph))], "gcc")
    assert run.failures == [0]
    assert 17 / 128 < run.instructions[0] / (640 * 128) < 0.16


OVERLAPS = [
    ((8, 7, 16), (16, 3, 3, 16), (1, 1)), ((7, 8, 4), (6, 3, 3, 4), (1, 1)), ((8, 8, 16), (8, 3, 3, 16), (2, 2)),
    ((5, 5, 16), (16, 1, 1, 16), (1, 1)), ((5, 6, 8), (16, 1, 1, 8), (1, 1)), ((6, 6, 16), (7, 1, 1, 16), (1, 1)),
]  # fmt: skip


def overlapped(ahead: int | None = None) -> dict[str, Case]:
    """Every one with its output as near the input as the packer says, or `ahead` bytes nearer."""
    rng = np.random.default_rng(84)
    found = {}
    for size, weights, stride in OVERLAPS:
        graph = trained_layer(rng, "conv2d", size, weights, stride=stride)
        case = packed_case(graph, conv2d_layer, random_input(rng, graph))
        distance = case.code.distances[0]
        assert distance is not None
        found[case.code.summary] = shifted(case, distance - (ahead or 0))
    return found


@needs_qemu
@needs_gcc
def test_the_output_may_lie_over_the_input_as_far_as_said() -> None:
    assert wrong_on_m55(overlapped(), "gcc") == []
    assert_right_on_host(overlapped())


@needs_qemu
@needs_gcc
def test_farther_it_may_not() -> None:
    """Four pixels nearer, what is still needed is overwritten: the distances are no mere caution."""
    found = overlapped(ahead=64)
    assert wrong_on_m55(found, "gcc") == [label for label in found if "s2" not in label]


def test_sums_that_leave_int32_are_refused() -> None:
    rng = np.random.default_rng(85)
    graph = vector_graph(rng, 16, 8)
    bias = graph.tensors[2].data
    assert bias is not None
    bias[3] = (1 << 31) - 5
    with pytest.raises(Unpackable, match="may leave int32"):
        fully_connected_layer(graph, graph.nodes[0])
