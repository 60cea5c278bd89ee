"""What single operators make of ONNX and TFLite options; whole models are read in test_read_onnx.py and test_read_tflite.py."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from ai_edge_litert import schema_py_generated as schema
from graph_builder import inputs_of
from oracles import onnx_stored, onnxruntime_session
from qdq_builder import Qdq

from firmware_export.graph import ABSENT, Graph, GraphError, Quantization, Tensor
from firmware_export.operators import registry
from firmware_export.read_onnx import read_onnx_bytes
from firmware_export.read_tflite import TfliteOperator
from firmware_export.simulate import simulate


def read(model: onnx.ModelProto) -> Graph:
    return read_onnx_bytes(model.SerializeToString())


def assert_agrees(model: onnx.ModelProto, steps: int = 1) -> Graph:
    """onnxruntime, which rounds in float, gives the same shapes and values within `steps`."""
    onnx.checker.check_model(model, full_check=True)
    graph, session = read(model), onnxruntime_session(model.SerializeToString())
    for seed in range(3):
        inputs = inputs_of(graph, seed)
        for found, wanted in zip(simulate(graph, *inputs), onnx_stored(session, graph, inputs), strict=True):
            assert found.shape == wanted.shape
            assert np.abs(found.astype(int) - wanted).max() <= steps
    return graph


def pooled(op_type: str, size: tuple[int, int], out: tuple[int, int], **attributes: Any) -> onnx.ModelProto:
    net = Qdq((1, 3, *size), seed=1)
    return net.model(net.same_scale(op_type, net.input(), (1, 3, *out), **attributes))


@pytest.mark.parametrize("op_type", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize(
    ("size", "out", "kernel", "stride", "pads"),
    [
        ((7, 7), (4, 4), 2, 2, (0, 0, 0, 0)),
        ((6, 5), (3, 3), 2, 2, (0, 0, 0, 0)),
        ((8, 9), (3, 3), 3, 3, (0, 0, 0, 0)),
        ((7, 8), (4, 4), 3, 2, (1, 1, 0, 0)),
        ((5, 5), (2, 2), 2, 3, (0, 0, 0, 0)),
    ],
)
def test_ceil_mode(
    op_type: str, size: tuple[int, int], out: tuple[int, int], kernel: int, stride: int, pads: tuple[int, ...]
) -> None:
    options: dict[str, Any] = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": list(pads), "ceil_mode": 1}
    graph = assert_agrees(pooled(op_type, size, out, **options))
    assert graph.tensors[graph.outputs[0]].shape == (1, *out, 3)


@pytest.mark.parametrize("op_type", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize("pads", [(1, 0, 0, 1), (1, 1, 1, 1), (0, 0, 0, 0)])
def test_pool_padding(op_type: str, pads: tuple[int, int, int, int]) -> None:
    out = (6 + pads[0] + pads[2] - 2, 5 + pads[1] + pads[3] - 2)
    graph = assert_agrees(pooled(op_type, (6, 5), out, kernel_shape=[3, 3], pads=list(pads)))
    assert graph.nodes[0].attributes["padding"] == (pads[0], pads[2], pads[1], pads[3])


def test_global_max_pool() -> None:
    graph = assert_agrees(pooled("GlobalMaxPool", (6, 5), (1, 1)))
    assert graph.nodes[0].op == "max_pool2d" and graph.nodes[0].attributes["kernel"] == (6, 5)


def test_average_pool_over_the_whole_image_may_change_the_scale() -> None:
    net = Qdq((1, 3, 6, 5), seed=1)
    y = net.node("AveragePool", [net.input()], kernel_shape=[6, 5])
    graph = assert_agrees(net.model(net.quantized(y, 1 / 700, -128, (1, 3, 1, 1))))
    assert graph.nodes[0].op == "mean"


@pytest.mark.parametrize("activation", ["", "relu", (0.05, 0.2)])
def test_average_pool_that_changes_the_scale(activation: str | tuple[float, float]) -> None:
    """The average in its input's scale, then a quantize, or a relu where a clamp stands behind."""
    net = Qdq((1, 3, 6, 5), seed=1)
    y = net.clamped(net.node("AveragePool", [net.input(zero_point=-100)], kernel_shape=[3, 3]), activation)
    graph = assert_agrees(net.model(net.quantized(y, 1 / 500, -7, (1, 3, 4, 3))), steps=2)
    assert [node.op for node in graph.nodes] == ["average_pool2d", "relu" if activation else "quantize"]


