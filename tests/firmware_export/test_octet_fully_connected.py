"""fully_connected_octet against the simulator on Cortex-M3 and M0+, and on the host."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from firmware_builder import COMPILER, COMPILERS, needs_gcc
from kernel_harness.program import Case
from packed_cases import example_layers, packed_case, random_input, refused_layers
from plain_core_cases import CORES, fails_on_host, fully_connected_packer, run, vector_layer, wrong

from firmware_export.packing import Unpackable
from firmware_export.packing.fully_connected_octet import fully_connected_layer

SHAPES = [(8, 4), (64, 10), (128, 9), (40, 7), (256, 2), (96, 1), (22, 3), (7, 16), (300, 6), (1, 8), (2, 17), (15, 24)]
each_core = pytest.mark.parametrize("core_class", CORES)


@cache
def cases(core_class: str) -> dict[str, Case]:
    """Examples and layers like trained ones: every remainder of depth and outputs, all forms."""
    rng = np.random.default_rng(140)
    packer = fully_connected_packer(core_class)
    found = {f"{label} {i}": case for i, (label, case) in enumerate(example_layers("fully_connected", packer)) if i % 2 == 0}
    for depth, outputs in SHAPES:
        for zero_points, deviation in (((-128, -128), 80), ((89, 11), 80), ((4, 4), 8), ((-128, -5), 1e8)):
            graph = vector_layer(rng, depth, outputs, zero_points, deviation)
            label = f"{depth} {outputs} {zero_points} {deviation}"
            found[label] = packed_case(graph, packer, random_input(rng, graph))
    graph = vector_layer(rng, 19, 11, batches=3, clamp=(-100, 50))
    found["batches"] = packed_case(graph, packer, random_input(rng, graph))
    return found


@each_core
def test_all_kernels_are_among_the_cases(core_class: str) -> None:
    names = {case.code.function.removeprefix("nn_fully_connected_octet_") for case in cases(core_class).values()}
    assert names == {"linear", "signed", "general"}


@each_core
@pytest.mark.parametrize("kind", COMPILERS)
def test_every_byte(core_class: str, kind: str) -> None:
    some = dict(list(cases(core_class).items())[:: 1 if kind == COMPILER else 3])
    assert wrong(some, core_class, kind) == []


@each_core
def test_host(core_class: str) -> None:
    assert not fails_on_host(list(cases(core_class).values()))


@needs_gcc
@pytest.mark.parametrize("core_class, most", [("v7m", 1.2), ("v6m", 3.4)])
def test_instructions_of_a_product(core_class: str, most: float) -> None:
    """The inner loop is 8 instructions for 8 products on a Cortex-M3, 24.5 on a Cortex-M0+."""
    rng = np.random.default_rng(4)
    graph = vector_layer(rng, 640, 64)
    found = run([packed_case(graph, fully_connected_packer(core_class), random_input(rng, graph))], core_class, "gcc")
    assert found.failures == [0]
    assert 1 < found.instructions[0] / (640 * 64) < most


@each_core
@pytest.mark.parametrize("weight", [-128, 127])
@pytest.mark.parametrize("value", [-128, 127])
def test_largest_sums(core_class: str, weight: int, value: int) -> None:
    """A depth of 255: the most that 24 bits are sure to hold; fields beside the largest ones are 0 or of the other sign."""
    rng = np.random.default_rng(5)
    found = {}
    for zero_point in (-128, 127):
        graph = vector_layer(rng, 255, 8, (zero_point, 0), 1)
        data = graph.tensors[1].data
        assert data is not None
        data[:] = np.array([weight, 0, -weight if weight > 0 else 127, weight, 1, weight, weight, -1])[:, None]
        x = np.full((1, 255), value, np.int8)
        found[f"{zero_point}"] = packed_case(graph, fully_connected_packer(core_class), (x,))
    assert wrong(found, core_class, COMPILER) == []
    assert not fails_on_host(list(found.values()))


def test_a_sum_of_more_than_24_bits() -> None:
    rng = np.random.default_rng(9)
    graph = vector_layer(rng, 4000, 2)
    with pytest.raises(Unpackable, match="24 bits"):
        fully_connected_layer(graph, graph.nodes[0], core_class="v7m")


def test_what_cannot_be_packed() -> None:
    """Only what wraps around in the reference too."""
    reasons = set(refused_layers("fully_connected", fully_connected_packer("v6m")).values())
    assert reasons <= {"an accumulator may leave int32"}


def test_scratch() -> None:
    """A byte for each element of the vector, a word on a Cortex-M0+."""
    rng = np.random.default_rng(6)
    graph = vector_layer(rng, 37, 5)
    sizes = {name: fully_connected_layer(graph, graph.nodes[0], core_class=name).scratch_bytes for name in CORES}
    assert sizes == {"v7m": 37, "v6m": 4 * 37}


def test_weights_in_flash() -> None:
    """A byte each, for the next multiple of eight outputs, biased by 128; outputs side by side."""
    rng = np.random.default_rng(7)
    graph = vector_layer(rng, 6, 11)
    code = fully_connected_layer(graph, graph.nodes[0], core_class="v7m")
    packed = next(constant.data for constant in code.constants if constant.suffix == "weights")
    octets = packed.astype("<u4").view(np.uint8).reshape(2, 6, 8).astype(int) - 128
    weights = graph.tensors[1].data
    assert weights is not None
    np.testing.assert_array_equal(octets.transpose(0, 2, 1).reshape(16, 6)[:11], weights)
    assert not octets.transpose(0, 2, 1).reshape(16, 6)[11:].any()
