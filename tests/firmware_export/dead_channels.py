"""Models in which many channels are dead or constant: random ones changed for it, and small convolutional nets made for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from graph_builder import Build

from firmware_export.graph import ABSENT, Graph, Node, Quantization, Tensor

FAR = 2**22
"""A bias that drives every output to an end of its range."""
WEIGHTED = ("conv2d", "depthwise_conv2d", "fully_connected")


def with_dead_channels(graph: Graph, seed: int, share: float = 0.6, ends: bool = False) -> Graph:
    """The graph with weights and biases changed so that about `share` of the channels are constant, unread or nearly so.

    ends: of layers that write outputs of the graph too.
    """
    rng = np.random.default_rng([seed, 4711])
    changed = replace(graph, tensors=list(graph.tensors))
    for node in graph.nodes:
        if node.op in WEIGHTED and (ends or node.outputs[0] not in graph.outputs):
            bias = node.inputs[2] if len(node.inputs) > 2 else ABSENT
            _change(changed, node.inputs[1], bias, 3 if node.op == "depthwise_conv2d" else 0, rng, share)
    return changed


def _change(graph: Graph, weights: int, bias: int, axis: int, rng: np.random.Generator, share: float) -> None:
    w = graph.tensors[weights]
    data = np.moveaxis(w.data.copy(), axis, 0)
    offsets = None if bias == ABSENT else graph.tensors[bias].data.copy()
    for channel in np.flatnonzero(rng.random(len(data)) < share):
        kind = rng.integers(0, 5)
        if kind == 0:
            data[channel] = 0
        elif kind == 1:
            data[channel] //= 60
        if offsets is not None and kind >= 1:
            offsets[channel] = (0, 1500, -FAR, -FAR, FAR)[kind] if kind != 1 else rng.integers(-9000, 9000)
    if axis == 0 and data.shape[-1] > 4:
        data[..., rng.random(data.shape[-1]) < share / 3] = 0
    graph.tensors[weights] = replace(w, data=np.ascontiguousarray(np.moveaxis(data, 0, axis)))
    if offsets is not None:
        graph.tensors[bias] = replace(graph.tensors[bias], data=offsets)


class DeadNet:
    """A small convolutional net: steps that keep an image, an end that makes a row of it."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng([seed, 99])
        self.build = Build(seed)
        size = (self.pick(2, 6), self.pick(2, 6))
        self.input = self.build.activation((1, *size, self.pick(1, 4)), 0.05, self.zero_point(), "image")
        self.x = self.conv(self.input, kernel=3)
        steps: list[Callable[[], int]] = [
            self.pointwise, self.pointwise, self.dense, self.depthwise, self.depthwise, self.residual, self.pool, self.pad,
            self.table, self.concatenation, self.scaled, self.shuffled, self.turned,
        ]  # fmt: skip
        for _ in range(self.pick(2, 7)):
            self.x = steps[self.pick(0, len(steps) - 1)]()

    def graph(self) -> Graph:
        """The net with dead channels; one or two outputs."""
        ends = [self.flat, self.global_mean, lambda: self.x]
        output = ends[self.pick(0, 2)]()
        graph = self.build.graph(self.input, output if output != self.x else self.pointwise())
        return with_dead_channels(graph, self.pick(0, 2**31), float(self.rng.uniform(0.1, 0.6)))

    def pick(self, low: int, high: int) -> int:
        """An integer in low..high."""
        return int(self.rng.integers(low, high + 1))

    def zero_point(self) -> int:
        """-128 as behind a relu, or any."""
        return -128 if self.rng.random() < 0.5 else self.pick(-100, 0)

    def shape(self, index: int | None = None) -> tuple[int, ...]:
        """Of a tensor, by default the one that is being continued."""
        return self.build.tensors[self.x if index is None else index].shape

    def clamp(self, zero_point: int) -> tuple[int, int]:
        """None, or a relu."""
        return (zero_point, 127) if self.rng.random() < 0.7 else (-128, 127)

    def conv(self, x: int, kernel: int, channels: int = 0, stride: int = 1) -> int:
        """A convolution with or without padding, and with or without bias."""
        room = min(self.shape(x)[1:3])
        kernel = min(kernel, room)
        padded = kernel == 3 and self.rng.random() < 0.7
        z = self.zero_point()
        options = {"zero_point": z, "clamp": self.clamp(z), "stride": stride, "bias": bool(self.rng.random() < 0.85)}
        options |= {"padding": (kernel // 2,) * 4 if padded else (0,) * 4, "per_channel": bool(self.rng.random() < 0.7)}
        return self.build.conv(x, channels or self.pick(4, 14), kernel, **options)

    def pointwise(self) -> int:
        """1x1."""
        return self.conv(self.x, 1)

    def dense(self) -> int:
        """3x3, stride 1 or 2."""
        return self.conv(self.x, 3, stride=self.pick(1, 2))

    def depthwise(self) -> int:
        """1x1 or 3x3, multiplier 1 to 3."""
        _, h, w, c = self.shape()
        size = 3 if min(h, w) >= 3 and self.rng.random() < 0.8 else 1
        pad = size // 2 if self.rng.random() < 0.7 else 0
        outputs = c * self.pick(1, 3) if c <= 14 else c
        weights = self.build.weights((1, size, size, outputs), 3)
        z = self.zero_point()
        scale = float(np.float32(self.build.tensors[self.x].scale * 0.015 * 74 * 73 * size / 40))
        y = self.build.activation((1, h + 2 * pad - size + 1, w + 2 * pad - size + 1, outputs), scale, z)
        inputs = (self.x, weights, self.build.bias(self.x, weights, outputs))
        window = {"stride": (1, 1), "dilation": (1, 1), "padding": (pad,) * 4}
        return self.build.node("depthwise_conv2d", inputs, y, clamp=self.clamp(z), **window)

    def residual(self) -> int:
        """x + conv(x), or x + x."""
        other = self.conv(self.x, 1, channels=self.shape()[3]) if self.rng.random() < 0.8 else self.x
        z = self.zero_point()
        scale = self.build.tensors[self.x].scale + self.build.tensors[other].scale
        pair = (self.x, other) if self.rng.random() < 0.5 else (other, self.x)
        return self.build.node("add", pair, self.build.activation(self.shape(), scale, z), clamp=self.clamp(z))

    def scaled(self) -> int:
        """x * row of constants."""
        x = self.build.tensors[self.x]
        data = self.build.rng.integers(-128, 128, (1, 1, 1, x.shape[3])).astype(np.int8)
        row = self.build.tensor(Tensor("row", data.shape, "int8", Quantization.per_tensor(0.01, 3), data))
        return self.build.node("mul", (self.x, row), self.build.activation(x.shape, x.scale, 5), clamp=(-128, 127))

    def pool(self) -> int:
        """2x2, average or largest."""
        x = self.build.tensors[self.x]
        _, h, w, c = x.shape
        size = (min(h, 2), min(w, 2))
        y = self.build.tensor(Tensor("pool", (1, h - size[0] + 1, w - size[1] + 1, c), "int8", x.quantization))
        op = ("average_pool2d", "max_pool2d")[self.pick(0, 1)]
        return self.build.node(op, (self.x,), y, kernel=size, stride=(1, 1), padding=(0, 0, 0, 0), clamp=(-128, 127))

    def pad(self) -> int:
        """A border of any value."""
        x = self.build.tensors[self.x]
        if max(x.shape[1:3]) > 6:
            return self.pool()
        paddings = (0, 0, *(self.pick(0, 1) for _ in range(4)), 0, 0)
        shape = (1, x.shape[1] + sum(paddings[2:4]), x.shape[2] + sum(paddings[4:6]), x.shape[3])
        y = self.build.tensor(Tensor("pad", shape, "int8", x.quantization))
        value = x.zero_point if self.rng.random() < 0.5 else self.pick(-128, 127)
        return self.build.node("pad", (self.x,), y, paddings=paddings, value=value)

    def table(self) -> int:
        """A relu that changes the scale."""
        z = self.zero_point()
        return self.build.relu(self.x, (z, 127), scale=self.build.tensors[self.x].scale * 1.3)

    def concatenation(self) -> int:
        """x and a convolution of it, along channels or rows."""
        x, axis = self.build.tensors[self.x], (3, 3, 1)[self.pick(0, 2)]
        if x.shape[axis] > 14:
            return self.pointwise()
        other = self.conv(self.x, 1, channels=x.shape[3] if axis == 1 else self.pick(1, 5))
        self.build.tensors[other] = replace(self.build.tensors[other], quantization=x.quantization)
        last = self.build.nodes[-1]
        self.build.nodes[-1] = replace(last, attributes=last.attributes | {"clamp": (x.zero_point, 127)})
        shape = list(x.shape)
        shape[axis] += self.shape(other)[axis]
        y = self.build.tensor(Tensor("joined", tuple(shape), "int8", x.quantization))
        return self.build.node("concatenation", (other, self.x), y, axis=axis)

    def shuffled(self) -> int:
        """x in two parts along channels, the first one through a convolution, the other way round together again."""
        x = self.build.tensors[self.x]
        if x.shape[3] < 2:
            return self.pointwise()
        first = self.pick(1, x.shape[3] - 1)
        sizes = (first, x.shape[3] - first)
        one, other = (self.build.tensor(Tensor("part", (*x.shape[:3], n), "int8", x.quantization)) for n in sizes)
        self.build.nodes.append(Node("split", (self.x,), (one, other), {"axis": 3, "sizes": sizes}))
        changed = self.conv(one, 1, channels=first)
        self.build.tensors[changed] = replace(self.build.tensors[changed], quantization=x.quantization)
        last = self.build.nodes[-1]
        self.build.nodes[-1] = replace(last, attributes=last.attributes | {"clamp": (x.zero_point, 127)})
        y = self.build.tensor(replace(x, name="shuffled"))
        return self.build.node("concatenation", (other, changed), y, axis=3)

    def turned(self) -> int:
        """Rows become columns."""
        x = self.build.tensors[self.x]
        y = self.build.tensor(replace(x, name="turned", shape=(1, x.shape[2], x.shape[1], x.shape[3])))
        return self.build.node("transpose", (self.x,), y, perm=(0, 2, 1, 3))

    def flat(self) -> int:
        """Reshaped and fully connected."""
        count = int(np.prod(self.shape()))
        x = self.build.reshape(self.x, (1, count)) if self.rng.random() < 0.7 else self.x
        weights = self.build.weights((self.pick(1, 6), count), 0 if self.rng.random() < 0.5 else None)
        outputs = self.build.tensors[weights].shape[0]
        y = self.build.activation((1, outputs), self.build.tensors[x].scale * 0.015 * 74 * 73 * count**0.5 / 40, 7)
        return self.build.node("fully_connected", (x, weights, self.build.bias(x, weights, outputs)), y, clamp=(-128, 127))

    def global_mean(self) -> int:
        """Over height and width, then fully connected."""
        c = self.shape()[3]
        y = self.build.activation((1, c), self.build.tensors[self.x].scale * 0.7, self.zero_point())
        mean = self.build.node("mean", (self.x,), y, axes=(1, 2), keep_dims=0)
        return self.build.fully_connected(mean, self.pick(1, 5), per_channel=True)


def dead_net(seed: int) -> Graph:
    """The net of one seed."""
    return DeadNet(seed).graph()
