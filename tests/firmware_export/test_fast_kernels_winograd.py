"""conv2d_winograd against the simulator on every core it is built for; its instructions; how far it may overlap its input."""

from __future__ import annotations

from functools import cache, partial

import numpy as np
import pytest
from fast_kernel_checks import assert_portable, instructions, shifted, wrong_labels
from firmware_builder import COMPILER, COMPILERS, compiler, needs_gcc
from kernel_harness.machine import has_qemu, run_qemu, run_unicorn
from kernel_harness.program import Case, build_program
from packed_cases import example_layers, packed_case, random_input, refused_layers, trained_layer

from firmware_export.graph import Graph
from firmware_export.operators._window import Window
from firmware_export.packing import Unpackable
from firmware_export.packing.conv2d_r256 import conv2d_layer
from firmware_export.packing.conv2d_winograd import Blocking, best_blocking, blockings, distance, winograd_layer

LARGE = 1 << 20
SHAPES = [(8, 8, 4), (7, 9, 8), (1, 1, 4), (2, 3, 16), (5, 12, 12), (4, 4, 64), (3, 5, 60)]


def trained(
    rng: np.random.Generator, size: tuple[int, int, int], outputs: int, zero_points: tuple[int, int] = (-128, -128)
) -> Graph:
    return trained_layer(rng, "conv2d", size, (outputs, 3, 3, size[2]), zero_points=zero_points)


