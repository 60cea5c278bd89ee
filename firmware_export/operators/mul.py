"""Elementwise product of two int8 inputs that broadcast (MUL, Mul)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema

from firmware_export.graph import Graph, Node, Quantization, Tensor
from firmware_export.operators import Constant, Example
from firmware_export.operators import _examples as make
from firmware_export.operators._accumulator import OutputStage
from firmware_export.operators._broadcast import Elementwise, broadcast_examples, elementwise_example
from firmware_export.operators._checks import clamp_attribute, int8_operand, int8_output
from firmware_export.operators._xnnpack import PRODUCT_RANGE
from firmware_export.requantize import Int64

if TYPE_CHECKING:
    from firmware_export.read_tflite import TfliteOperator
    from firmware_export.write_tflite import TfliteWriter


class Mul(Elementwise):
    """y = clamp(requantize((a - zero point of a) * (b - zero point of b))).

    Inputs: a, b: int8, shapes that broadcast; one may be a constant, both may be the same tensor.
    Attributes: clamp (lowest, highest stored value). Output: int8 of the common shape.
    Source: tensorflow/lite/kernels/internal/reference/integer_ops/mul.h.
    In float32: the rule of the accumulating operators, as XNNPACK, LiteRT's default, has it; where XNNPACK refuses the scales
    the rule of double.
    """

    name = "mul"
    tflite = ("MUL",)
    onnx = ("Mul",)

    def combine(self, graph: Graph, node: Node, a: Int64, b: Int64) -> npt.NDArray[np.int8]:
        zero_a, zero_b = (int8_operand(graph, node, place).zero_point for place in range(2))
        products: Int64 = (a - zero_a) * (b - zero_b)
        results = _stage(graph, node).apply(products[..., np.newaxis])
        return results.reshape(products.shape).astype(np.int8)

    def fields(self, graph: Graph, node: Node) -> dict[str, str]:
        zero_points = (str(int8_operand(graph, node, place).zero_point) for place in range(2))
        return dict(zip(("zero_point_0", "zero_point_1"), zero_points, strict=True)) | _stage(graph, node).fields("stage")

    def constants(self, graph: Graph, node: Node) -> tuple[Constant, ...]:
        return _stage(graph, node).constants()

    def litert_default(self, graph: Graph, node: Node) -> bool:
        return _stage(graph.with_arithmetic("float32"), node).scale is not None

    def examples(self, rng: np.random.Generator) -> Iterator[Example]:
        for scales, label in (
            ((0.5, 0.5, 4.0), "ties"),
            ((0.5, 0.25, 0.5), "saturation at ties"),
            ((1.0, 1.0, 1e-7), "saturation and overflow"),
            ((1e-6, 1e-6, 1.0), "all outputs at the zero point"),
            ((0.02, 3.0, 5.0), "one scale 150 times the other"),
        ):
            a, b, y = (Quantization.per_tensor(float(np.float32(s)), z) for s, z in zip(scales, (-128, 127, 3), strict=True))
            tensors = make.activation((1, 5, 8), a, "a"), make.activation((1, 5, 8), b, "b")
            yield elementwise_example(self.name, *tensors, y, label, {"clamp": make.NO_CLAMP})

        def _build(a: Tensor, b: Tensor, label: str) -> Example:
            spread = a.scale * b.scale * 2.0 ** rng.uniform(5, 8)
            y = Quantization.per_tensor(float(np.float32(spread)), make.pick_zero_point(rng))
            return elementwise_example(self.name, a, b, y, label, {"clamp": make.random_clamp(rng, y)})

        def _quantizations() -> tuple[Quantization, Quantization]:
            return make.random_quantization(rng), make.random_quantization(rng)

        yield from broadcast_examples(rng, _quantizations, _build)

    def read_tflite(self, op: TfliteOperator) -> Node:
        options = op.options_as(schema.MulOptionsT)
        return Node(self.name, op.inputs, op.outputs, {"clamp": op.clamp(options.fusedActivationFunction)})

    def write_tflite(self, graph: Graph, node: Node, writer: TfliteWriter) -> None:
        options = schema.MulOptionsT()
        options.fusedActivationFunction = writer.fused_activation(clamp_attribute(node), node.outputs[0])
        writer.add("MUL", node.inputs, node.outputs, options, 2)


def _stage(graph: Graph, node: Node) -> OutputStage:
    """From the product of the input scales over the output's. Raises GraphError if it is too large."""
    a, b, y = int8_operand(graph, node, 0), int8_operand(graph, node, 1), int8_output(graph, node)
    factor = np.float32(a.scale) * np.float32(b.scale) / np.float32(y.scale)
    arithmetic = graph.arithmetic if PRODUCT_RANGE[0] <= factor < PRODUCT_RANGE[1] else "double"
    scale = np.array([b.scale], np.float32)
    return OutputStage.from_scales(arithmetic, a.scale, scale, y.scale, 1, y.zero_point, clamp_attribute(node))


OPERATOR = Mul()
