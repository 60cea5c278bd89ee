"""What every operator writes into a TFLite file: operator names, versions, options, added tensors."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from example_cases import cases_of
from oracles import litert, tflite_micro

from firmware_export.graph import ABSENT, Graph, Node, Quantization, Tensor
from firmware_export.operators import operator_of, registry
from firmware_export.read_tflite import read_tflite_bytes
from firmware_export.simulate import simulate
from firmware_export.write_tflite import TfliteWriter, write_tflite


def example(name: str, label: str) -> Graph:
    return next(case.graph for case in cases_of(name) if case.label == f"{name} {label}")


def written(graph: Graph) -> tuple[list[Any], TfliteWriter]:
    """The operators that a graph's nodes write, and the writer with its tensors."""
    writer = TfliteWriter(graph)
    for node in graph.nodes:
        operator_of(node).write_tflite(graph, node, writer)
    return writer._operators, writer


def builtins(graph: Graph) -> list[tuple[str, int]]:
    return [(operator.builtin, operator.version) for operator in written(graph)[0]]


@pytest.mark.parametrize(
    ("name", "label", "expected"),
    [
        ("conv2d", "3x3 same", [("CONV_2D", 3)]),
        ("conv2d", "asymmetric padding", [("PAD", 2), ("CONV_2D", 3)]),
        ("depthwise_conv2d", "3x3 same", [("DEPTHWISE_CONV_2D", 3)]),
        ("depthwise_conv2d", "more padding than kernel", [("PAD", 2), ("DEPTHWISE_CONV_2D", 3)]),
        ("fully_connected", "saturation", [("FULLY_CONNECTED", 12)]),
        ("fully_connected", "one scale for all weights", [("FULLY_CONNECTED", 4)]),
        ("add", "relu", [("ADD", 2)]),
        ("average_pool2d", "2x2 stride 2, same True", [("AVERAGE_POOL_2D", 2)]),
        ("max_pool2d", "2x2 stride 2, same False", [("MAX_POOL_2D", 2)]),
        ("mean", "over the channels", [("MEAN", 2)]),
        ("softmax", "two equal classes", [("SOFTMAX", 2)]),
    ],
)
def test_operators(name: str, label: str, expected: list[tuple[str, int]]) -> None:
    assert builtins(example(name, label)) == expected


def test_reshape_writes_its_shape_twice() -> None:
    graph = cases_of("reshape")[1].graph
    (operator,), writer = written(graph)
    shape = list(graph.nodes[0].integers("shape"))
    assert operator.builtin == "RESHAPE" and list(operator.options.newShape) == shape
    constant = writer.tensor(operator.inputs[1])
    assert constant.data is not None and constant.data.tolist() == shape and constant.dtype == "int32"


@pytest.mark.parametrize(
    ("bounds", "same", "expected"),
    [
        ((0, 127), True, ["RELU"]),
        ((0, 127), False, ["RELU"]),
        ((0, 60), True, ["RELU6"]),
        ((0, 60), False, ["QUANTIZE", "RELU6"]),
        ((-128, 127), False, ["QUANTIZE"]),
        ((-128, 127), True, ["QUANTIZE"]),
    ],
)
def test_relu(bounds: tuple[int, int], same: bool, expected: list[str]) -> None:
    """TFLite Micro's RELU6 keeps the scale; a change of scale goes before it."""
    graph = example("relu", "every value, scale 0.37")
    y = Quantization.per_tensor(0.1, 0)
    graph = replace(graph, tensors=list(graph.tensors), nodes=list(graph.nodes))
    graph.tensors[1] = replace(graph.tensors[1], quantization=y)
    if same:
        graph.tensors[0] = replace(graph.tensors[0], quantization=y)
    graph.nodes[0] = replace(graph.nodes[0], attributes={"clamp": bounds})
    assert [builtin for builtin, _ in builtins(graph)] == expected


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ((3, 11), ["QUANTIZE", "MAXIMUM", "MINIMUM"]),
        ((3, 127), ["QUANTIZE", "MAXIMUM"]),
        ((-128, 11), ["QUANTIZE", "MINIMUM"]),
    ],
)
def test_relu_with_a_clamp_that_tflite_does_not_have(bounds: tuple[int, int], expected: list[str]) -> None:
    """Maxima and minima with constants do what no RELU does; TFLite Micro answers like the simulator."""
    graph = example("relu", "every value, scale 0.37")
    graph = replace(graph, nodes=[replace(graph.nodes[0], attributes={"clamp": bounds})])
    assert [builtin for builtin, _ in builtins(graph)] == expected
    every = np.arange(-128, 128).astype(np.int8).reshape(1, 256)
    found = tflite_micro(write_tflite(graph), [every])[0]
    assert (
        (np.array_equal(found, simulate(graph, every)[0]) and (found.min(), found.max()) == bounds)
        or -128 in bounds
        or 127 in bounds
    )


@pytest.mark.parametrize("shape", [(1,), (1, 5), (1, 2, 3, 4), (1, 2, 2, 2, 3)])
def test_bounds_of_any_shape(shape: tuple[int, ...]) -> None:
    q = Quantization.per_tensor(0.02, 10)
    tensors = [Tensor(name, shape, "int8", q) for name in "xy"]
    graph = Graph(tensors, [Node("relu", (0,), (1,), {"clamp": (-40, 60)})], (0,), (1,))
    values = np.random.default_rng(1).integers(-128, 128, shape).astype(np.int8)
    for outside in (tflite_micro, litert):
        assert np.array_equal(outside(write_tflite(graph), [values])[0], np.clip(values, -40, 60))


