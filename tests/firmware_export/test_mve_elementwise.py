"""Sums, pools and means with Helium: every byte the simulator's, all lengths of a last vector, all pairs of values."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from firmware_builder import needs_gcc
from kernel_harness.program import Case
from mve_checks import KINDS, assert_right_on_host, moved, needs_qemu, run_m55, wrong_on_m55
from packed_cases import example_layers, packed_case, random_input

from firmware_export.graph import Graph, Node, Quantization
from firmware_export.operators import LayerCode, operator_of
from firmware_export.operators import _examples as make
from firmware_export.packing import Unpackable
from firmware_export.packing.add_mve import add_layer
from firmware_export.packing.pools import fast_pool
from firmware_export.simulate import simulate

SCALES = [(0.031, 0.047, 0.039), (0.05, 0.05, 0.05), (0.02, 0.08, 0.06)]


def pool_layer(graph: Graph, node: Node) -> LayerCode:
    return fast_pool(operator_of(node).emit(graph, node))


def sum_graph(
    count: int, scales: tuple[float, ...], zero_points: tuple[int, ...], clamp: tuple[int, int] = (-128, 127)
) -> Graph:
    a, b, y = (Quantization.per_tensor(float(np.float32(s)), z) for s, z in zip(scales, zero_points, strict=True))
    sides = (make.activation((1, count), a, "a"), make.activation((1, count), b, "b"))
    return make.single_node("add", sides, y, {"clamp": clamp})


def pool_graph(op: str, size: tuple[int, int, int], kernel: tuple[int, int], clamp: tuple[int, int] = (-128, 127)) -> Graph:
    x = Quantization.per_tensor(0.03, 4)
    attributes = {"kernel": kernel, "stride": kernel, "padding": (0, 0, 0, 0), "clamp": clamp}
    return make.single_node(op, (make.activation((1, *size), x),), x, attributes)


@cache
def sums() -> dict[str, Case]:
    """Examples; lengths around one and two vectors; both forms; clamps."""
    rng = np.random.default_rng(100)
    found = {f"{label} {i}": case for i, (label, case) in enumerate(example_layers("add", add_layer))}
    for count in (*range(1, 20), 31, 32, 33, 100):
        for zero_points, clamp in (((-128, -128, -128), (-128, 127)), ((3, -4, 5), (-100, 90))):
            graph = sum_graph(count, SCALES[count % 3], zero_points, clamp)
            try:
                found[f"{count} {zero_points}"] = moved(rng, packed_case(graph, add_layer, random_input(rng, graph)))
            except Unpackable:
                continue
    return found


@cache
def pools() -> dict[str, Case]:
    """Examples, and channels around a vector's 16; sums of more pixels than 16 bits hold."""
    rng = np.random.default_rng(101)
    found = {}
    for op in ("average_pool2d", "max_pool2d", "mean"):
        found |= {f"{label} {i}": case for i, (label, case) in enumerate(example_layers(op, pool_layer)) if i % 3 == 0}
    for op in ("average_pool2d", "max_pool2d"):
        for channels in (1, 15, 16, 17, 32, 40):
            for size, kernel in (((4, 6), (2, 3)), ((5, 5), (5, 5))):
                graph = pool_graph(op, (*size, channels), kernel, (-90, 100))
                found[f"{op} {kernel} {channels}"] = packed_case(graph, pool_layer, random_input(rng, graph))
        for value in (-128, 127):
            graph = pool_graph(op, (20, 26, 16), (20, 26))
            found[f"{op} 520 pixels of {value}"] = packed_case(graph, pool_layer, (np.full((1, 20, 26, 16), value, np.int8),))
    return found


def test_both_forms_and_a_clamp_are_among_the_sums() -> None:
    codes = [case.code for case in sums().values()]
    assert {code.function for code in codes} == {"nn_add_mve_linear", "nn_add_mve_signed"}
    assert {code.fields["min"] for code in codes} >= {"-128", "-100"}


@needs_qemu
@pytest.mark.parametrize("kind", KINDS)
def test_sums_on_a_cortex_m55(kind: str) -> None:
    assert wrong_on_m55(sums(), kind) == []


@needs_qemu
@pytest.mark.parametrize("kind", KINDS)
def test_pools_on_a_cortex_m55(kind: str) -> None:
    assert wrong_on_m55(pools(), kind) == []


def test_the_host_runs_the_same_data() -> None:
    assert_right_on_host(sums() | pools())


@needs_qemu
@pytest.mark.parametrize("zero_points", [(-128, -128, -128), (4, -17, 3)])
def test_every_pair_of_values(zero_points: tuple[int, int, int]) -> None:
    graph = sum_graph(1 << 16, SCALES[0], zero_points)
    a, b = (values.reshape(1, -1) for values in np.indices((256, 256)) - 128)
    inputs = (a.astype(np.int8), b.astype(np.int8))
    found = {"all": Case(add_layer(graph, graph.nodes[0]), inputs, simulate(graph, *inputs)[0])}
    assert wrong_on_m55(found, "zig") == []
    assert_right_on_host(found)


@needs_qemu
@needs_gcc
def test_instructions_for_each_element() -> None:
    """40 for sixteen elements of a sum, 4 for sixteen pixels of a global pool with what is left of the loop."""
    rng = np.random.default_rng(102)
    cases = []
    for graph, packer in (
        (sum_graph(8192, SCALES[0], (-128,) * 3), add_layer),
        (pool_graph("average_pool2d", (25, 5, 64), (25, 5)), pool_layer),
    ):
        cases.append(packed_case(graph, packer, random_input(rng, graph)))
    run = run_m55(cases, "gcc")
    assert run.failures == [0, 0]
    assert 2.3 < run.instructions[0] / 8192 < 3.3
    assert run.instructions[1] / 8000 < 0.85
