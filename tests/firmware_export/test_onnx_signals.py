"""ONNX models of signals [n, channels, time]: convolutions and pools of one dimension, against onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx_agreement import agrees, kinds, read
from qdq_builder import Qdq

from firmware_export.graph import GraphError

SIGNAL = (1, 3, 20)


def conv(net: Qdq, x: str, channels: int, kernel: int = 3, activation: str = "relu", **attributes: Any) -> str:
    """A convolution of one dimension."""
    _, depth, length = net.shapes[x]
    group, stride, dilation = (attributes.get(key, 1) for key in ("group", "stride", "dilation"))
    pads = attributes.get("pads", (kernel // 2, kernel // 2))
    shape = (channels, depth // group, kernel)
    weights, scale = net.weights(shape, net.gain(x, depth // group * kernel), attributes.get("per_channel", True))
    bias = net.bias(channels, np.float32(net.scales[x][0]) * scale)
    options = {"strides": [stride], "dilations": [dilation], "pads": list(pads), "group": group, "kernel_shape": [kernel]}
    y = net.node("Conv", [x, weights, bias], **options)
    size = (length + sum(pads) - (kernel - 1) * dilation - 1) // stride + 1
    return net.quantized(net.clamped(y, activation), 10 / 255, -128 if activation else 3, (1, channels, size))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"stride": 2, "pads": (0, 1)},
        {"dilation": 3, "pads": (3, 3)},
        {"group": 3},
        {"per_channel": False, "kernel": 5},
        {"kernel": 1, "pads": (0, 0), "activation": ""},
    ],
)
def test_convolutions(options: dict[str, Any]) -> None:
    net = Qdq(SIGNAL, 1)
    graph = agrees(net.model(conv(net, net.input(), 6, **options)), steps=1)
    assert {"conv2d", "depthwise_conv2d"} & {*kinds(graph)}


def test_between_convolutions_nothing_is_transposed() -> None:
    """Signals stand in memory as images of height 1 do; only the model's edges have the file's order."""
    net = Qdq(SIGNAL, 1)
    x = conv(net, net.input(), 6)
    y = conv(net, conv(net, x, 6), 6, activation="")
    graph = agrees(net.model(conv(net, net.add(x, y, "relu"), 4)), steps=2)
    assert kinds(graph).count("conv2d") == 4 and kinds(graph).count("transpose") == 2


def test_a_whole_classifier() -> None:
    net = Qdq(SIGNAL, 1)
    x = conv(net, net.input(), 6, stride=2, pads=(1, 1))
    x = net.same_scale("MaxPool", x, (1, 6, 5), kernel_shape=[2], strides=[2])
    x = net.quantized(net.node("LeakyRelu", [conv(net, x, 8, activation="")], alpha=0.1), 0.04, -60, (1, 8, 5))
    x = net.same_scale("AveragePool", x, (1, 8, 4), kernel_shape=[2])
    graph = agrees(net.model(net.gemm(net.bare("Flatten", x, (1, 32)), 5)), steps=2)
    assert kinds(graph).count("transpose") == 1, "the input alone is in the file's order"


def test_the_average_of_a_signal() -> None:
    net = Qdq(SIGNAL, 1)
    y = net.node("Flatten", [net.node("GlobalAveragePool", [conv(net, net.input(), 6)])])
    y = net.quantized(y, 0.01, -128, (1, 6))
    assert "mean" in kinds(agrees(net.model(net.gemm(y, 4)), steps=2))


def test_the_largest_of_a_signal() -> None:
    net = Qdq(SIGNAL, 1)
    x = conv(net, net.input(), 6)
    y = net.same_scale("GlobalMaxPool", x, (1, 6, 1))
    assert "max_pool2d" in kinds(agrees(net.model(y), steps=1))


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER", "VALID"])
def test_automatic_padding(mode: str) -> None:
    net = Qdq(SIGNAL, 1)
    weights, _ = net.weights((4, 3, 4), 0.02)
    size = 17 if mode == "VALID" else 20
    y = net.quantized(net.node("Conv", [net.input(), weights], auto_pad=mode), 0.05, 3, (1, 4, size))
    agrees(net.model(y))


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"pads": [1, 1, 1, 1]}, "expected 2 for one dimension"),
        ({"strides": [1, 1]}, "expected 1 for one dimension"),
        ({"dilations": [1, 1]}, "expected 1 for one dimension"),
        ({"kernel_shape": [7]}, "kernel_shape is"),
    ],
)
def test_attributes_of_other_dimensions_are_refused(attributes: dict[str, Any], words: str) -> None:
    net = Qdq(SIGNAL, 1)
    weights, _ = net.weights((4, 3, 3), 0.02)
    y = net.quantized(net.node("Conv", [net.input(), weights], **attributes), 0.05, 3, (1, 4, 18))
    with pytest.raises(GraphError, match=words):
        read(net.model(y))


def test_a_convolution_without_weights_is_refused() -> None:
    net = Qdq(SIGNAL, 1)
    y = net.quantized(net.node("Conv", [net.input()]), 0.05, 3, SIGNAL)
    with pytest.raises(GraphError, match="Conv without weights"):
        read(net.model(y))


# Element by element on flattened images


def flat(net: Qdq, x: str) -> str:
    return net.bare("Flatten", x, (1, int(np.prod(net.shapes[x]))))


def test_sums_of_flattened_images_keep_the_order() -> None:
    net = Qdq((1, 3, 4, 6), 1)
    x = net.input()
    y = net.add(flat(net, net.conv(x, 4, activation="")), flat(net, net.conv(x, 4, activation="")), "relu")
    graph = agrees(net.model(net.gemm(y, 5)), steps=2)
    assert "transpose" not in kinds(graph)


def test_functions_of_flattened_images_keep_the_order() -> None:
    net = Qdq((1, 3, 4, 6), 1)
    x = flat(net, net.conv(net.input(), 4, activation=""))
    y = net.quantized(net.node("Sigmoid", [x]), 1 / 256, -128, (1, 96))
    y = net.quantized(net.node("Mul", [y, net.constant(np.float32(1.5))]), 1.5 / 255, -128, (1, 96))
    assert "transpose" not in kinds(agrees(net.model(net.gemm(y, 5)), steps=2))


def test_a_sum_of_an_image_and_a_row_is_in_the_files_order() -> None:
    """Flattened once from an image and once computed as a row: only one of them is in our order."""
    net = Qdq((1, 3, 4, 6), 1)
    x = flat(net, net.input())
    y = net.gemm(x, 72)
    assert "transpose" in kinds(agrees(net.model(net.gemm(net.add(x, y), 5)), steps=2))


def test_images_flattened_from_other_shapes_are_in_the_files_order() -> None:
    net = Qdq((1, 3, 4, 6), 1)
    x = net.input()
    other = net.same_scale("Transpose", x, (1, 4, 3, 6), perm=[0, 2, 1, 3])
    y = net.add(flat(net, x), flat(net, other))
    agrees(net.model(net.gemm(y, 5)), steps=2)