def refused(net: Qdq, value: str, message: str) -> None:
    with pytest.raises(GraphError, match=message):
        read(net.model(value))


@pytest.mark.parametrize("zero_point", [-128, 0, 5])
def test_average_pool_that_counts_padding(zero_point: int) -> None:
    """Padding is real zeros: a border of the zero point, then a pool without padding."""
    net = Qdq((1, 3, 6, 5), seed=1)
    options: dict[str, Any] = {"kernel_shape": [3, 3], "pads": [1, 0, 1, 2], "count_include_pad": 1}
    y = net.same_scale("AveragePool", net.input(zero_point=zero_point), (1, 3, 6, 5), **options)
    graph = assert_agrees(net.model(y))
    assert [node.op for node in graph.nodes] == ["pad", "average_pool2d"]


def test_average_pool_that_counts_padding_of_rounded_up_sizes_is_refused() -> None:
    net = Qdq((1, 3, 6, 5), seed=1)
    options: dict[str, Any] = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [2, 2], "count_include_pad": 1}
    y = net.same_scale("AveragePool", net.input(), (1, 3, 4, 3), ceil_mode=1, **options)
    refused(net, y, "count_include_pad and ceil_mode over padding; supported: one of them")


def test_dilated_max_pool_is_refused() -> None:
    net = Qdq((1, 3, 6, 5), seed=1)
    y = net.same_scale("MaxPool", net.input(), (1, 3, 4, 3), kernel_shape=[2, 2], dilations=[2, 2])
    refused(net, y, r"MaxPool with dilations \(2, 2\); supported: 1")


@pytest.mark.parametrize(("group", "channels"), [(2, 4), (4, 4)])
def test_groups(group: int, channels: int) -> None:
    """As many groups as channels is depthwise; anything between is convolutions side by side."""
    net = Qdq((1, channels, 6, 5), seed=1)
    y = net.conv(net.input(), 8, group=group)
    kinds = [node.op for node in assert_agrees(net.model(y)).nodes]
    if group == channels:
        assert kinds == ["depthwise_conv2d"]
    else:
        assert kinds == ["strided_slice", "conv2d"] * group + ["concatenation"]


@pytest.mark.parametrize(
    "options", [{"bias": False}, {"per_channel": False, "stride": 2}, {"activation": (0.0, 1.0), "dilation": 2}]
)
def test_groups_with_every_option(options: dict[str, Any]) -> None:
    net = Qdq((1, 6, 9, 7), seed=2)
    graph = assert_agrees(net.model(net.conv(net.input(), 9, group=3, **options)))
    assert [node.op for node in graph.nodes].count("conv2d") == 3


def test_groups_that_do_not_divide_are_refused() -> None:
    net = Qdq((1, 4, 6, 5), seed=1)
    refused(
        net, net.conv(net.input(), 7, group=2), r"2 groups on 4 channels, weights \(7, 2, 3, 3\); supported: 1 group, as many"
    )


def test_one_channel_with_a_multiplier_is_an_ordinary_convolution() -> None:
    net = Qdq((1, 1, 6, 5), seed=1)
    graph = assert_agrees(net.model(net.conv(net.input(), 8, group=1)))
    assert graph.nodes[0].op == "conv2d"


def test_convolution_over_three_dimensions_is_refused() -> None:
    net = Qdq((1, 3, 4, 4, 4), seed=1)
    weights, _ = net.weights((4, 3, 3, 3, 3))
    y = net.quantized(net.node("Conv", [net.input(), weights]), 0.05, 0, (1, 4, 2, 2, 2))
    refused(net, y, r"Conv with weights \(4, 3, 3, 3, 3\); supported: 2-D")


