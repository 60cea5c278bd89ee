"""Whole models of the operators that sum products: an autoencoder, self-attention, a classifier of sequences."""

from __future__ import annotations

import numpy as np
import onnx
from example_cases import cases_of
from graph_builder import Build
from qdq_builder import SUM_RMS, Qdq

from firmware_export.graph import Graph


def up(net: Qdq, x: str, channels: int, relu: bool) -> str:
    """ConvTranspose 4x4 that doubles height and width."""
    _, c, h, w = net.shapes[x]
    weights, scale = net.weights((c, channels, 4, 4), net.gain(x, 4 * c), axis=1)
    inputs = [x, weights, net.bias(channels, np.float32(net.scales[x][0]) * scale)]
    y = net.node("ConvTranspose", inputs, kernel_shape=[4, 4], strides=[2, 2], pads=[1, 1, 1, 1])
    y = net.clamped(y, "relu") if relu else y
    y = net.quantized(y, 5 * SUM_RMS / 255, -128 if relu else 2, (1, channels, 2 * h, 2 * w))
    net.rms[y] = SUM_RMS * (0.7 if relu else 1.0)
    return y


def autoencoder() -> onnx.ModelProto:
    """[1, 2, 8, 8] -> 3 channels of 2x2 -> [1, 2, 8, 8]."""
    net = Qdq((1, 2, 8, 8), seed=11)
    x = net.conv(net.input(), 4, stride=2, pads=(0, 0, 1, 1))
    x = net.conv(x, 3, stride=2, pads=(0, 0, 1, 1))
    return net.model(up(net, up(net, x, 4, relu=True), 2, relu=False))


def self_attention() -> onnx.ModelProto:
    """softmax(x x^T) x for two heads of [6, 4], then a sum with x."""
    net = Qdq((1, 2, 6, 4), seed=12)
    x = net.input()
    keys = net.same_scale("Transpose", x, (1, 2, 4, 6), perm=[0, 1, 3, 2])
    scores = net.quantized(net.node("MatMul", [x, keys]), 4 / 255, -128, (1, 2, 6, 6))
    shares = net.quantized(net.node("Softmax", [scores], axis=-1), 1 / 256, -128, (1, 2, 6, 6))
    mixed = net.quantized(net.node("MatMul", [shares, x]), 1 / 255, -128, (1, 2, 6, 4))
    return net.model(net.add(mixed, x))


def sequence_classifier() -> Graph:
    """LSTM, its last output, a fully connected layer and softmax."""
    lstm, build = next(case.graph for case in cases_of("lstm") if case.label.endswith("many steps")), Build(13)
    places = [build.tensor(tensor) for tensor in lstm.tensors]
    build.node("lstm", tuple(places[:-1]), places[-1], **lstm.nodes[0].attributes)
    shape, y = lstm.tensors[-1].shape, lstm.tensors[-1]
    last = build.activation((1, shape[2]), y.scale, y.zero_point)
    part = {"begin": (0, shape[1] - 1, 0), "stride": (1, 1, 1), "size": (1, 1, shape[2]), "shape": (1, shape[2])}
    build.node("strided_slice", (places[-1],), last, **part)
    classes = build.fully_connected(last, 4)
    shares = build.activation((1, 4), 1 / 256, -128)
    return build.graph(places[0], build.node("softmax", (classes,), shares, beta=1.0))
