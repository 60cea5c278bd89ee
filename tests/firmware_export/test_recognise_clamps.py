"""Clamps in other words: extrema with one constant, relus in a row, bounds at the quantized limits; no answer changes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from graph_builder import Build, inputs_of
from oracles import tflite_micro
from qdq_builder import Qdq

from firmware_export.check import check
from firmware_export.graph import Graph, Quantization, Tensor
from firmware_export.passes import simplify
from firmware_export.passes.fuse_relu import fuse_relu
from firmware_export.passes.recognise_clamps import recognise_clamps
from firmware_export.read_onnx import read_onnx_bytes
from firmware_export.simulate import simulate
from firmware_export.write_tflite import write_tflite

QUANTIZATION = Quantization.per_tensor(0.05, -7)


def clamped(*steps: tuple[str, int], conv: bool = False, shape: tuple[int, ...] = (), swap: bool = False) -> Graph:
    """An image, or a convolution of it, behind extrema with constants of a shape, one after the other."""
    build = Build(3)
    x = build.activation((1, 4, 5, 3), 0.05, -7)
    last = build.conv(x, 3, scale=0.05, zero_point=-7) if conv else x
    for op, bound in steps:
        constant = build.tensor(Tensor("bound", shape, "int8", QUANTIZATION, np.full(shape, bound, np.int8)))
        y = build.activation((1, 4, 5, 3), 0.05, -7)
        last = build.node(op, (constant, last) if swap else (last, constant), y)
    return build.graph(x, last)


def simplified(graph: Graph) -> Graph:
    """After every pass; the answers are those before, also TFLite Micro's."""
    simple = simplify(graph)
    check(simple)
    for seed in range(3):
        arrays = inputs_of(graph, seed)
        wanted = [value.tobytes() for value in simulate(graph, *arrays)]
        assert [value.tobytes() for value in simulate(simple, *arrays)] == wanted
        for model in (graph, simple):
            assert [value.tobytes() for value in tflite_micro(write_tflite(model), arrays)] == wanted
    return simple


@pytest.mark.parametrize("shape", [(), (1,), (1, 1, 1, 1)])
@pytest.mark.parametrize("swap", [False, True])
def test_an_extremum_with_one_value_is_a_relu(shape: tuple[int, ...], swap: bool) -> None:
    for op, clamp in (("minimum", (-128, 30)), ("maximum", (30, 127))):
        simple = simplified(clamped((op, 30), shape=shape, swap=swap))
        assert [node.op for node in simple.nodes] == ["relu"]
        assert simple.nodes[0].attributes == {"clamp": clamp}


def test_both_are_one_clamp() -> None:
    simple = simplified(clamped(("minimum", 30), ("maximum", -20)))
    assert [(node.op, node.attributes["clamp"]) for node in simple.nodes] == [("relu", (-20, 30))]


def test_four_are_the_narrowest() -> None:
    simple = simplified(clamped(("minimum", 30), ("maximum", -20), ("minimum", 50), ("maximum", -10)))
    assert [(node.op, node.attributes["clamp"]) for node in simple.nodes] == [("relu", (-10, 30))]


def test_bounds_that_leave_nothing_stay() -> None:
    """max(min(x, -20), 30) is 30 for every x; there is no clamp of an upper bound below the lower one."""
    graph = clamped(("minimum", -20), ("maximum", 30))
    assert len(fuse_relu(recognise_clamps(graph)).nodes) == 2
    simplified(graph)


def test_a_relu_behind_a_convolution_becomes_its_clamp() -> None:
    simple = simplified(clamped(("maximum", -7), conv=True))
    assert [(node.op, node.attributes["clamp"]) for node in simple.nodes] == [("conv2d", (-7, 127))]


def test_relu6_in_two_halves_behind_a_convolution() -> None:
    simple = simplified(clamped(("minimum", 113), ("maximum", -7), conv=True))
    assert [(node.op, node.attributes["clamp"]) for node in simple.nodes] == [("conv2d", (-7, 113))]


def test_a_clamp_that_tflite_cannot_fuse_stays_behind_the_convolution() -> None:
    simple = simplified(clamped(("minimum", 90), conv=True))
    assert [node.op for node in simple.nodes] == ["conv2d", "relu"]


def test_limits_of_int8_are_no_clamp() -> None:
    simple = simplified(clamped(("minimum", 127), ("maximum", -128), ("minimum", 60)))
    assert [(node.op, node.attributes["clamp"]) for node in simple.nodes] == [("relu", (-128, 60))]


def test_several_values_stay() -> None:
    """One value for each channel is no clamp, and one that makes the output larger neither."""
    graph = clamped(("minimum", 30), shape=(3,))
    assert recognise_clamps(graph) is graph
    graph = clamped(("minimum", 30), shape=(1, 1, 1, 1, 1))
    graph.tensors[-1] = Tensor("y", (1, 1, 4, 5, 3), "int8", QUANTIZATION)
    check(graph)
    assert recognise_clamps(graph) is graph


def test_two_computed_values_stay() -> None:
    build = Build()
    a, b, y = (build.activation((1, 6)) for _ in range(3))
    build.node("minimum", (a, b), y)
    graph = build.graph((a, b), y)
    assert recognise_clamps(graph) is graph


def test_a_bound_that_others_read_stays() -> None:
    """The value before the clamp is an output of the model too."""
    graph = clamped(("maximum", -7), conv=True)
    graph.outputs = (*graph.outputs, graph.nodes[0].outputs[0])
    assert [node.op for node in simplify(graph).nodes] == ["conv2d", "relu"]


@pytest.mark.parametrize(
    ("activation", "scale", "zero_point", "clamp"),
    [
        ("relu", 0.05, -128, (-128, 127)),
        ("relu", 0.05, -5, (-5, 127)),
        ((0.0, 6.0), 6 / 255, -128, (-128, 127)),
        ((0.0, 6.0), 0.05, -128, (-128, -8)),
        ((0.0, 6.0), 0.01, -128, (-128, 127)),
        ((-100.0, 100.0), 0.05, 0, (-128, 127)),
    ],
)
def test_onnx_saturation_is_the_clamp(
    activation: str | tuple[float, float], scale: float, zero_point: int, clamp: tuple[int, int]
) -> None:
    """Where the quantized range ends at the bound, rounding into it is all that is left of the Relu or Clip."""
    net = Qdq((1, 3, 6, 6), seed=2)
    model = net.model(net.conv(net.input(), 4, activation=activation, scale=scale, zero_point=zero_point))
    onnx.checker.check_model(model)
    graph = simplify(read_onnx_bytes(model.SerializeToString()))
    assert [(node.op, node.attributes["clamp"]) for node in graph.nodes] == [("conv2d", clamp)]
