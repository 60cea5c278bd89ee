"""conv2d_trio against the simulator on Cortex-M3 and M0+, and on the host; how far it may overlap its input."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from firmware_builder import COMPILER, COMPILERS, compiler, needs_gcc
from kernel_harness.machine import has_qemu, run_qemu, run_unicorn
from kernel_harness.program import Case, build_program
from packed_cases import example_layers, packed_case, random_input, refused_layers, trained_layer
from plain_core_cases import CORES, conv2d_packer, fails_on_host, overlapped, run, wrong

from firmware_export.graph import Graph
from firmware_export.packing import Unpackable
from firmware_export.packing.conv2d_trio import conv2d_layer

SHAPES = {
    "3x3x16": ((9, 10, 16), (16, 3, 3, 16), (1, 1)),
    "3x3x16 stride 2": ((10, 10, 16), (24, 3, 3, 16), (2, 2)),
    "3x3x3": ((12, 11, 3), (16, 3, 3, 3), (1, 1)),
    "3x3x3 stride 2, wide": ((17, 26, 3), (8, 3, 3, 3), (2, 2)),
    "10x4x1 stride 2": ((21, 10, 1), (9, 10, 4, 1), (2, 2)),
    "1x1x64": ((5, 5, 64), (32, 1, 1, 64), (1, 1)),
    "1x1x57 odd channels": ((6, 6, 57), (31, 1, 1, 57), (1, 1)),
    "1x1x2 one output": ((3, 7, 2), (1, 1, 1, 2), (1, 1)),
    "1x1 stride 3": ((10, 19, 5), (4, 1, 1, 5), (3, 3)),
    "5x5x6": ((7, 7, 6), (5, 5, 5, 6), (1, 1)),
    "one pixel": ((1, 1, 30), (7, 1, 1, 30), (1, 1)),
    "six pixels": ((1, 6, 30), (7, 1, 1, 30), (1, 1)),
    "seven pixels": ((7, 1, 12), (3, 3, 3, 12), (1, 1)),
}
WIDE_SHAPES = {
    "3x3x64": ((5, 9, 64), (6, 3, 3, 64), (1, 1)),
    "3x3x64 stride 2": ((9, 8, 64), (5, 3, 3, 64), (2, 2)),
    "1x1x800": ((3, 3, 800), (4, 1, 1, 800), (1, 1)),
    "2x2x256": ((3, 4, 256), (3, 2, 2, 256), (1, 1)),
    "1x3x400": ((2, 3, 400), (2, 1, 3, 400), (1, 1)),
}
each_core = pytest.mark.parametrize("core_class", CORES)


@cache
def narrow_cases(core_class: str) -> dict[str, Case]:
    """Examples, and layers like trained ones with both kinds of output stage."""
    rng = np.random.default_rng(120)
    packer = conv2d_packer(core_class)
    found = {f"{label} {i}": case for i, (label, case) in enumerate(example_layers("conv2d", packer)) if i % 3 == 0}
    for label, (size, weights, stride) in SHAPES.items():
        for zero_points in ((-128, -128), (4, 11), (83, -128)):
            graph = trained_layer(rng, "conv2d", size, weights, stride=stride, zero_points=zero_points)
            found[f"{label} {zero_points}"] = packed_case(graph, packer, random_input(rng, graph))
        if size[0] >= weights[1] and size[1] >= weights[2]:
            graph = trained_layer(rng, "conv2d", size, weights, stride=stride, same=False)
            found[f"{label} valid"] = packed_case(graph, packer, random_input(rng, graph))
    for deviation in (0.5, 20, 2000, 12000, 1e6, 1e9):
        graph = trained_layer(rng, "conv2d", (5, 4, 16), (6, 3, 3, 16), zero_points=(0, 7), deviation=deviation)
        found[f"deviation {deviation}"] = packed_case(graph, packer, random_input(rng, graph))
    return found


@cache
def wide_cases(core_class: str) -> dict[str, Case]:
    """Layers whose sums are wider than one pass."""
    rng = np.random.default_rng(121)
    found = {}
    for label, (size, weights, stride) in WIDE_SHAPES.items():
        for zero_points in ((-128, -128), (4, 11)):
            graph = trained_layer(rng, "conv2d", size, weights, stride=stride, zero_points=zero_points)
            found[f"{label} {zero_points}"] = packed_case(graph, conv2d_packer(core_class), random_input(rng, graph))
    return found


@each_core
def test_all_kernels_and_forms_are_among_the_cases(core_class: str) -> None:
    ending = "_flipped" if core_class == "v6m" else ""
    cases = (narrow_cases(core_class) | wide_cases(core_class)).values()
    calls = {(case.code.function, case.code.fields["form"]) for case in cases}
    narrow, wide = f"nn_conv2d_trio{ending}", f"nn_conv2d_trio_wide{ending}"
    assert {(narrow, "0"), (narrow, "1"), (wide, "0"), (wide, "1"), (wide, "2")} == calls
    assert all(int(case.code.fields["passes"]) > 1 for case in wide_cases(core_class).values())


@each_core
@pytest.mark.parametrize("kind", COMPILERS)
def test_every_byte(core_class: str, kind: str) -> None:
    """All with one compiler, some with the other."""
    for cases in (narrow_cases(core_class), wide_cases(core_class)):
        some = dict(list(cases.items())[:: 1 if kind == COMPILER else 3])
        assert wrong(some, core_class, kind) == []


@each_core
def test_host(core_class: str) -> None:
    assert not fails_on_host([*narrow_cases(core_class).values(), *wide_cases(core_class).values()])


@needs_gcc
@pytest.mark.skipif(not has_qemu(), reason="qemu-system-arm is not installed")
def test_qemu_counts_the_same_instructions() -> None:
    elf = build_program(list(narrow_cases("v7m").values())[-12:], compiler("gcc"), "cortex-m3")
    in_qemu, in_unicorn = run_qemu(elf, "cortex-m3"), run_unicorn(elf, "cortex-m3")
    assert not in_qemu.failed and not in_unicorn.failed
    assert in_qemu.instructions == in_unicorn.instructions


@needs_gcc
@pytest.mark.parametrize("core_class, least, most", [("v7m", 1.02, 1.2), ("v6m", 1.7, 2.25)])
def test_instructions_of_a_large_layer(core_class: str, least: float, most: float) -> None:
    """The inner loop is 12 instructions for 12 products on a Cortex-M3, 10 for 6 on a Cortex-M0+."""
    rng = np.random.default_rng(4)
    graph = trained_layer(rng, "conv2d", (18, 18, 24), (32, 3, 3, 24))
    found = run([packed_case(graph, conv2d_packer(core_class), random_input(rng, graph))], core_class, "gcc")
    assert found.failures == [0]
    assert least < found.instructions[0] / (18 * 18 * 32 * 9 * 24) < most


def overlap_graphs() -> list[Graph]:
    rng = np.random.default_rng(6)
    shapes = [
        ((8, 7, 4), (4, 3, 3, 4), (1, 1)), ((7, 8, 4), (6, 3, 3, 4), (1, 1)), ((9, 9, 4), (8, 3, 3, 4), (2, 2)),
        ((5, 5, 8), (8, 1, 1, 8), (1, 1)), ((5, 6, 8), (16, 1, 1, 8), (1, 1)), ((6, 6, 16), (7, 1, 1, 16), (1, 1)),
        ((9, 14, 3), (6, 3, 3, 3), (2, 2)), ((4, 5, 512), (512, 1, 1, 512), (1, 1)),
    ]  # fmt: skip
    return [trained_layer(rng, "conv2d", size, weights, stride=stride) for size, weights, stride in shapes]


@each_core
def test_overlap_is_safe_at_the_distance_and_not_below_it(core_class: str) -> None:
    """The distance is exact: one byte less, and some input is overwritten before it is read."""
    rng = np.random.default_rng(7)
    graphs = overlap_graphs()[:-1] * 3
    found = [packed_case(graph, conv2d_packer(core_class), random_input(rng, graph)) for graph in graphs]
    distances = [case.code.distances[0] for case in found]
    at = [overlapped(case, distance) for case, distance in zip(found, distances, strict=True) if distance is not None]
    below = [overlapped(case, distance - 1) for case, distance in zip(found, distances, strict=True) if distance is not None]
    assert len(at) == len(graphs)
    assert not run(at, core_class, COMPILER).failed
    assert not fails_on_host(at)
    spoilt = np.array(run(below, core_class, COMPILER).failures).reshape(3, -1)
    assert np.all(spoilt.any(0))


@each_core
def test_overlap_of_wide_sums(core_class: str) -> None:
    """The last pass of a pixel's sums is read before the first of its outputs is written."""
    graph = overlap_graphs()[-1]
    case = packed_case(graph, conv2d_packer(core_class), random_input(np.random.default_rng(8), graph))
    assert "wide" in case.code.function and case.code.distances == (0,)
    assert not run([overlapped(case, 0)], core_class, COMPILER).failed


