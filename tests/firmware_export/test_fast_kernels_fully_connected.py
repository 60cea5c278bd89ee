"""fully_connected_r256 against the simulator on every core it is built for, with and without scratch; its instructions."""

from __future__ import annotations

from functools import cache, partial

import numpy as np
import pytest
from fast_kernel_checks import assert_portable, instructions, wrong_labels
from firmware_builder import COMPILER, ONE_QUICK_COMPILER, compiler, needs_gcc
from kernel_harness.machine import run_unicorn
from kernel_harness.program import GUARD, Case, build_program
from packed_cases import example_layers, packed_case, random_input, refused_layers, trained_weights

from firmware_export.graph import Graph, Quantization
from firmware_export.operators import _examples as make
from firmware_export.packing import Unpackable
from firmware_export.packing.fully_connected_r256 import fully_connected_layer, input_in_scratch

SHAPES = [(8, 4), (64, 10), (128, 9), (40, 7), (256, 2), (96, 1), (22, 3), (7, 5), (300, 6)]
direct_layer = partial(fully_connected_layer, direct=True)


def layer(
    rng: np.random.Generator, depth: int, outputs: int, zero_points: tuple[int, int] = (-128, -128), deviation: float = 80
) -> Graph:
    """A layer with the statistics of a trained one."""
    x = make.activation((1, depth), Quantization.per_tensor(0.02, zero_points[0]))
    weights = trained_weights(rng, (outputs, depth), 0)
    bias = make.random_bias(rng, x, weights, outputs, 2000)
    scale = float(np.float32(74 * 32 * np.sqrt(depth) * 0.02 * 2.0**-8 / deviation))
    return make.single_node(
        "fully_connected", (x, weights, bias), Quantization.per_tensor(scale, zero_points[1]), {"clamp": (-128, 127)}
    )


@cache
def cases() -> dict[str, Case]:
    """Examples and layers like trained ones, expanded and direct."""
    rng = np.random.default_rng(40)
    found: dict[str, Case] = {}
    for packer, how in ((fully_connected_layer, "expanded"), (direct_layer, "direct")):
        for i, (label, case) in enumerate(example_layers("fully_connected", packer)):
            found[f"{label} {how} {i}"] = case
        for depth, outputs in SHAPES:
            for zero_points, deviation in (((-128, -128), 80), ((89, 11), 80), ((-128, -128), 8), ((4, 4), 8)):
                graph = layer(rng, depth, outputs, zero_points, deviation)
                if how == "expanded" or depth % 8 == 0:
                    case = packed_case(graph, packer, random_input(rng, graph))
                    found[f"{depth} {outputs} {zero_points} {deviation} {how}"] = case
    return found


def test_all_kernels_are_among_the_cases() -> None:
    forms = {f"{how}{form}_{shift}" for how in ("", "direct_") for form in ("linear", "signed") for shift in (8, 12)}
    names = {case.code.function.removeprefix("nn_fully_connected_r256_") for case in cases().values()}
    assert forms | {"general"} == names


@pytest.mark.parametrize("kind", ONE_QUICK_COMPILER)
def test_cortex_m4(kind: str) -> None:
    assert wrong_labels(cases(), kind) == []


def test_portable_steps() -> None:
    assert_portable(list(cases().values()))


@needs_gcc
@pytest.mark.parametrize("direct, limit", [(False, 0.95), (True, 1.09)])
def test_instructions(direct: bool, limit: float) -> None:
    """Of a layer of the anomaly detector: 27 or 32 instructions for 32 products, and what is around them."""
    rng = np.random.default_rng(41)
    graph = layer(rng, 128, 128)
    case = packed_case(graph, partial(fully_connected_layer, direct=direct), random_input(rng, graph))
    assert 0.84 < instructions(case) / (128 * 128) < limit


@pytest.mark.parametrize("depth", [64, 22, 7, 4])
def test_input_may_lie_in_the_scratch(depth: int) -> None:
    """At input_in_scratch it is expanded over itself; four bytes earlier, unread elements are overwritten."""
    rng = np.random.default_rng(42)
    graph = layer(rng, depth, 4)
    case = packed_case(graph, fully_connected_layer, random_input(rng, graph))
    place = input_in_scratch(depth)
    failures = []
    for offset in (place, place - 4):
        scratch = 2 * GUARD
        offsets = (scratch + offset, scratch + case.code.scratch_bytes + depth + GUARD, scratch)
        moved = Case(case.code, case.inputs, case.expected, offsets)
        failures += run_unicorn(build_program([moved], compiler(COMPILER))).failures
    assert failures[0] == 0
    assert depth <= 4 or failures[1] > 0


def test_direct_needs_whole_steps_and_a_short_form() -> None:
    rng = np.random.default_rng(43)
    graph = layer(rng, 12, 4)
    with pytest.raises(Unpackable, match="12 is no multiple of 8"):
        direct_layer(graph, graph.nodes[0])
    graph = layer(rng, 8, 4, deviation=1e5)
    assert fully_connected_layer(graph, graph.nodes[0]).function.endswith("general")
    with pytest.raises(Unpackable, match="no short form"):
        direct_layer(graph, graph.nodes[0])


def test_every_example_can_be_packed_one_way_or_another() -> None:
    assert set(refused_layers("fully_connected", fully_connected_layer)) <= {"factor above 1", "saturation"}


def test_weights_cost_a_byte_each() -> None:
    """Records hold a start and a factor for each output beside the weights, nothing else."""
    graph = layer(np.random.default_rng(44), 128, 128)
    code = fully_connected_layer(graph, graph.nodes[0])
    assert sum(constant.data.nbytes for constant in code.constants) == 128 * 128 + 8 * 128
