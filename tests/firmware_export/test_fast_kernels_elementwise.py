"""Sums in one linear form, pools and means four channels at a time, against the simulator on every core."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from fast_kernel_checks import assert_portable, instructions, shifted, wrong_labels
from firmware_builder import ONE_QUICK_COMPILER, needs_gcc
from kernel_harness.program import Case
from packed_cases import example_layers, packed_case, random_input, refused_layers

from firmware_export.graph import Graph, Node, Quantization
from firmware_export.operators import LayerCode, operator_of
from firmware_export.operators import _examples as make
from firmware_export.packing import Unpackable
from firmware_export.packing.add_linear import add_layer, linear_sum
from firmware_export.packing.pools import FAST, fast_pool


def pool_layer(graph: Graph, node: Node) -> LayerCode:
    return fast_pool(operator_of(node).emit(graph, node))


def quantization(scale: float, zero_point: int) -> Quantization:
    return Quantization.per_tensor(float(np.float32(scale)), zero_point)


def sum_graph(shape: tuple[int, ...], scales: tuple[float, float, float], zero_points: tuple[int, int, int]) -> Graph:
    a, b, y = (quantization(s, z) for s, z in zip(scales, zero_points, strict=True))
    inputs = (make.activation(shape, a, "a"), make.activation(shape, b, "b"))
    return make.single_node("add", inputs, y, {"clamp": (-128, 127)})


def pool_graph(op: str, size: tuple[int, int, int], kernel: tuple[int, int]) -> Graph:
    x = make.activation((1, *size), quantization(0.03, 3))
    attributes = {"kernel": kernel, "stride": kernel, "padding": (0, 0, 0, 0), "clamp": (-128, 127)}
    return make.single_node(op, (x,), quantization(0.03, 3), attributes)


@cache
def cases() -> dict[str, Case]:
    found: dict[str, Case] = {}
    packers = {"add": add_layer} | dict.fromkeys(FAST, pool_layer)
    for op, packer in packers.items():
        found |= {f"{label} {i}": case for i, (label, case) in enumerate(example_layers(op, packer)) if i % 2 == 0}
    rng = np.random.default_rng(50)
    for op in ("average_pool2d", "max_pool2d"):
        for size, kernel in (((20, 20, 6), (20, 20)), ((8, 8, 9), (2, 4)), ((9, 6, 4), (3, 2))):
            graph = pool_graph(op, size, kernel)
            found[f"{op} {size} {kernel}"] = packed_case(graph, pool_layer, random_input(rng, graph))
    return found


@pytest.mark.parametrize("kind", ONE_QUICK_COMPILER)
def test_cortex_m4(kind: str) -> None:
    assert wrong_labels(cases(), kind) == []


def test_portable_steps() -> None:
    assert_portable(list(cases().values()))


def test_both_forms_of_the_sum_are_among_the_cases() -> None:
    functions = {case.code.function for case in cases().values()}
    assert {"nn_add_linear", "nn_add_linear_signed"} <= functions
    assert {f"nn_{name}_fast" for name in FAST} <= functions


def test_sums_of_256_extreme_values() -> None:
    """The halves of a word hold 256 times -128 and 127; one pixel more goes to the next word."""
    found = {}
    for value in (-128, 127):
        for width in (256, 257):
            graph = pool_graph("average_pool2d", (1, width, 5), (1, width))
            found[f"{value} {width}"] = packed_case(graph, pool_layer, (np.full((1, 1, width, 5), value, np.int8),))
    assert wrong_labels(found, "zig") == []
    assert_portable(list(found.values()))


def test_sum_in_place_of_its_first_input() -> None:
    rng = np.random.default_rng(51)
    graph = sum_graph((1, 5, 7, 3), (0.031, 0.0473, 0.0391), (-128, 4, -128))
    case = packed_case(graph, add_layer, random_input(rng, graph))
    assert wrong_labels({"in place": shifted(case, 0), "before": shifted(case, 5)}, "zig") == []


@pytest.mark.parametrize("zero_points", [(-128, 4, -128), (3, -7, 12)])
def test_the_linear_sum_is_exact_for_every_pair(zero_points: tuple[int, int, int]) -> None:
    """All 65536 pairs through the kernel, which is what the proof claims."""
    values = np.arange(-128, 128, dtype=np.int8)
    graph = sum_graph((1, 256, 256), (0.031, 0.0473, 0.0391), zero_points)
    inputs = (np.repeat(values, 256).reshape(1, 256, 256), np.tile(values, 256).reshape(1, 256, 256))
    case = packed_case(graph, add_layer, inputs)
    assert case.code.function == "nn_add_linear"
    assert wrong_labels({"all": case}, "zig") == []


def test_ties_take_the_signed_sum() -> None:
    """With scales 1/2, 1/2 and 1 every odd sum lies halfway and must go away from zero, on both sides."""
    graph = sum_graph((1, 4), (0.5, 0.5, 1.0), (0, 0, 0))
    inputs = tuple(np.array([values], np.int8) for values in ([1, -1, 2, -2], [2, -2, 3, -3]))
    case = packed_case(graph, add_layer, inputs)
    assert case.code.function == "nn_add_linear_signed"
    assert case.expected.tolist() == [[2, -2, 3, -3]]
    assert wrong_labels({"ties": case}, "zig") == []


def test_sums_without_linear_form_say_so() -> None:
    reasons = refused_layers("add", add_layer)
    assert reasons["add relu"] == "no linear form is exact for all pairs"
    assert reasons["add channels, constant None"] == reasons["add same shape, constant 0"]
    assert reasons["add channels, constant 1"] == "the inputs are no two activations of one shape"
    assert reasons["add one side vanishes"] == "scale ratios 1e-12 and 1"
    with pytest.raises(Unpackable):
        linear_sum(np.zeros((256, 256), np.int64), (0.5, 0.5), (0, 0))


def test_what_is_no_pool_stays_as_it_is() -> None:
    code = LayerCode("nn_relu", "nn_relu_params", {}, sources=("relu.c",))
    assert fast_pool(code) is code


@needs_gcc
def test_instructions() -> None:
    """Per element: a sum costs 5.75, a global average pool less than 2."""
    rng = np.random.default_rng(52)
    graph = sum_graph((1, 16, 16, 16), (0.031, 0.0473, 0.0391), (-128, 4, -128))
    assert instructions(packed_case(graph, add_layer, random_input(rng, graph))) / 4096 < 5.8
    graph = pool_graph("average_pool2d", (8, 8, 32), (8, 8))
    assert instructions(packed_case(graph, pool_layer, random_input(rng, graph))) / 2048 < 2.1