def test_in_place() -> None:
    """A 1x1 layer that does not grow needs no distance; 3x3 needs one row and a few pixels."""
    distances = [conv2d_layer(graph, graph.nodes[0], core_class="v7m").distances[0] for graph in overlap_graphs()]
    assert distances[3] == 0 and distances[7] == 0
    assert distances[5] is not None and distances[5] < 0
    assert distances[0] is not None and 7 * 4 < distances[0] <= 8 * 4 + 6 * 4


def test_what_cannot_be_packed_says_why() -> None:
    """Only sums that may wrap around in the reference too."""
    assert set(refused_layers("conv2d", conv2d_packer("v7m"))) <= {"conv2d factor above 1", "factor above 1", "saturation"}


def test_a_depth_that_no_number_of_passes_divides() -> None:
    rng = np.random.default_rng(9)
    graph = trained_layer(rng, "conv2d", (1, 1, 6007), (2, 1, 1, 6007))
    with pytest.raises(Unpackable, match="64 passes"):
        conv2d_layer(graph, graph.nodes[0], core_class="v7m")


EXTREMES = {
    "weights -128": (np.full(36, -128), -128),
    "weights 127": (np.full(36, 127), 127),
    "signs alternate": (np.where(np.arange(36) % 2 == 0, 127, -128), 0),
    "only the last": (np.r_[np.zeros(35), -128], -5),
    "all 0": (np.zeros(36), 3),
}


