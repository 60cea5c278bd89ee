"""The fast kernels against the tflite-micro wheel itself: bytes that never went through our simulator."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from fast_kernel_checks import assert_portable, wrong_labels
from firmware_builder import COMPILER
from kernel_harness.program import Case
from oracles import tflite_micro
from packed_cases import Packer, random_input, trained_layer, trained_weights

from firmware_export.graph import Graph, Quantization
from firmware_export.operators import _examples as make
from firmware_export.packing.add_linear import add_layer
from firmware_export.packing.conv2d_r256 import conv2d_layer
from firmware_export.packing.conv2d_winograd import winograd_layer
from firmware_export.packing.depthwise_planes import depthwise_layer
from firmware_export.packing.fully_connected_r256 import fully_connected_layer
from firmware_export.write_tflite import write_tflite

CONVOLUTIONS = [((9, 8, 8), (6, 3, 3, 8), (1, 1)), ((8, 8, 3), (8, 3, 3, 3), (2, 2)), ((6, 7, 12), (10, 1, 1, 12), (1, 1))]


def judged(graph: Graph, packer: Packer, rng: np.random.Generator) -> Case:
    """A packed call whose expected bytes come from the wheel."""
    node = graph.nodes[0]
    inputs = random_input(rng, graph)
    given = tuple(inputs[graph.inputs.index(index)] for index in graph.activation_inputs(node))
    return Case(packer(graph, node), given, tflite_micro(write_tflite(graph), list(inputs))[0])


def check(cases: dict[str, Case]) -> None:
    assert wrong_labels(cases, COMPILER) == []
    assert_portable(list(cases.values()))


@pytest.mark.parametrize("zero_points", [(-128, -128), (-128, 4), (31, -90)])
def test_convolutions(zero_points: tuple[int, int]) -> None:
    rng = np.random.default_rng(80)
    cases = {}
    for size, weights, stride in CONVOLUTIONS:
        graph = trained_layer(rng, "conv2d", size, weights, stride=stride, zero_points=zero_points)
        cases[f"{size} {weights}"] = judged(graph, conv2d_layer, rng)
    graph = trained_layer(rng, "conv2d", *CONVOLUTIONS[0][:2], zero_points=zero_points)
    cases["winograd"] = judged(graph, partial(winograd_layer, scratch_limit=1 << 20), rng)
    check(cases)


@pytest.mark.parametrize("stride", [(1, 1), (2, 2)])
def test_depthwise(stride: tuple[int, int]) -> None:
    rng = np.random.default_rng(81)
    graphs = [
        trained_layer(rng, "depthwise_conv2d", (9, 7, c), (1, 3, 3, c), stride=stride, zero_points=(zero_point, -128))
        for c, zero_point in ((4, -128), (7, 12), (3, -5))
    ]
    check({f"{i}": judged(graph, depthwise_layer, rng) for i, graph in enumerate(graphs)})


@pytest.mark.parametrize("zero_point", [-128, 24])
def test_fully_connected(zero_point: int) -> None:
    rng = np.random.default_rng(82)
    cases = {}
    for depth, outputs in ((64, 10), (30, 7)):
        x = make.activation((1, depth), Quantization.per_tensor(0.02, -100))
        weights = trained_weights(rng, (outputs, depth), 0)
        bias = make.random_bias(rng, x, weights, outputs, 2000)
        scale = float(np.float32(74 * 32 * np.sqrt(depth) * 0.02 * 2.0**-8 / 60))
        output = Quantization.per_tensor(scale, zero_point)
        graph = make.single_node("fully_connected", (x, weights, bias), output, {"clamp": (-128, 127)})
        cases[f"{depth}"] = judged(graph, fully_connected_layer, rng)
    check(cases)


def test_add() -> None:
    rng = np.random.default_rng(83)
    cases = {}
    for scales, zero_points in (((0.031, 0.0473, 0.0391), (-128, 4, -128)), ((0.5, 0.5, 1.0), (0, 3, 5))):
        a, b, y = (Quantization.per_tensor(float(np.float32(s)), z) for s, z in zip(scales, zero_points, strict=True))
        sides = (make.activation((1, 9, 9, 5), a, "a"), make.activation((1, 9, 9, 5), b, "b"))
        cases[f"{scales}"] = judged(make.single_node("add", sides, y, {"clamp": (-128, 127)}), add_layer, rng)
    check(cases)
