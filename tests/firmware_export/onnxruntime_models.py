"""Float networks, and what onnxruntime's quantizer makes of them in either form, type and granularity of weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Shape = tuple[int, ...]


@dataclass
class FloatNet:
    """A float network in the making; weights are random, in sizes that keep the values' spread."""

    shape: Shape = (1, 3, 10, 7)
    seed: int = 0
    nodes: list[Any] = field(default_factory=list)
    initializers: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)

    def constant(self, array: Any) -> str:
        name = f"c{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def node(self, op_type: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        names = [f"v{len(self.nodes)}_{place}" for place in range(outputs)]
        self.nodes.append(helper.make_node(op_type, inputs, names, f"n{len(self.nodes)}", **attributes))
        return names[0] if outputs == 1 else names

    def weights(self, *shape: int, depth: int) -> str:
        return self.constant((self.rng.standard_normal(shape) * np.sqrt(2 / depth)).astype(np.float32))

    def conv(self, x: str, inputs: int, outputs: int, kernel: int = 3, group: int = 1, **attributes: Any) -> str:
        depth = inputs // group * kernel * kernel
        weights = self.weights(outputs, inputs // group, kernel, kernel, depth=depth)
        options = {"kernel_shape": [kernel, kernel], "pads": [kernel // 2] * 4, "group": group, **attributes}
        return str(self.node("Conv", x, weights, self.weights(outputs, depth=20), **options))

    def gemm(self, x: str, inputs: int, outputs: int) -> str:
        weights = self.weights(outputs, inputs, depth=inputs)
        return str(self.node("Gemm", x, weights, self.weights(outputs, depth=20), transB=1))

    def model(self, output: str, shape: Shape, opset: int = 17) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "net",
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, self.shape)],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, shape)],
            self.initializers,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def small_cnn() -> onnx.ModelProto:
    """Convolutions of all kinds, pools, a residual sum, a gate, a flattened image that is not square, two dense layers."""
    net = FloatNet()
    x = net.node("Relu", net.conv("input", 3, 8))
    depthwise = net.node("Relu", net.conv(x, 8, 8, group=8))
    x = net.node("Add", x, net.conv(depthwise, 8, 8, 1))
    x = net.node("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    gate = net.node("Sigmoid", net.conv(net.node("GlobalAveragePool", x), 8, 8, 1))
    x = net.node("Mul", x, gate)
    x = net.node("LeakyRelu", net.conv(x, 8, 6, strides=[1, 2]), alpha=0.1)
    x = net.node("AveragePool", x, kernel_shape=[2, 1], strides=[1, 1])
    x = net.node("Relu", net.gemm(net.node("Flatten", x), 6 * 4 * 2, 10))
    x = net.node("Add", net.node("MatMul", x, net.weights(10, 5, depth=10)), net.weights(5, depth=20))
    return net.model(net.node("Softmax", x, axis=-1), (1, 5))


def moving_net() -> onnx.ModelProto:
    """Operators that move values: concatenation, split, pad, transpose, reshape, resize, slice."""
    net = FloatNet((1, 4, 6, 5), 3)
    x = net.node("Clip", net.conv("input", 4, 6), net.constant(np.float32(0)), net.constant(np.float32(6)))
    one, other = net.node("Split", x, outputs=2, axis=1)
    x = net.node("Concat", other, net.conv(one, 3, 3), one, axis=1)
    x = net.node("Pad", x, net.constant(np.array([0, 0, 1, 0, 0, 0, 0, 1], np.int64)), net.constant(np.float32(0)))
    scales = net.constant(np.array([1, 1, 2, 2], np.float32))
    x = net.node("Resize", x, "", scales, mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor")
    numbers = [net.constant(np.array(values, np.int64)) for values in ([1, 2], [13, 11], [2, 3])]
    x = net.conv(net.node("Slice", x, *numbers), 9, 5)
    x = net.node("Transpose", x, perm=[0, 2, 3, 1])
    x = net.node("Reshape", x, net.constant(np.array([1, -1], np.int64)))
    return net.model(net.gemm(x, 12 * 9 * 5, 4), (1, 4))


NETS = {"small_cnn": small_cnn, "moving_net": moving_net}


def inputs_of_net(model: onnx.ModelProto, count: int, seed: int) -> np.ndarray:
    """float32 [count, 1, c, h, w], smooth, in 0..1."""
    shape = tuple(dim.dim_value or 1 for dim in model.graph.input[0].type.tensor_type.shape.dim)
    rng = np.random.default_rng(seed)
    values = rng.random((count, *shape)) * 0.4 + rng.random((count, 1, shape[1], 1, 1)) * 0.6
    values.reshape(count, -1)[:, 0], values.reshape(count, -1)[:, -1] = 0.0, 1.0
    return np.asarray(values, np.float32)


def quantized(model: onnx.ModelProto, folder: Path, form: str, activations: str, weights: str, **options: Any) -> Path:
    """The model after onnxruntime's quantize_static.

    Args:
        form: QDQ or QOperator. activations, weights: QInt8 or QUInt8. options: of quantize_static.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._rows: Iterator[np.ndarray] = iter(inputs_of_net(model, 40, 1))

        def get_next(self) -> dict[str, np.ndarray] | None:
            row = next(self._rows, None)
            return None if row is None else {"input": row}

    source, target = folder / "float.onnx", folder / "int8.onnx"
    onnx.save(model, source)
    types = {"activation_type": QuantType[activations], "weight_type": QuantType[weights]}
    quantize_static(source, target, Reader(), quant_format=QuantFormat[form], **types, **options)
    return target
