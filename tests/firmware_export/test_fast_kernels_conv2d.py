"""conv2d_r256 against the simulator on every core it is built for; its instructions; how far it may overlap its input."""

from __future__ import annotations

from functools import cache, partial

import numpy as np
import pytest
from fast_kernel_checks import shifted, wrong_labels
from firmware_builder import COMPILER, ONE_QUICK_COMPILER, compiler, needs_gcc
from kernel_harness.machine import has_qemu, run_host, run_qemu, run_unicorn
from kernel_harness.program import GUARD, Case, build_program, host
from packed_cases import example_layers, packed_case, random_input, refused_layers, trained_layer

from firmware_export.graph import Graph
from firmware_export.operators._window import Window
from firmware_export.packing import Unpackable
from firmware_export.packing.conv2d_r256 import Reading, conv2d_layer, distance

SHAPES = {
    "3x3x16": ((9, 10, 16), (16, 3, 3, 16), (1, 1)),
    "3x3x16 stride 2": ((10, 10, 16), (24, 3, 3, 16), (2, 2)),
    "3x3x3": ((12, 11, 3), (16, 3, 3, 3), (1, 1)),
    "3x3x3 stride 2": ((16, 16, 3), (8, 3, 3, 3), (2, 2)),
    "10x4x1 stride 2": ((21, 10, 1), (64, 10, 4, 1), (2, 2)),
    "1x1x64": ((5, 5, 64), (32, 1, 1, 64), (1, 1)),
    "1x1x57 odd channels": ((6, 6, 57), (31, 1, 1, 57), (1, 1)),
    "1x1x2 one output": ((3, 7, 2), (1, 1, 1, 2), (1, 1)),
    "5x5x6": ((7, 7, 6), (5, 5, 5, 6), (1, 1)),
}


@cache
def cases() -> dict[str, Case]:
    """Examples, and layers like trained ones with both kinds of output stage."""
    rng = np.random.default_rng(20)
    found = {f"{label} {i}": case for i, (label, case) in enumerate(example_layers("conv2d", conv2d_layer))}
    for label, (size, weights, stride) in SHAPES.items():
        for zero_points in ((-128, -128), (4, 11), (83, -128)):
            graph = trained_layer(rng, "conv2d", size, weights, stride=stride, zero_points=zero_points)
            found[f"{label} {zero_points}"] = packed_case(graph, conv2d_layer, random_input(rng, graph))
        for border_limit in (0, 4096):
            graph = trained_layer(rng, "conv2d", size, weights, stride=stride)
            packer = partial(conv2d_layer, border_limit=border_limit)
            found[f"{label} border {border_limit}"] = packed_case(graph, packer, random_input(rng, graph))
    for deviation in (0.5, 20, 2000, 12000):
        graph = trained_layer(rng, "conv2d", (5, 4, 16), (6, 3, 3, 16), zero_points=(0, 7), deviation=deviation)
        found[f"deviation {deviation}"] = packed_case(graph, conv2d_layer, random_input(rng, graph))
    return found


def assert_none_failed(failures: list[int]) -> None:
    assert [label for label, wrong in zip(cases(), failures, strict=True) if wrong] == []


def test_all_kernels_are_among_the_cases() -> None:
    forms = {"general", *(f"{form}_{shift}" for form in ("linear", "signed") for shift in (7, 10, 13))}
    assert forms <= {case.code.function.removeprefix("nn_conv2d_r256_") for case in cases().values()}


@pytest.mark.parametrize("kind", ONE_QUICK_COMPILER)
def test_cortex_m4(kind: str) -> None:
    assert_none_failed(run_unicorn(build_program(list(cases().values()), compiler(kind))).failures)


@pytest.mark.parametrize("core", ["cortex-m0plus", "cortex-m3", "cortex-m7"])
def test_other_cores(core: str) -> None:
    """Cores without the DSP extension run the portable steps on the same packed data."""
    some = list(cases().values())[::5]
    assert not run_unicorn(build_program(some, compiler("zig"), core), core).failed


def test_host() -> None:
    assert not run_host(build_program(list(cases().values()), host(), "host")).failed


@needs_gcc
@pytest.mark.skipif(not has_qemu(), reason="qemu-system-arm is not installed")
def test_qemu_counts_the_same_instructions() -> None:
    elf = build_program(list(cases().values())[-12:], compiler("gcc"))
    in_qemu, in_unicorn = run_qemu(elf), run_unicorn(elf)
    assert not in_qemu.failed and not in_unicorn.failed
    assert in_qemu.instructions == in_unicorn.instructions


@needs_gcc
def test_instructions_of_a_large_layer() -> None:
    """The inner loop is 17 instructions for 24 products; a trained 3x3x32 layer stays below 0.82 in all."""
    rng = np.random.default_rng(4)
    graph = trained_layer(rng, "conv2d", (16, 16, 32), (32, 3, 3, 32))
    run = run_unicorn(build_program([packed_case(graph, conv2d_layer, random_input(rng, graph))], compiler("gcc")))
    assert run.failures == [0]
    assert 0.70 < run.instructions[0] / (256 * 32 * 288) < 0.82