@pytest.mark.parametrize("shape", [(1, 6), (1, 4, 6)])
def test_matmul(shape: tuple[int, ...]) -> None:
    net = Qdq(shape, seed=1)
    x = net.input(scale=0.05, zero_point=3)
    weights, scale = net.weights((6, 5), axis=1)
    y = net.quantized(
        net.node("MatMul", [x, weights]), float(0.05 * 74 * 73 * np.sqrt(6) * np.median(scale) / 40), 4, (*shape[:-1], 5)
    )
    graph = assert_agrees(net.model(y))
    assert graph.tensors[graph.outputs[0]].shape == (*shape[:-1], 5)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"alpha": 0.5, "transB": 1}, r"Gemm with \{'alpha': 0.5\}.*; supported: alpha 1, beta 1, transA 0"),
        ({"beta": 2.0, "transB": 1}, r"Gemm with \{'beta': 2.0\}"),
        ({"transA": 1, "transB": 1}, r"Gemm with \{'transA': 1\}"),
    ],
)
def test_gemm_options_that_are_refused(attributes: dict[str, Any], message: str) -> None:
    net = Qdq((1, 6), seed=1)
    x = net.input()
    weights, scale = net.weights((5, 6))
    y = net.node("Gemm", [x, weights, net.bias(5, np.float32(net.scales[x][0]) * scale)], **attributes)
    refused(net, net.quantized(y, 0.1, 0, (1, 5)), message)


def test_gemm_with_scales_along_the_inputs_is_refused() -> None:
    net = Qdq((1, 6), seed=1)
    weights, _ = net.weights((5, 6), axis=1)
    y = net.node("Gemm", [net.input(), weights], transB=1)
    refused(net, net.quantized(y, 0.1, 0, (1, 5)), "have scales along axis 1; supported: along the outputs")


@pytest.mark.parametrize(("axes", "shape"), [([1], (1, 1, 6, 5)), ([1, 2, 3], (1, 1, 1, 1)), ([2], (1, 3, 1, 5))])
def test_reduce_mean(axes: list[int], shape: tuple[int, ...]) -> None:
    net = Qdq((1, 3, 6, 5), seed=1)
    y = net.node("ReduceMean", [net.input(), net.constant(np.array(axes, np.int64))])
    assert_agrees(net.model(net.quantized(y, 1 / 500, -128, shape)))


@pytest.mark.parametrize(("axis", "shape"), [(2, (1, 3, 5)), (3, (1, 3, 6)), (-2, (1, 3, 5))])
def test_reduce_mean_that_leaves_an_edge_of_an_image_is_in_the_files_order(axis: int, shape: tuple[int, ...]) -> None:
    net = Qdq((1, 3, 6, 5), seed=1)
    y = net.node("ReduceMean", [net.input(), net.constant(np.array([axis], np.int64))], keepdims=0)
    graph = assert_agrees(net.model(net.quantized(y, 1 / 500, -128, shape)))
    assert [node.op for node in graph.nodes] == ["mean", "reshape", "reshape", "transpose", "reshape"]


def test_reduce_mean_of_five_dimensions_that_leaves_an_image() -> None:
    net = Qdq((1, 3, 2, 6, 5), seed=1)
    y = net.node("ReduceMean", [net.input(), net.constant(np.array([2], np.int64))], keepdims=0)
    x = net.quantized(y, 1 / 400, -128, (1, 3, 6, 5))
    assert_agrees(net.model(net.conv(x, 4)), steps=2)


def test_reduce_mean_over_axes_that_are_not_neighbours() -> None:
    net = Qdq((1, 3, 6, 5), seed=1)
    y = net.node("ReduceMean", [net.input(), net.constant(np.array([1, 2], np.int64))])
    graph = assert_agrees(net.model(net.quantized(y, 1 / 500, -128, (1, 1, 1, 5))))
    assert graph.nodes[0].attributes["axes"] == (1, 3)


@pytest.mark.parametrize("axis", [-1, 2, 3])
def test_softmax_over_another_axis(axis: int) -> None:
    net = Qdq((1, 3, 6, 5), seed=1)
    y = net.quantized(net.node("Softmax", [net.input(scale=0.03)], axis=axis), 1 / 256, -128, (1, 3, 6, 5))
    graph = assert_agrees(net.model(y))
    assert [node.op for node in graph.nodes] == ["transpose", "softmax", "transpose"]


@pytest.mark.parametrize("axis", [1, 2])
def test_softmax_with_another_scale(axis: int) -> None:
    """What onnxruntime's quantizer writes: 1/255 is the step of 0..1. One step of 1/256 is rounded once more."""
    net = Qdq((1, 3, 6, 5), seed=1)
    y = net.quantized(net.node("Softmax", [net.input(scale=0.03)], axis=axis), 1 / 255, -128, (1, 3, 6, 5))
    graph = assert_agrees(net.model(y))
    assert [node.op for node in graph.nodes][-1] == "quantize"