@cache
def cases() -> dict[str, Case]:
    """Examples, layers like trained ones with little and with much scratch, and all kinds of output stage."""
    rng = np.random.default_rng(60)
    packer = partial(winograd_layer, scratch_limit=LARGE)
    found = {f"{label} {i}": case for i, (label, case) in enumerate(example_layers("conv2d", packer))}
    for size in SHAPES:
        for zero_points in ((-128, -128), (83, 11)):
            graph = trained(rng, size, 6, zero_points)
            tiles = -(-size[0] // 2) * -(-size[1] // 2)
            limits = {blocking.scratch_bytes(size[2], 6) for blocking in blockings(tiles, 6)}
            for limit in sorted(limits)[:: max(1, len(limits) // 3)]:
                case = packed_case(graph, partial(winograd_layer, scratch_limit=limit), random_input(rng, graph))
                found[f"{size} {zero_points} {limit}"] = case
    for deviation in (3, 2000, 15000):
        for zero_points in ((-128, -128), (0, 7)):
            graph = trained_layer(rng, "conv2d", (5, 4, 16), (6, 3, 3, 16), zero_points=zero_points, deviation=deviation)
            found[f"deviation {deviation} {zero_points}"] = packed_case(graph, packer, random_input(rng, graph))
    valid = trained_layer(rng, "conv2d", (7, 6, 8), (4, 3, 3, 8), same=False)
    return found | {"valid": packed_case(valid, packer, random_input(rng, valid))}


def test_all_kernels_are_among_the_cases() -> None:
    names = {case.code.function.removeprefix("nn_conv2d_winograd_") for case in cases().values()}
    assert names == {f"shift_{shift}" for shift in (7, 10, 13)}
    assert {case.code.fields["resident"] for case in cases().values()} == {"0", "1"}


@pytest.mark.parametrize("kind", COMPILERS)
def test_cortex_m4(kind: str) -> None:
    assert wrong_labels(cases(), kind) == []


def test_portable_steps() -> None:
    assert_portable(list(cases().values()))


def test_extreme_weights_and_pixels() -> None:
    """All at -127 or 127 in the pattern that makes the transforms largest, all inputs at -128 and 127."""
    rng = np.random.default_rng(61)
    found = {}
    for sign in (1, -1):
        graph = trained(rng, (6, 6, 16), 2, (0, 0))
        weights = graph.tensors[1].data
        assert weights is not None
        weights[...] = 127 * sign * np.where(np.indices(weights.shape).sum(0) % 2, 1, -1)
        for value in (-128, 127):
            inputs = (np.full((1, 6, 6, 16), value, np.int8),)
            found[f"{sign} {value}"] = packed_case(graph, partial(winograd_layer, scratch_limit=LARGE), inputs)
        checked = (np.where(np.indices((1, 6, 6, 16)).sum(0) % 2, 127, -128).astype(np.int8),)
        found[f"{sign} checked"] = packed_case(graph, partial(winograd_layer, scratch_limit=LARGE), checked)
    assert wrong_labels(found, COMPILER) == []
    assert_portable(list(found.values()))


@needs_gcc
@pytest.mark.parametrize("channels, limit", [(16, 0.60), (32, 0.52)])
def test_instructions(channels: int, limit: float) -> None:
    """Of layers that take 0.86 and 0.80 instructions for each product without it."""
    rng = np.random.default_rng(62)
    graph = trained(rng, (16, 16, channels), channels)
    inputs = random_input(rng, graph)
    count = instructions(packed_case(graph, partial(winograd_layer, scratch_limit=22000), inputs))
    assert count < limit * 256 * 9 * channels * channels
    assert count < instructions(packed_case(graph, conv2d_layer, inputs))


@needs_gcc
@pytest.mark.skipif(not has_qemu(), reason="qemu-system-arm is not installed")
def test_qemu_counts_the_same_instructions() -> None:
    elf = build_program(list(cases().values())[-6:], compiler("gcc"))
    in_qemu, in_unicorn = run_qemu(elf), run_unicorn(elf)
    assert not in_qemu.failed and not in_unicorn.failed
    assert in_qemu.instructions == in_unicorn.instructions


def window_of(graph: Graph) -> Window:
    weights = graph.tensors[1]
    return Window.of(graph.nodes[0], graph.tensors[0], (weights.shape[1], weights.shape[2]))


def test_overlap_is_safe_at_the_distance_and_not_below_it() -> None:
    rng = np.random.default_rng(63)
    at, below = {}, {}
    for size, outputs in (((8, 8, 4), 4), ((7, 6, 8), 4), ((6, 9, 4), 8)):
        for tiles in (2, 6):
            blocking = Blocking(tiles, tiles == 2)
            for _ in range(3):
                graph = trained(rng, size, outputs)
                ahead = distance(window_of(graph), outputs, blocking)
                packer = partial(winograd_layer, scratch_limit=LARGE, blocking=blocking)
                case = packed_case(graph, packer, random_input(rng, graph))
                at[f"{size} {tiles} {len(at)}"] = shifted(case, ahead)
                below[f"{size} {tiles} {len(below)}"] = shifted(case, ahead - 1)
    assert wrong_labels(at, COMPILER) == []
    assert_portable(list(at.values()))
    wrong = wrong_labels(below, COMPILER)
    assert {label.rsplit(" ", 1)[0] for label in wrong} == {label.rsplit(" ", 1)[0] for label in below}


def test_one_block_may_lie_anywhere() -> None:
    graph = trained(np.random.default_rng(64), (4, 4, 4), 2)
    assert distance(window_of(graph), 2, Blocking(4, False)) == -64


def test_more_scratch_never_costs_instructions() -> None:
    graph = trained(np.random.default_rng(65), (16, 16, 32), 32)
    window = window_of(graph)
    costs = []
    for limit in (7000, 10000, 20000, 40000, 80000):
        blocking = best_blocking(window, 32, limit)
        assert blocking.scratch_bytes(32, 32) <= limit
        costs.append(blocking.instructions(64, 32, 32))
    assert costs == sorted(costs, reverse=True) and costs[0] > costs[-1]


def test_weights_cost_a_byte_each() -> None:
    graph = trained(np.random.default_rng(66), (8, 8, 16), 16)
    code = winograd_layer(graph, graph.nodes[0], scratch_limit=LARGE)
    assert [constant.data.nbytes for constant in code.constants] == [16 * 9 * 16, 16 * 12]


def test_what_cannot_be_packed_says_why() -> None:
    rng = np.random.default_rng(67)
    reasons = set(refused_layers("conv2d", partial(winograd_layer, scratch_limit=LARGE)).values())
    assert any("a window of" in reason for reason in reasons) and any("channels and" in reason for reason in reasons)
    graph = trained(rng, (8, 8, 16), 16)
    with pytest.raises(Unpackable, match="at most 1,000 bytes"):
        winograd_layer(graph, graph.nodes[0], scratch_limit=1000)
    coarse = trained_layer(rng, "conv2d", (4, 4, 4), (2, 3, 3, 4), zero_points=(0, 0), deviation=1e6)
    with pytest.raises(Unpackable, match="no short form"):
        winograd_layer(coarse, coarse.nodes[0], scratch_limit=LARGE)