def overlapped(graph: Graph, inputs: tuple[np.ndarray, ...], ahead: int) -> Case:
    """The output beginning `ahead` bytes before the input, scratch behind both."""
    case = packed_case(graph, partial(conv2d_layer, border_limit=0), inputs)
    output = GUARD + max(0, -ahead)
    begin = output + ahead
    scratch = -(-(max(begin + inputs[0].size, output + case.expected.size) + GUARD) // 16) * 16
    return Case(case.code, case.inputs, case.expected, (begin, output, scratch))


def overlap_graphs() -> list[Graph]:
    rng = np.random.default_rng(6)
    shapes = [
        ((8, 7, 4), (4, 3, 3, 4), (1, 1)), ((7, 8, 4), (6, 3, 3, 4), (1, 1)), ((8, 8, 4), (8, 3, 3, 4), (2, 2)),
        ((5, 5, 8), (8, 1, 1, 8), (1, 1)), ((5, 6, 8), (16, 1, 1, 8), (1, 1)), ((6, 6, 16), (7, 1, 1, 16), (1, 1)),
        ((8, 8, 3), (6, 3, 3, 3), (2, 2)),
    ]  # fmt: skip
    return [trained_layer(rng, "conv2d", size, weights, stride=stride) for size, weights, stride in shapes]


def distance_of(graph: Graph) -> int:
    x, weights = graph.tensors[0], graph.tensors[1]
    return distance(Window.of(graph.nodes[0], x, (weights.shape[1], weights.shape[2])), weights.shape[0])


def test_overlap_is_safe_at_the_distance_and_not_below_it() -> None:
    """The distance is exact: one byte less, and some input is overwritten before it is read."""
    rng = np.random.default_rng(7)
    graphs = overlap_graphs() * 4
    inputs = [random_input(rng, graph) for graph in graphs]
    at = [overlapped(g, x, distance_of(g)) for g, x in zip(graphs, inputs, strict=True)]
    below = [overlapped(g, x, distance_of(g) - 1) for g, x in zip(graphs, inputs, strict=True)]
    assert not run_unicorn(build_program(at, compiler(COMPILER))).failed
    assert not run_host(build_program(at, host(), "host")).failed
    spoilt = np.array(run_unicorn(build_program(below, compiler(COMPILER))).failures).reshape(4, -1)
    assert np.all(spoilt.any(0))


def test_in_place() -> None:
    """A 1x1 layer that does not grow needs no distance; 3x3 needs one row and a few pixels."""
    distances = [distance_of(graph) for graph in overlap_graphs()]
    assert distances[3] == 0 and distances[5] < 0
    assert 7 * 4 < distances[0] <= 8 * 4 + 3 * 4


def test_copied_with_its_border_the_input_may_be_overwritten_at_once() -> None:
    rng = np.random.default_rng(8)
    graph = trained_layer(rng, "conv2d", (7, 6, 3), (4, 3, 3, 3))
    case = packed_case(graph, conv2d_layer, random_input(rng, graph))
    assert case.code.fields["padded"] == "1"
    found = {f"{ahead}": shifted(case, ahead) for ahead in (0, -7 * 6 * 3, 50)}
    assert wrong_labels(found, COMPILER) == []
    weights = graph.tensors[1]
    window = Window.of(graph.nodes[0], graph.tensors[0], (weights.shape[1], weights.shape[2]))
    assert distance(window, 4, copied=True) == -7 * 6 * 3


def test_what_cannot_be_packed_says_why() -> None:
    assert set(refused_layers("conv2d", conv2d_layer)) <= {"factor above 1", "saturation"}


def test_a_sum_of_more_than_24_bits() -> None:
    rng = np.random.default_rng(9)
    graph = trained_layer(rng, "conv2d", (1, 1, 6000), (2, 1, 1, 6000))
    with pytest.raises(Unpackable, match="24 bits"):
        conv2d_layer(graph, graph.nodes[0])


def test_weight_of_minus_128() -> None:
    """Alone it is fine; before a negative weight the pair does not fit 16 bits."""
    rng = np.random.default_rng(10)
    graph = trained_layer(rng, "conv2d", (2, 2, 4), (2, 1, 1, 4), zero_points=(0, 0))
    weights = graph.tensors[1].data
    assert weights is not None
    weights[0, 0, 0] = [-128, 5, 3, -128]
    case = packed_case(graph, conv2d_layer, random_input(rng, graph))
    assert not run_host(build_program([case], host(), "host")).failed
    weights[0, 0, 0] = [-128, -1, 0, 0]
    with pytest.raises(Unpackable, match="-128"):
        conv2d_layer(graph, graph.nodes[0])


@pytest.mark.parametrize(
    "kernel, channels, dilation, expected",
    [
        ((3, 3), 16, (1, 1), Reading(3, 12, 0, False)),
        ((3, 3), 3, (1, 1), Reading(3, 2, 1, False)),
        ((1, 1), 57, (1, 1), Reading(1, 15, 0, False)),
        ((10, 4), 1, (1, 1), Reading(10, 1, 0, False)),
        ((3, 3), 4, (1, 2), Reading(1, 9, 0, True)),
        ((3, 1), 4, (2, 2), Reading(3, 1, 0, False)),
        ((3, 3), 1, (1, 1), Reading(1, 3, 0, True)),
    ],
)
def test_reading(kernel: tuple[int, int], channels: int, dilation: tuple[int, int], expected: Reading) -> None:
    window = Window((9, 9), channels, kernel, (1, 1), dilation, (0, 0, 0, 0), (1, 1))
    assert Reading.of(window) == expected
    weights = np.arange(2 * expected.rows * 40).reshape(2, -1)[:, : window.taps * channels]
    ordered = expected.order(weights.astype(np.int64))
    assert sorted(ordered[1].tolist()) == sorted(weights[1].tolist())
