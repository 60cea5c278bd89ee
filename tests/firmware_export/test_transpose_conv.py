"""Transposed convolution: ONNX's forms of padding against onnxruntime, TFLite's against LiteRT, sums by hand, refusals."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from ai_edge_litert import schema_py_generated as schema
from example_cases import cases_of
from graph_builder import Build, inputs_of
from graph_changes import Change
from oracles import litert, onnx_stored, onnxruntime_session, tflite_micro
from qdq_builder import SUM_RMS, Qdq

from firmware_export.graph import Graph, GraphError, Node, Quantization, Tensor
from firmware_export.operators import operator_of
from firmware_export.passes import simplify
from firmware_export.read_onnx import read_onnx_bytes
from firmware_export.read_tflite import TfliteOperator, read_tflite_bytes
from firmware_export.simulate import simulate
from firmware_export.write_tflite import TfliteWriter, write_tflite

ONE = Quantization.per_tensor(1.0, 0)


def transposed(
    size: tuple[int, int], out: tuple[int, int], kernel: tuple[int, int] = (3, 3), relu: bool = False, **options: Any
) -> onnx.ModelProto:
    """One ConvTranspose of 4 channels to 6; options are its attributes."""
    net = Qdq((1, 4, *size), seed=3)
    group = options.get("group", 1)
    x = net.input()
    weights, scale = net.weights((4, 6 // group, *kernel), net.gain(x, 4 * 2 // group), axis=1)
    inputs = [x, weights, net.bias(6, np.float32(net.scales[x][0]) * np.tile(scale, group))]
    y = net.node("ConvTranspose", inputs, **options)
    y = net.clamped(y, "relu") if relu else y
    return net.model(net.quantized(y, 5 * SUM_RMS / 255, -100 if relu else 3, (1, 6, *out)))


def assert_agrees(model: onnx.ModelProto) -> Graph:
    """onnxruntime, which rounds in float, gives the same values within a step; the twin gives the same bytes."""
    onnx.checker.check_model(model, full_check=True)
    graph, session = read_onnx_bytes(model.SerializeToString()), onnxruntime_session(model.SerializeToString())
    twin = write_tflite(graph)
    for seed in range(3):
        arrays = inputs_of(graph, seed)
        found, (wanted,) = simulate(graph, *arrays), onnx_stored(session, graph, arrays)
        assert found[0].shape == wanted.shape
        assert np.abs(found[0].astype(int) - wanted).max() <= 1
        assert tflite_micro(twin, arrays)[0].tobytes() == found[0].tobytes()
    return graph


@pytest.mark.parametrize(
    ("out", "options"),
    [
        ((9, 11), {"strides": [2, 2]}),
        ((6, 7), {}),
        ((8, 10), {"strides": [2, 2], "pads": [1, 1, 0, 0]}),
        ((7, 9), {"strides": [2, 2], "pads": [1, 1, 1, 1]}),
        ((8, 10), {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]}),
        ((8, 11), {"strides": [2, 2], "pads": [0, 0, 1, 0]}),
        ((10, 15), {"strides": [2, 3], "output_padding": [1, 0]}),
        ((8, 10), {"strides": [2, 2], "auto_pad": "SAME_UPPER"}),
        ((8, 10), {"strides": [2, 2], "auto_pad": "SAME_LOWER"}),
        ((9, 11), {"strides": [2, 2], "auto_pad": "VALID"}),
        ((7, 8), {"strides": [2, 2], "output_shape": [7, 8]}),
        ((9, 10), {"strides": [2, 2], "output_shape": [9, 10], "auto_pad": "SAME_UPPER"}),
        ((8, 9), {"dilations": [2, 2]}),
        ((9, 11), {"strides": [2, 2], "group": 2}),
    ],
)
def test_onnx_forms(out: tuple[int, int], options: dict[str, Any]) -> None:
    graph = assert_agrees(transposed((4, 5), out, **options))
    assert [node.op for node in graph.nodes] == ["transpose_conv"]


@pytest.mark.parametrize("kernel", [(1, 1), (2, 2), (4, 4), (1, 5), (5, 2)])
def test_onnx_kernels(kernel: tuple[int, int]) -> None:
    out = (3 * 2 + kernel[0], 4 * 2 + kernel[1])
    assert_agrees(transposed((4, 5), out, kernel, strides=[2, 2]))


def test_onnx_relu_becomes_its_clamp() -> None:
    graph = assert_agrees(transposed((4, 5), (9, 11), relu=True, strides=[2, 2]))
    assert graph.nodes[0].attributes["clamp"] == (-100, 127)


def test_groups_are_zeros_between_their_weights() -> None:
    graph = read_onnx_bytes(transposed((4, 5), (9, 11), strides=[2, 2], group=2).SerializeToString())
    weights = graph.tensors[graph.nodes[0].inputs[1]].data
    assert weights is not None and weights.shape == (6, 3, 3, 4)
    assert not weights[:3, :, :, 2:].any() and not weights[3:, :, :, :2].any()
    assert np.count_nonzero(weights) > 0.9 * weights.size / 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pads": [5, 5, 5, 5]}, "4 pads of 0 or more that leave something"),
        ({"pads": [-1, 0, 0, 0]}, "4 pads of 0 or more"),
        ({"strides": [2, 2], "output_padding": [2, 2]}, "together at most"),
        ({"strides": [2, 2], "output_padding": [-1, 0]}, "output_padding is"),
        ({"output_shape": [40, 40]}, "output_shape .* not larger"),
        ({"output_shape": [4]}, "output_shape .* two sizes"),
        ({"auto_pad": "SAME"}, "auto_pad SAME; supported"),
        ({"strides": [0, 1]}, "strides is"),
        ({"kernel_shape": [2, 2]}, "kernel_shape is"),
        ({"group": 3}, "3 groups"),
        ({"group": 0}, "0 groups"),
        ({"dilations": [30000, 30000]}, "up to 16,777,216 weights"),
    ],
)
def test_onnx_refusals(options: dict[str, Any], message: str) -> None:
    net = Qdq((1, 4, 4, 5), seed=3)
    x = net.input()
    weights, _ = net.weights((4, 6, 3, 3), 0.01, axis=1)
    model = net.model(net.quantized(net.node("ConvTranspose", [x, weights], **options), 0.05, 3, (1, 6, 9, 9)))
    with pytest.raises(GraphError, match=message):
        read_onnx_bytes(model.SerializeToString())


def test_onnx_scales_along_the_inputs_are_refused() -> None:
    net = Qdq((1, 4, 4, 5), seed=3)
    x = net.input()
    weights, _ = net.weights((4, 6, 3, 3), 0.01, axis=0)
    model = net.model(net.quantized(net.node("ConvTranspose", [x, weights]), 0.05, 3, (1, 6, 6, 7)))
    with pytest.raises(GraphError, match="scales along axis 0; supported: 1, the outputs"):
        read_onnx_bytes(model.SerializeToString())


def by_hand(x: np.ndarray, w: np.ndarray, **attributes: Any) -> np.ndarray:
    """The stored outputs where every scale is 1 and every zero point 0."""
    options = {"stride": (2, 2), "padding": (0, 0), "clamp": (-128, 127)} | attributes
    size = options.pop("size")
    tensors = [Tensor("x", x.shape, "int8", ONE), Tensor("w", w.shape, "int8", ONE, w)]
    y = Tensor("y", (1, *size, w.shape[0]), "int8", ONE)
    graph = Graph([*tensors, y], [Node("transpose_conv", (0, 1), (2,), {**options, "size": size})], (0,), (2,))
    return simulate(graph, x)[0]


def test_one_tap_spreads_the_pixels() -> None:
    x = np.array([[1, 2], [3, 4]], np.int8).reshape(1, 2, 2, 1)
    found = by_hand(x, np.ones((1, 1, 1, 1), np.int8), size=(3, 3))
    assert found[0, :, :, 0].tolist() == [[1, 0, 2], [0, 0, 0], [3, 0, 4]]


def test_overlapping_taps_add_up() -> None:
    x = np.array([[10, 20]], np.int8).reshape(1, 1, 2, 1)
    w = np.array([[1, 2, 3]], np.int8).reshape(1, 1, 3, 1)
    assert by_hand(x, w, size=(1, 5))[0, 0, :, 0].tolist() == [10, 20, 30 + 20, 40, 60]
    assert by_hand(x, w, size=(1, 3), padding=(0, 1))[0, 0, :, 0].tolist() == [20, 50, 40]
    assert by_hand(x, w, size=(1, 4), stride=(1, 1))[0, 0, :, 0].tolist() == [10, 20 + 20, 30 + 40, 60]


def test_it_is_the_transpose_of_a_convolution() -> None:
    """<conv(x), y> = <x, transposed(y)> for the same weights, in exact integers."""
    rng = np.random.default_rng(8)
    weights = rng.integers(-1, 2, (1, 3, 3, 1)).astype(np.int8)
    x, y = (rng.integers(-2, 3, shape).astype(np.int8) for shape in ((1, 7, 9, 1), (1, 3, 4, 1)))
    attributes: dict[str, Any] = {"stride": (2, 2), "dilation": (1, 1), "padding": (0, 0, 0, 0), "clamp": (-128, 127)}
    tensors = [Tensor("x", x.shape, "int8", ONE), Tensor("w", weights.shape, "int8", ONE, weights)]
    graph = Graph([*tensors, Tensor("z", y.shape, "int8", ONE)], [Node("conv2d", (0, 1), (2,), attributes)], (0,), (2,))
    forward = simulate(graph, x)[0]
    back = by_hand(y, weights, size=(7, 9))
    assert np.sum(forward.astype(int) * y) == np.sum(x.astype(int) * back)


def test_macs_and_scratch_of_a_doubling_layer() -> None:
    """3x3x4x5 products for each of 6x7 pixels; the largest phase has 2x2 taps of 4 channels."""
    build = Build()
    x = build.activation((1, 6, 7, 4))
    y = build.activation((1, 13, 15, 5), 1.0)
    build.node(
        "transpose_conv",
        (x, build.weights((5, 3, 3, 4), 0)),
        y,
        stride=(2, 2),
        padding=(0, 0),
        size=(13, 15),
        clamp=(-128, 127),
    )
    graph = build.graph(x, y)
    operator, node = operator_of(graph.nodes[0]), graph.nodes[0]
    assert operator.macs(graph, node) == 3 * 3 * 4 * 5 * 6 * 7 == 7560
    code = operator.emit(graph, node)
    assert code.scratch_bytes == 2 * 2 * 4
    assert {c.suffix: c.data.size for c in code.constants}["weights"] == 3 * 3 * 4 * 5


def changed(*changes: Change) -> Graph:
    """The first example with changes."""
    case = cases_of("transpose_conv")[0].graph
    graph = replace(case, tensors=list(case.tensors), nodes=list(case.nodes))
    for change in changes:
        change(graph)
    return graph


def test_strides_far_beyond_the_kernel_cost_nothing() -> None:
    """Phases without taps are neither stored nor walked; the pixels that still lie on the output are there."""
    x = np.arange(1, 7, dtype=np.int8).reshape(1, 2, 3, 1)
    w = np.array([1, 10], np.int8).reshape(1, 1, 2, 1)
    build = Build()
    source = build.tensor(Tensor("x", x.shape, "int8", ONE))
    weights = build.tensor(Tensor("w", w.shape, "int8", ONE, w))
    y = build.tensor(Tensor("y", (1, 3, 5, 1), "int8", ONE))
    attributes = {"stride": (65535, 65535), "padding": (0, 0), "size": (3, 5), "clamp": (-128, 127)}
    graph = build.graph(source, build.node("transpose_conv", (source, weights), y, **attributes))
    found = simulate(graph, x)[0][0, :, :, 0]
    assert found.tolist() == [[1, 10, 0, 0, 0], [0] * 5, [0] * 5]
    code = operator_of(graph.nodes[0]).emit(graph, graph.nodes[0])
    assert {c.suffix: c.data.size for c in code.constants} == {"weights": 2, "bias": 3, "multipliers": 1, "shifts": 1}


def file_of(shape: tuple[int, ...], padding: int, inputs: int = 4, **options: Any) -> bytes:
    """A TFLite file of one TRANSPOSE_CONV of [1, 4, 5, 3] that claims an output shape."""
    build = Build(2)
    x, w = build.activation((1, 4, 5, 3)), build.weights((6, 3, 3, 3), 0)
    y = build.activation(shape, 1.0)
    bias = build.bias(x, w, 6)
    writer = TfliteWriter(build.graph(x, y))
    settings = schema.TransposeConvOptionsT()
    settings.padding, settings.strideH, settings.strideW = padding, 2, 2
    for key, value in options.items():
        setattr(settings, key, value)
    size = writer.add_constant("shape", np.array(shape, np.int32))
    writer.add("TRANSPOSE_CONV", (size, w, x, bias)[:inputs], (y,), settings, 3)
    return writer.finish()


@pytest.mark.parametrize("shape", [(1, 8, 10, 6), (1, 7, 9, 6), (1, 7, 10, 6)])
@pytest.mark.parametrize("inputs", [3, 4])
def test_tflite_same_padding(shape: tuple[int, ...], inputs: int) -> None:
    model = file_of(shape, schema.Padding.SAME, inputs)
    graph = read_tflite_bytes(model)
    arrays = inputs_of(graph)
    assert litert(model, arrays)[0].tobytes() == simulate(graph, *arrays)[0].tobytes()
    assert tflite_micro(model, arrays)[0].tobytes() == simulate(graph, *arrays)[0].tobytes()


@pytest.mark.parametrize("shape", [(1, 9, 11, 6), (1, 10, 12, 6), (1, 9, 12, 6)])
def test_tflite_valid_padding(shape: tuple[int, ...]) -> None:
    model = file_of(shape, schema.Padding.VALID)
    graph = read_tflite_bytes(model)
    arrays = inputs_of(graph)
    assert litert(model, arrays)[0].tobytes() == simulate(graph, *arrays)[0].tobytes()


@pytest.mark.parametrize("activation", ["RELU", "RELU6"])
def test_tflite_fused_activation(activation: str) -> None:
    kind = getattr(schema.ActivationFunctionType, activation)
    model = file_of((1, 8, 10, 6), schema.Padding.SAME, fusedActivationFunction=kind)
    graph = read_tflite_bytes(model)
    arrays = inputs_of(graph)
    assert graph.nodes[0].attributes["clamp"] == {"RELU": (0, 127), "RELU6": (0, 6)}[activation]
    assert tflite_micro(model, arrays)[0].tobytes() == simulate(graph, *arrays)[0].tobytes()


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((1, 8, 10, 5), {}, r"output shape .* supported: \(1, h, w, output channels\)"),
        ((2, 8, 10, 6), {}, r"supported: \(1, h, w"),
        ((1, 8, 10, 6), {"strideH": 0}, "stride .* supported: 1 to"),
        ((1, 8, 10, 6), {"padding": 7}, "padding 7; supported"),
        ((1, 30, 10, 6), {}, "together at most"),
        ((1, 8, 10, 6), {"inputs": 2}, "2 inputs; expected 3 or 4"),
    ],
)
def test_tflite_refusals(shape: tuple[int, ...], options: dict[str, Any], message: str) -> None:
    settings = {"padding": schema.Padding.VALID} | options
    with pytest.raises(GraphError, match=message):
        read_tflite_bytes(file_of(shape, settings.pop("padding"), **settings))


def test_computed_output_shape_is_refused() -> None:
    graph = changed()
    shape = Tensor("shape", (4,), "int32")
    graph.tensors.append(shape)
    operator = TfliteOperator("TRANSPOSE_CONV", (len(graph.tensors) - 1, 1, 0), (2,), None, graph)
    with pytest.raises(GraphError, match="'shape' is computed; supported: a constant"):
        operator_of(graph.nodes[0]).read_tflite(operator)


def test_relu_behind_is_fused() -> None:
    build = Build()
    x, w = build.activation((1, 4, 5, 3)), build.weights((6, 3, 3, 3), 0)
    y = build.activation((1, 9, 11, 6), 1.0, -7)
    build.node("transpose_conv", (x, w), y, stride=(2, 2), padding=(0, 0), size=(9, 11), clamp=(-128, 127))
    graph = build.graph(x, build.relu(y, (-7, 127)))
    simple = simplify(graph)
    assert [node.op for node in simple.nodes] == ["transpose_conv"]
    arrays = inputs_of(graph)
    assert simulate(simple, *arrays)[0].tobytes() == simulate(graph, *arrays)[0].tobytes()