@each_core
@pytest.mark.parametrize("label", EXTREMES)
def test_extreme_weights_and_inputs(core_class: str, label: str) -> None:
    """The largest sums of either sign, in all channels and in neighbouring pixels with the opposite sign."""
    weights, zero_point = EXTREMES[label]
    rng = np.random.default_rng(10)
    found = {}
    for deviation in (1, 80, 5000):
        graph = trained_layer(rng, "conv2d", (4, 6, 4), (5, 3, 3, 4), zero_points=(zero_point, 9), deviation=deviation)
        data = graph.tensors[1].data
        assert data is not None
        data[:] = weights.reshape(1, 3, 3, 4)
        data[1] = -np.maximum(weights, -127).reshape(3, 3, 4)
        pattern = np.where(np.arange(4 * 6 * 4) // 4 % 2 == 0, 127, -128).reshape(1, 4, 6, 4).astype(np.int8)
        for name, x in (("high", np.full_like(pattern, 127)), ("low", np.full_like(pattern, -128)), ("both", pattern)):
            found[f"{deviation} {name}"] = packed_case(graph, conv2d_packer(core_class), (x,))
    assert wrong(found, core_class, COMPILER) == []
    assert not fails_on_host(list(found.values()))


@each_core
def test_clamp_narrower_than_int8(core_class: str) -> None:
    rng = np.random.default_rng(11)
    graph = trained_layer(rng, "conv2d", (5, 7, 8), (5, 3, 3, 8), zero_points=(-128, -20), deviation=300)
    graph.nodes[0].attributes["clamp"] = (-20, 60)
    case = packed_case(graph, conv2d_packer(core_class), random_input(rng, graph))
    assert case.expected.min() == -20 and case.expected.max() == 60
    assert wrong({"clamp": case}, core_class, COMPILER) == []
