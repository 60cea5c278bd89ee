"""Builds ONNX models of the QOperator form on stored integers in tests, with onnx.helper alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Shape = tuple[int, ...]
IMAGE: Shape = (1, 3, 5, 4)
STANDARD = ("QLinearConv", "QLinearMatMul")


class Stored:
    """A model on stored integers of one type: its inputs and outputs are integers too."""

    def __init__(self, dtype: str, shape: Shape = IMAGE, seed: int = 0) -> None:
        self.dtype, self.shape, self.rng = dtype, shape, np.random.default_rng(seed)
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self.offset = 128 if dtype == "uint8" else 0

    def constant(self, array: Any) -> str:
        self.initializers.append(numpy_helper.from_array(np.asarray(array), f"c{len(self.initializers)}"))
        return str(self.initializers[-1].name)

    def pair(self, scale: float, zero_point: int) -> list[str]:
        """Scale and zero point; the zero point as int8 has it."""
        return [self.constant(np.float32(scale)), self.constant(np.array(zero_point + self.offset).astype(self.dtype))]

    def weights(self, shape: Shape, axis: int | None = 0, dtype: str = "int8") -> list[str]:
        """Symmetric weights with one scale or one for each index of an axis."""
        middle, count = (128 if dtype == "uint8" else 0), 1 if axis is None else shape[axis]
        data = (self.rng.integers(-127, 128, shape) + middle).astype(dtype)
        scale = (0.01 * 2 ** self.rng.uniform(-1, 1, count)).astype(np.float32)
        zero = np.full(count, middle, dtype)
        parts = (data, scale[0], zero[0]) if axis is None else (data, scale, zero)
        return [self.constant(part) for part in parts]

    def bias(self, count: int) -> str:
        return self.constant(self.rng.integers(-3000, 3001, count).astype(np.int32))

    def node(self, op_type: str, inputs: list[str], output: str, **attributes: Any) -> str:
        domain = "com.microsoft" if op_type.startswith("Q") and op_type not in STANDARD else ""
        self.nodes.append(helper.make_node(op_type, inputs, [output], domain=domain, **attributes))
        return output

    def model(self, shape: Shape) -> onnx.ModelProto:
        code = TensorProto.UINT8 if self.dtype == "uint8" else TensorProto.INT8
        edges = [helper.make_tensor_value_info(name, code, size) for name, size in (("x", self.shape), ("y", shape))]
        graph = helper.make_graph(self.nodes, "net", edges[:1], edges[1:], self.initializers)
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)
