"""Small graphs made by hand for the tests: every number is written here, none comes from the code under test."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from firmware_export.graph import ABSENT, Graph, Node, Quantization, Tensor

Shape = tuple[int, ...]


def quantized(name: str, shape: Shape, scale: float = 0.05, zero_point: int = 0) -> Tensor:
    """An int8 activation."""
    return Tensor(name, shape, "int8", Quantization.per_tensor(scale, zero_point))


def channel_scales(count: int, axis: int | None, first: float = 0.01) -> Quantization:
    """first, first + 1/1000, ... along an axis, or `first` alone."""
    if axis is None:
        return Quantization.per_tensor(first, 0)
    scale = (first + np.arange(count) / 1000).astype(np.float32)
    return Quantization(scale, np.zeros(count, np.int64), axis)


class Build:
    """A graph in the making; methods return tensor indexes."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.tensors: list[Tensor] = []
        self.nodes: list[Node] = []

    def tensor(self, tensor: Tensor) -> int:
        """Adds any tensor."""
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def activation(self, shape: Shape, scale: float = 0.05, zero_point: int = 0, name: str = "") -> int:
        """Adds an int8 activation."""
        return self.tensor(quantized(name or f"t{len(self.tensors)}", shape, scale, zero_point))

    def weights(self, shape: Shape, axis: int | None) -> int:
        """Adds random int8 weights."""
        data = self.rng.integers(-127, 128, shape).astype(np.int8)
        count = 1 if axis is None else shape[axis]
        return self.tensor(Tensor(f"w{len(self.tensors)}", shape, "int8", channel_scales(count, axis), data))

    def bias(self, x: int, weights: int, count: int) -> int:
        """Adds a random int32 bias at the accumulator's scale."""
        scales = self.tensors[weights].quantization
        assert scales is not None
        scale = np.float32(self.tensors[x].scale) * scales.scale
        quantization = Quantization(scale, np.zeros(scale.size, np.int64), None if scale.size == 1 else 0)
        data = self.rng.integers(-2000, 2001, count).astype(np.int32)
        return self.tensor(Tensor(f"b{len(self.tensors)}", (count,), "int32", quantization, data))

    def node(self, op: str, inputs: tuple[int, ...], output: int, **attributes: Any) -> int:
        """Adds a node with one output and returns that."""
        self.nodes.append(Node(op, inputs, (output,), attributes))
        return output

    def conv(self, x: int, channels: int, kernel: int = 3, **options: Any) -> int:
        """A convolution; options: stride, dilation, padding, clamp, bias, per_channel, zero_point, scale."""
        _, h, w, c = self.tensors[x].shape
        stride, dilation = options.get("stride", 1), options.get("dilation", 1)
        top, bottom, left, right = padding = options.get("padding", (kernel // 2,) * 4)
        reach = (kernel - 1) * dilation + 1
        shape = (1, (h + top + bottom - reach) // stride + 1, (w + left + right - reach) // stride + 1, channels)
        weights = self.weights((channels, kernel, kernel, c), 0 if options.get("per_channel", True) else None)
        bias = self.bias(x, weights, channels) if options.get("bias", True) else ABSENT
        scale = self.tensors[x].scale * 0.015 * 74 * 73 * np.sqrt(kernel * kernel * c) / 40
        y = self.activation(shape, options.get("scale", float(np.float32(scale))), options.get("zero_point", -3))
        attributes = {"stride": (stride, stride), "dilation": (dilation, dilation), "padding": padding}
        return self.node("conv2d", (x, weights, bias), y, clamp=options.get("clamp", (-128, 127)), **attributes)

    def fully_connected(self, x: int, outputs: int, per_channel: bool = False) -> int:
        """A fully connected layer on [1, n]."""
        count = self.tensors[x].shape[-1]
        weights = self.weights((outputs, count), 0 if per_channel else None)
        scale = float(np.float32(self.tensors[x].scale * 0.015 * 74 * 73 * np.sqrt(count) / 40))
        y = self.activation((1, outputs), scale, 7)
        return self.node("fully_connected", (x, weights, self.bias(x, weights, outputs)), y, clamp=(-128, 127))

    def reshape(self, x: int, shape: Shape) -> int:
        """The same bytes in another shape."""
        y = self.tensor(replace(self.tensors[x], name=f"r{len(self.tensors)}", shape=shape))
        return self.node("reshape", (x,), y, shape=shape)

    def relu(self, x: int, clamp: tuple[int, int], scale: float | None = None) -> int:
        """A relu of its own; with a scale it stores its output differently."""
        source = self.tensors[x]
        quantization = source.quantization if scale is None else Quantization.per_tensor(scale, source.zero_point)
        y = self.tensor(replace(source, name=f"y{len(self.tensors)}", quantization=quantization))
        return self.node("relu", (x,), y, clamp=clamp)

    def graph(self, inputs: int | tuple[int, ...], outputs: int | tuple[int, ...]) -> Graph:
        """The finished graph."""
        ends = [(end,) if isinstance(end, int) else end for end in (inputs, outputs)]
        return Graph(self.tensors, self.nodes, ends[0], ends[1])


def small_net(seed: int = 0) -> Graph:
    """conv - conv stride 2 (relu) - conv stride 2, both with TFLite's SAME padding - flatten - fully connected."""
    build = Build(seed)
    x = build.activation((1, 8, 6, 3), 1 / 255, -128, "image")
    y = build.conv(x, 4)
    y = build.conv(y, 6, stride=2, padding=(0, 1, 0, 1), clamp=(-3, 127))
    y = build.conv(y, 5, stride=2, padding=(0, 1, 1, 1))
    _, h, w, c = build.tensors[y].shape
    y = build.fully_connected(build.reshape(y, (1, h * w * c)), 4)
    return build.graph(x, y)


def inputs_of(graph: Graph, seed: int = 0) -> list[np.ndarray]:
    """Random int8 inputs."""
    rng = np.random.default_rng(seed)
    return [rng.integers(-128, 128, graph.tensors[index].shape).astype(np.int8) for index in graph.inputs]