def test_softmax_of_old_files_is_over_all_that_follows() -> None:
    """Before opset 13 the default axis is 1, and all behind it count as one; with one pixel that is the same."""
    for shape, fits in (((1, 5, 1, 1), True), ((1, 5, 1, 2), False)):
        net = Qdq(shape, seed=1)
        y = net.quantized(net.node("Softmax", [net.input(scale=0.03)]), 1 / 256, -128, shape)
        model = net.model(y)
        model.opset_import[0].version = 12
        if fits:
            assert_agrees(model)
        else:
            with pytest.raises(GraphError, match="Softmax of opset 12 over several axes"):
                read(model)


def test_softmax_over_the_channels_of_an_image() -> None:
    net = Qdq((1, 3, 6, 5), seed=1)
    y = net.quantized(net.node("Softmax", [net.input(scale=0.03)], axis=1), 1 / 256, -128, (1, 3, 6, 5))
    assert_agrees(net.model(y))


def tflite(builtin: str, tensors: list[Tensor], inputs: tuple[int, ...], options: Any) -> TfliteOperator:
    """An operator that writes the last tensor."""
    return TfliteOperator(builtin, inputs, (len(tensors) - 1,), options, Graph(tensors, [], (0,), (len(tensors) - 1,)))


def stored(name: str, shape: tuple[int, ...], data: np.ndarray | None = None) -> Tensor:
    return Tensor(name, shape, "int8" if data is None else str(data.dtype), Quantization.per_tensor(0.1, 0), data)


def test_shuffled_weights_are_refused() -> None:
    options = schema.FullyConnectedOptionsT()
    options.weightsFormat = 1
    op = tflite("FULLY_CONNECTED", [stored("x", (1, 4)), stored("w", (2, 4)), stored("y", (1, 2))], (0, 1, ABSENT), options)
    with pytest.raises(GraphError, match=r"weights format 1; supported: 0 \(DEFAULT\)"):
        registry()["fully_connected"].read_tflite(op)


def test_mean_with_computed_axes_is_refused() -> None:
    op = tflite("MEAN", [stored("x", (1, 4)), stored("axes", (1,)), stored("y", (1,))], (0, 1), None)
    with pytest.raises(GraphError, match="MEAN with computed axes; supported: constant int32 axes"):
        registry()["mean"].read_tflite(op)


def test_mean_counts_axes_from_the_end_and_sorts_them() -> None:
    axes = np.array([-2, 1], np.int32)
    op = tflite("MEAN", [stored("x", (1, 4, 5, 2)), stored("axes", (2,), axes), stored("y", (1, 2))], (0, 1), None)
    assert registry()["mean"].read_tflite(op).attributes["axes"] == (1, 2)


def test_convolution_weights_of_another_rank_are_refused() -> None:
    tensors = [stored("x", (1, 4, 4, 1)), stored("w", (2, 4)), stored("y", (1, 4, 4, 2))]
    with pytest.raises(GraphError, match=r"weights 'w' have the shape \(2, 4\); supported: 4 dimensions"):
        registry()["conv2d"].read_tflite(tflite("CONV_2D", tensors, (0, 1, ABSENT), None))


@pytest.mark.parametrize("builtin", ["RESHAPE", "SQUEEZE", "EXPAND_DIMS"])
def test_reshapes_take_the_shape_of_their_output(builtin: str) -> None:
    op = tflite(builtin, [stored("x", (1, 4)), stored("y", (2, 2))], (0,), None)
    node = registry()["reshape"].read_tflite(op)
    assert (node.op, node.inputs, node.attributes) == ("reshape", (0,), {"shape": (2, 2)})


@pytest.mark.parametrize(
    ("builtin", "clamp"), [("RELU", (0, 127)), ("RELU6", (0, 60)), ("RELU_N1_TO_1", (-10, 10)), ("RELU_0_TO_1", (0, 10))]
)
def test_relus(builtin: str, clamp: tuple[int, int]) -> None:
    op = tflite(builtin, [stored("x", (1, 4)), stored("y", (1, 4))], (0,), None)
    assert registry()["relu"].read_tflite(op).attributes == {"clamp": clamp}
