"""Elementwise product of two int8 inputs that broadcast (MUL, Mul)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema

from firmware_export.graph import Graph, Node, Quantization, Tensor
from firmware_export.operators import Example
from firmware_export.operators import _examples as make
from firmware_export.operators._accumulator import check_shift
from firmware_export.operators._broadcast import Elementwise, broadcast_examples, elementwise_example
from firmware_export.operators._checks import clamp_attribute, int8_operand, int8_output
from firmware_export.requantize import Int64, quantize_multiplier, requantize, to_int8

if TYPE_CHECKING:
    from firmware_export.read_tflite import TfliteOperator
    from firmware_export.write_tflite import TfliteWriter


class Mul(Elementwise):
    """y = clamp(requantize((a - zero point of a) * (b - zero point of b))).

    Inputs: a, b: int8, shapes that broadcast; one may be a constant, both may be the same tensor.
    Attributes: clamp (lowest, highest stored value). Output: int8 of the common shape.
    Source: tensorflow/lite/kernels/internal/reference/integer_ops/mul.h.
    """

    name = "mul"
    tflite = ("MUL",)
    onnx = ("Mul",)

    def combine(self, graph: Graph, node: Node, a: Int64, b: Int64) -> npt.NDArray[np.int8]:
        multiplier, shift = _factor(graph, node)
        zero_a, zero_b = (int8_operand(graph, node, place).zero_point for place in range(2))
        scaled = requantize((a - zero_a) * (b - zero_b), multiplier, shift)
        return to_int8(scaled, int8_output(graph, node).zero_point, clamp_attribute(node))

    def fields(self, graph: Graph, node: Node) -> dict[str, str]:
        (multiplier, shift), (low, high) = _factor(graph, node), clamp_attribute(node)
        fields = {
            "multiplier": multiplier,
            "shift": shift,
            "zero_point_0": int8_operand(graph, node, 0).zero_point,
            "zero_point_1": int8_operand(graph, node, 1).zero_point,
            "zero_point": int8_output(graph, node).zero_point,
            "min": low,
            "max": high,
        }
        return {key: str(value) for key, value in fields.items()}

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


def _factor(graph: Graph, node: Node) -> tuple[int, int]:
    """Multiplier and shift of the product of the input scales over the output's. Raises GraphError if it is too large."""
    a, b = int8_operand(graph, node, 0), int8_operand(graph, node, 1)
    real = a.scale * b.scale / int8_output(graph, node).scale
    multiplier, shift = quantize_multiplier(real)
    check_shift(shift, real)
    return int(multiplier[0]), int(shift[0])


OPERATOR = Mul()
