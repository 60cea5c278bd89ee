"""Builds QDQ ONNX models in tests, with onnx.helper alone: none of the code under test has a part in it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 20
Shape = tuple[int, ...]
SUM_RMS = 2.0


@dataclass
class Qdq:
    """A model in the making. Every method returns the name of a dequantized float value."""

    shape: Shape = (1, 3, 8, 8)
    seed: int = 0
    nodes: list[Any] = field(default_factory=list)
    initializers: list[Any] = field(default_factory=list)
    shapes: dict[str, Shape] = field(default_factory=dict)
    scales: dict[str, tuple[float, int]] = field(default_factory=dict)
    rms: dict[str, float] = field(default_factory=dict)
    """Rough size of each value: weights are chosen so that sums have about SUM_RMS, whatever the depth of the net."""

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        self._count = 0

    def fresh(self, word: str) -> str:
        """A name that was not used before."""
        self._count += 1
        return f"{word}_{self._count}"

    def constant(self, array: Any, word: str = "c") -> str:
        """An initializer; scalars stay rank 0."""
        name = self.fresh(word)
        self.initializers.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def node(self, op_type: str, inputs: list[str], **attributes: Any) -> str:
        """A node with one output."""
        output = self.fresh(op_type.lower())
        self.nodes.append(helper.make_node(op_type, inputs, [output], name=f"n_{output}", **attributes))
        return output

    def quantized(self, value: str, scale: float, zero_point: int, shape: Shape) -> str:
        """QuantizeLinear and DequantizeLinear behind a float value."""
        s, z = self.constant(np.float32(scale), "scale"), self.constant(np.int8(zero_point), "zp")
        stored = self.node("QuantizeLinear", [value, s, z])
        result = self.node("DequantizeLinear", [stored, s, z])
        self.shapes[result], self.scales[result] = shape, (float(np.float32(scale)), zero_point)
        self.rms[result] = 0.58 * 255 * scale if zero_point == -128 else 0.58 * 128 * scale
        return result

    def input(self, name: str = "input", scale: float = 1 / 255, zero_point: int = -128) -> str:
        """The model's float input, quantized."""
        return self.quantized(name, scale, zero_point, self.shape)

    def weights(self, shape: Shape, spread: float = 0.01, per_channel: bool = True, axis: int = 0) -> tuple[str, np.ndarray]:
        """int8 weights behind a DequantizeLinear, and their scales."""
        count = shape[axis] if per_channel else 1
        scale = (spread * np.exp2(self.rng.uniform(-1, 1, count))).astype(np.float32)
        data = self.rng.integers(-127, 128, shape).astype(np.int8)
        if per_channel:
            inputs = [self.constant(data, "w"), self.constant(scale, "ws"), self.constant(np.zeros(count, np.int8), "wz")]
            return self.node("DequantizeLinear", inputs, axis=axis), scale
        inputs = [self.constant(data, "w"), self.constant(scale[0], "ws"), self.constant(np.int8(0), "wz")]
        return self.node("DequantizeLinear", inputs), scale

    def bias(self, count: int, scale: np.ndarray, magnitude: int = 3000) -> str:
        """int32 bias behind a DequantizeLinear with the accumulator's scale."""
        data = self.rng.integers(-magnitude, magnitude + 1, count).astype(np.int32)
        if scale.size == 1:
            inputs = [self.constant(data, "b"), self.constant(scale.reshape(()), "bs"), self.constant(np.int32(0), "bz")]
            return self.node("DequantizeLinear", inputs)
        inputs = [self.constant(data, "b"), self.constant(scale, "bs"), self.constant(np.zeros(count, np.int32), "bz")]
        return self.node("DequantizeLinear", inputs, axis=0)

    def clamped(self, value: str, activation: str | tuple[float, float]) -> str:
        """Relu, or Clip with constant bounds, or nothing."""
        if activation == "relu":
            return self.node("Relu", [value])
        if isinstance(activation, tuple):
            low, high = (self.constant(np.float32(bound), "bound") for bound in activation)
            return self.node("Clip", [value, low, high])
        return value

    def conv(self, x: str, channels: int, kernel: int = 3, **options: Any) -> str:
        """Conv; options: stride, pads, group, dilation, activation, per_channel, bias, zero_point, scale."""
        _, c, h, w = self.shapes[x]
        group, stride, dilation = options.get("group", 1), options.get("stride", 1), options.get("dilation", 1)
        pads = options.get("pads", (kernel // 2,) * 4)
        depth = c // group * kernel * kernel
        shape = (channels, c // group, kernel, kernel)
        weights, scale = self.weights(shape, self.gain(x, depth), options.get("per_channel", True))
        x_scale = np.float32(self.scales[x][0])
        inputs = [x, weights] + ([self.bias(channels, x_scale * scale)] if options.get("bias", True) else [])
        attributes = {"strides": [stride] * 2, "pads": list(pads), "group": group, "dilations": [dilation] * 2}
        y = self.node("Conv", inputs, kernel_shape=[kernel, kernel], **attributes)
        reach = (kernel - 1) * dilation + 1
        size: Shape = (
            1,
            channels,
            (h + pads[0] + pads[2] - reach) // stride + 1,
            (w + pads[1] + pads[3] - reach) // stride + 1,
        )
        activation = options.get("activation", "relu")
        y = self.quantized(
            self.clamped(y, activation), options.get("scale", 5 * SUM_RMS / 255), options.get("zero_point", -128), size
        )
        self.rms[y] = SUM_RMS * (0.7 if activation else 1.0)
        return y

    def gain(self, x: str, depth: int) -> float:
        """The scale of random int8 weights at which sums of `depth` products have the size SUM_RMS."""
        return float(SUM_RMS / (np.sqrt(depth) * self.rms.get(x, SUM_RMS) * 73))

    def gemm(self, x: str, outputs: int, trans_b: int = 1, per_channel: bool = True) -> str:
        """Gemm with int8 weights."""
        count = self.shapes[x][-1]
        shape = (outputs, count) if trans_b else (count, outputs)
        weights, scale = self.weights(shape, self.gain(x, count), per_channel, 0 if trans_b else 1)
        inputs = [x, weights, self.bias(outputs, np.float32(self.scales[x][0]) * scale)]
        y = self.node("Gemm", inputs, transB=trans_b)
        return self.quantized(y, 5 * SUM_RMS / 255, 3, (1, outputs))

    def add(self, x: str, y: str, activation: str | tuple[float, float] = "", scale: float | None = None) -> str:
        """Add of two values of the same shape."""
        out = scale or 1.2 * max(self.scales[x][0], self.scales[y][0])
        return self.quantized(self.clamped(self.node("Add", [x, y]), activation), out, -5, self.shapes[x])

    def same_scale(self, op_type: str, x: str, shape: Shape, *constants: str, **attributes: Any) -> str:
        """An operator that keeps its input's scale, with QuantizeLinear and DequantizeLinear behind it."""
        y = self.quantized(self.node(op_type, [x, *constants], **attributes), *self.scales[x], shape)
        self.rms[y] = self.rms[x]
        return y

    def bare(self, op_type: str, x: str, shape: Shape, *constants: str, **attributes: Any) -> str:
        """An operator on a dequantized value with nothing behind it."""
        y = self.node(op_type, [x, *constants], **attributes)
        self.shapes[y], self.scales[y], self.rms[y] = shape, self.scales[x], self.rms[x]
        return y

    def global_pool(self, x: str, flatten: bool = True, scale: float | None = None) -> str:
        """GlobalAveragePool (and Flatten) before the QuantizeLinear."""
        y, channels = self.node("GlobalAveragePool", [x]), self.shapes[x][1]
        shape: Shape = (1, channels, 1, 1)
        if flatten:
            y, shape = self.node("Flatten", [y]), (1, channels)
        y = self.quantized(y, scale or self.scales[x][0] / 3, -128, shape)
        self.rms[y] = 0.5 * self.rms[x]
        return y

    def model(self, output: str, name: str = "logits", input_name: str = "input") -> onnx.ModelProto:
        """The finished model: `output` becomes the graph output `name`."""
        self.nodes[[node.output[0] for node in self.nodes].index(output)].output[0] = name
        inputs = [helper.make_tensor_value_info(input_name, TensorProto.FLOAT, self.shape)]
        outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, self.shapes[output])]
        graph = helper.make_graph(self.nodes, "net", inputs, outputs, self.initializers)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)


