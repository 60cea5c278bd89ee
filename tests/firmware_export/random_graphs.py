"""Random small models of every operator, with branches, for comparing whole generated networks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from graph_builder import Build
from random_elementwise import binary_step, reduction_step, table_step
from random_movement import movement_step
from random_products import product_step

from firmware_export.check import check
from firmware_export.graph import Graph, Quantization, Tensor

MAX_ELEMENTS = 600


class RandomGraph:
    """Grows a graph from one or two inputs; every step reads something that is there and adds one operator."""

    def __init__(self, seed: int, steps: int | None = None) -> None:
        self.rng = np.random.default_rng([seed, 77])
        self.build = Build(seed)
        self.inputs = [self.activation(self.image_shape()) for _ in range(self.pick(1, 2))]
        self.live = list(self.inputs)
        makers: list[Callable[[], int | None]] = [
            self.conv, self.conv, self.depthwise, self.fully_connected, self.average_pool, self.max_pool,
            self.reshape, self.relu, self.softmax,
            *[lambda: binary_step(self)] * 3, *[lambda: table_step(self)] * 2, *[lambda: reduction_step(self)] * 2,
            *[lambda: movement_step(self)] * 9, *[lambda: product_step(self)] * 3,
        ]  # fmt: skip
        for _ in range(steps or self.pick(2, 8)):
            made = makers[self.pick(0, len(makers) - 1)]()
            if made is not None:
                self.live.append(made)

    def graph(self) -> Graph:
        """The graph; what nothing reads are its outputs. At least one operator."""
        read = {index for node in self.build.nodes for index in node.inputs}
        if not self.build.nodes:
            self.live.append(self.relu())
        written = [index for node in self.build.nodes for index in node.outputs]
        outputs = tuple(index for index in written if index not in read)
        used = tuple(index for index in self.inputs if index in read or len(self.build.nodes) == 1)
        graph = self.build.graph(used, outputs)
        check(graph)
        return graph

    def pick(self, low: int, high: int) -> int:
        """An integer in low..high."""
        return int(self.rng.integers(low, high + 1))

    def image_shape(self) -> tuple[int, int, int, int]:
        """1 x 1..9 x 1..9 x 1..6."""
        return 1, self.pick(1, 9), self.pick(1, 9), self.pick(1, 6)

    def quantization(self, scale: float) -> Quantization:
        """About this scale, any zero point."""
        value = float(np.float32(scale * 2.0 ** self.rng.uniform(-1, 1)))
        return Quantization.per_tensor(value, (-128, 127, self.pick(-128, 127), self.pick(-20, 20))[self.pick(0, 3)])

    def activation(self, shape: tuple[int, ...], scale: float = 0.05) -> int:
        """A new activation."""
        return self.build.tensor(Tensor(f"t{len(self.build.tensors)}", shape, "int8", self.quantization(scale)))

    def source(self, rank: int | None = None) -> int | None:
        """Something to read; later values are likelier, so that graphs grow deep."""
        fitting = [i for i in self.live if rank is None or len(self.build.tensors[i].shape) == rank]
        if not fitting:
            return None
        return fitting[-1] if self.rng.random() < 0.6 else fitting[self.pick(0, len(fitting) - 1)]

    def clamp(self, output: int) -> tuple[int, int]:
        """None, or a relu."""
        zero_point = self.build.tensors[output].zero_point
        return (-128, 127) if self.rng.random() < 0.5 else (zero_point, 127)

    def window(
        self, shape: tuple[int, ...], same_only: bool = False
    ) -> tuple[dict[str, tuple[int, ...]], tuple[int, int]] | None:
        """kernel, stride, padding that fit an image, and the output's size; None where it would be too large."""
        kernel = tuple(self.pick(1, min(4, size)) for size in shape[1:3])
        stride = (self.pick(1, 2), self.pick(1, 2))
        padding = [0, 0, 0, 0] if same_only else [self.pick(0, k - 1) for k in (kernel[0], kernel[0], kernel[1], kernel[1])]
        h, w = (
            (size + sum(padding[2 * axis : 2 * axis + 2]) - k) // s + 1
            for axis, (size, k, s) in enumerate(zip(shape[1:3], kernel, stride, strict=True))
        )
        options = {"kernel": kernel, "stride": stride, "padding": tuple(padding)}
        return (options, (h, w)) if h * w * shape[3] <= MAX_ELEMENTS else None

    def conv(self) -> int | None:
        """A convolution with explicit padding."""
        x = self.source(4)
        found = None if x is None else self.window(self.build.tensors[x].shape)
        if x is None or found is None:
            return None
        (options, (h, w)), channels = found, self.pick(1, 8)
        kernel = options.pop("kernel")
        depth = self.build.tensors[x].shape[3]
        weights = self.build.weights((channels, *kernel, depth), 0 if self.rng.random() < 0.8 else None)
        bias = self.build.bias(x, weights, channels) if self.rng.random() < 0.8 else -1
        scale = self.build.tensors[x].scale * 0.012 * 74 * 73 * np.sqrt(kernel[0] * kernel[1] * depth) / 40
        y = self.activation((1, h, w, channels), scale)
        return self.build.node("conv2d", (x, weights, bias), y, dilation=(1, 1), clamp=self.clamp(y), **options)

    def depthwise(self) -> int | None:
        """A depthwise convolution, multiplier 1 or 2."""
        x = self.source(4)
        found = None if x is None else self.window(self.build.tensors[x].shape)
        if x is None or found is None:
            return None
        options, (h, w) = found
        kernel, channels = options.pop("kernel"), self.build.tensors[x].shape[3] * self.pick(1, 2)
        weights = self.build.weights((1, *kernel, channels), 3)
        bias = self.build.bias(x, weights, channels) if self.rng.random() < 0.8 else -1
        y = self.activation((1, h, w, channels), self.build.tensors[x].scale * 0.012 * 74 * 73 * 3 / 40)
        return self.build.node("depthwise_conv2d", (x, weights, bias), y, dilation=(1, 1), clamp=self.clamp(y), **options)

    def fully_connected(self) -> int | None:
        """A fully connected layer over everything, or over the last dimension."""
        x = self.source()
        assert x is not None
        shape = self.build.tensors[x].shape
        depth = shape[-1] if self.rng.random() < 0.3 else self.build.tensors[x].elements
        outputs = self.pick(1, 9)
        weights = self.build.weights((outputs, depth), 0 if self.rng.random() < 0.5 else None)
        scale = self.build.tensors[x].scale * 0.012 * 74 * 73 * np.sqrt(depth) / 40
        y = self.activation((self.build.tensors[x].elements // depth, outputs), scale)
        return self.build.node("fully_connected", (x, weights, self.build.bias(x, weights, outputs)), y, clamp=self.clamp(y))

    def pool(self, op: str, same_only: bool) -> int | None:
        """A pool; its output has its input's quantization."""
        x = self.source(4)
        found = None if x is None else self.window(self.build.tensors[x].shape, same_only)
        if x is None or found is None:
            return None
        (options, (h, w)), source = found, self.build.tensors[x]
        y = self.build.tensor(Tensor("pool", (1, h, w, source.shape[3]), "int8", source.quantization))
        return self.build.node(op, (x,), y, clamp=self.clamp(y), **options)

    def average_pool(self) -> int | None:
        """Without padding: TFLite has no other for explicit numbers."""
        return self.pool("average_pool2d", same_only=True)

    def max_pool(self) -> int | None:
        """With any padding."""
        return self.pool("max_pool2d", same_only=False)

    def reshape(self) -> int | None:
        """To one row, or from a row to an image of one pixel."""
        x = self.source()
        assert x is not None
        count = self.build.tensors[x].elements
        return self.build.reshape(x, (1, count) if len(self.build.tensors[x].shape) == 4 else (1, 1, 1, count))

    def relu(self) -> int:
        """With or without another scale."""
        x = self.source()
        assert x is not None
        source = self.build.tensors[x]
        y = self.activation(source.shape, source.scale)
        if self.rng.random() < 0.5:
            self.build.tensors[y] = Tensor("relu", source.shape, "int8", source.quantization)
        return self.build.node("relu", (x,), y, clamp=(self.build.tensors[y].zero_point, 127))

    def softmax(self) -> int | None:
        """Over the last dimension."""
        x = self.source()
        assert x is not None
        y = self.build.tensor(Tensor("softmax", self.build.tensors[x].shape, "int8", Quantization.per_tensor(1 / 256, -128)))
        return self.build.node("softmax", (x,), y, beta=1.0)


def random_graph(seed: int) -> Graph:
    """The model of one seed."""
    return RandomGraph(seed).graph()