def test_convolution_options() -> None:
    operator = written(example("conv2d", "dilation 1 and 3, stride 2 and 1"))[0][-1]
    options = operator.options
    assert (options.strideH, options.strideW) == (2, 1)
    assert (options.dilationHFactor, options.dilationWFactor) == (1, 3)
    assert options.padding == schema.Padding.VALID, "explicit padding went into a PAD"


@pytest.mark.parametrize(
    ("label", "padding"), [("3x3 same", schema.Padding.SAME), ("valid, kernel of the image's size", schema.Padding.VALID)]
)
@pytest.mark.parametrize("name", ["conv2d", "depthwise_conv2d"])
def test_padding_without_a_pad(name: str, label: str, padding: int) -> None:
    (operator,), _ = written(example(name, label))
    assert operator.options.padding == padding


def test_pad_is_filled_with_the_zero_point() -> None:
    graph = example("conv2d", "asymmetric padding")
    (pad, conv), writer = written(graph)
    pads = writer.tensor(pad.inputs[1]).data
    assert pads is not None and pads.tolist() == [[0, 0], [2, 0], [0, 1], [0, 0]]
    padded = writer.tensor(conv.inputs[0])
    assert padded.quantization == graph.tensors[0].quantization and padded.shape == (1, 8, 8, 3)


def test_max_pool_is_padded_with_the_smallest_value() -> None:
    graph = next(case.graph for case in cases_of("max_pool2d") if "PADV2" in [b for b, _ in builtins(case.graph)])
    (pad, _), writer = written(graph)
    fill = writer.tensor(pad.inputs[2]).data
    assert fill is not None and fill.tolist() == [-128]


def test_depthwise_multiplier() -> None:
    (operator,), _ = written(example("depthwise_conv2d", "3x3 same"))
    assert operator.options.depthMultiplier == 4


@pytest.mark.parametrize("name", ["conv2d", "depthwise_conv2d"])
def test_an_absent_bias_is_written_as_zeros(name: str) -> None:
    """At the scale of the sums, per channel as the weights: LiteRT takes no convolution without."""
    graph = example(name, "no bias")
    (operator,), writer = written(graph)
    bias, weights = writer.tensor(operator.inputs[2]), graph.tensors[1]
    assert bias.data is not None and not bias.data.any() and bias.dtype == "int32"
    assert bias.quantization is not None and weights.quantization is not None
    expected = np.float32(graph.tensors[0].scale) * weights.quantization.scale
    assert np.array_equal(bias.quantization.scale, expected)
    assert bias.shape == (graph.tensors[-1].shape[3],)


def test_fully_connected_says_that_its_bias_is_absent() -> None:
    (operator,), _ = written(example("fully_connected", "no bias"))
    assert operator.inputs == (0, 1, ABSENT)


def test_fully_connected_keeps_dimensions_where_the_node_does() -> None:
    assert written(example("fully_connected", "keep_dims"))[0][0].options.keepNumDims is True
    assert written(example("fully_connected", "saturation"))[0][0].options.keepNumDims is False


@pytest.mark.parametrize("name", ["conv2d", "depthwise_conv2d", "fully_connected", "add", "average_pool2d", "max_pool2d"])
def test_fused_activations(name: str) -> None:
    """Each of the three that the examples use is found again in some example."""
    found = {written(case.graph)[0][-1].options.fusedActivationFunction for case in cases_of(name)}
    kinds = schema.ActivationFunctionType
    assert {kinds.NONE, kinds.RELU, kinds.RELU6} <= found


def test_mean_writes_its_axes_and_whether_it_keeps_them() -> None:
    (operator,), writer = written(example("mean", "over everything"))
    axes = writer.tensor(operator.inputs[1]).data
    assert axes is not None and axes.tolist() == [1, 2, 3] and operator.options.keepDims is False
    (operator,), _ = written(example("mean", "random 2"))
    assert operator.options.keepDims is True


def test_softmax_writes_beta() -> None:
    graph = next(case.graph for case in cases_of("softmax") if case.graph.nodes[0].number("beta") != 1.0)
    (operator,), _ = written(graph)
    assert operator.options.beta == graph.nodes[0].number("beta")


@pytest.mark.parametrize("name", sorted(registry().keys() - {"tile"}))
def test_reading_the_twin_again_writes_the_same_bytes(name: str) -> None:
    """Where the file holds the one operator alone: no PAD, no QUANTIZE beside it.

    A per-channel scale of a single channel comes back as a scale for all, so the first writing may differ from the second.
    """
    whole = 0
    for case in cases_of(name):
        data = write_tflite(case.graph)
        names = [builtin for builtin, _ in builtins(case.graph)]
        if len(names) == 1 and names[0] in registry()[name].tflite:
            again = write_tflite(read_tflite_bytes(data))
            assert again == data or 1 in case.graph.tensors[1].shape
            assert write_tflite(read_tflite_bytes(again)) == again
            whole += 1
    assert whole >= 10