def resnet(seed: int = 0, size: int = 8, classes: int = 5) -> onnx.ModelProto:
    """Stem, two residual blocks (the second with stride 2 and a 1x1 skip), global pool, Gemm: what the pipeline exports."""
    net = Qdq((1, 1, size, size), seed)
    x = net.conv(net.input(), 8)
    y = net.conv(net.conv(x, 8), 8, activation="", zero_point=4)
    x = net.add(x, y, "relu")
    y = net.conv(net.conv(x, 12, stride=2, pads=(0, 0, 1, 1)), 12, activation="", zero_point=-7)
    x = net.add(net.conv(x, 12, 1, stride=2, pads=(0, 0, 0, 0), activation="", zero_point=9), y, "relu")
    return net.model(net.gemm(net.global_pool(x), classes))


def dscnn(seed: int = 0, size: int = 9, classes: int = 4) -> onnx.ModelProto:
    """Stem with stride 2, depthwise and pointwise convolutions with ReLU6, global pool, Gemm."""
    net = Qdq((1, 2, size, size), seed)
    x = net.conv(net.input(), 8, stride=2, activation=(0.0, 6.0), scale=6 / 255)
    for channels in (8, 12):
        depth = net.shapes[x][1]
        x = net.conv(x, depth, group=depth, activation=(0.0, 6.0))
        x = net.conv(x, channels, 1, pads=(0, 0, 0, 0), activation=(0.0, 6.0))
    return net.model(net.gemm(net.global_pool(x), classes))
