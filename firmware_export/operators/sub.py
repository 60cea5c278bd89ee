"""Elementwise difference of two int8 inputs that broadcast (SUB, Sub)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ai_edge_litert import schema_py_generated as schema

from firmware_export.graph import Graph, Node
from firmware_export.operators._checks import clamp_attribute
from firmware_export.operators._sum import ScaledSum

if TYPE_CHECKING:
    from firmware_export.read_tflite import TfliteOperator
    from firmware_export.write_tflite import TfliteWriter


class Sub(ScaledSum):
    """y = clamp(requantize(a / common - b / common)), common = twice the larger of the two scales, 20 bits of headroom.

    Inputs: a, b: int8, shapes that broadcast; one may be a constant, both may be the same tensor.
    Attributes: clamp (lowest, highest stored value). Output: int8 of the common shape.
    Source: tensorflow/lite/micro/kernels/sub.cc and internal/reference/sub.h.
    In float32: XNNPACK's rule (_xnnpack.py), as LiteRT's default; where XNNPACK refuses the scales the rule of double.
    """

    name = "sub"
    tflite = ("SUB",)
    onnx = ("Sub",)
    sign = -1

    def read_tflite(self, op: TfliteOperator) -> Node:
        options = op.options_as(schema.SubOptionsT)
        return Node(self.name, op.inputs, op.outputs, {"clamp": op.clamp(options.fusedActivationFunction)})

    def write_tflite(self, graph: Graph, node: Node, writer: TfliteWriter) -> None:
        options = schema.SubOptionsT()
        options.fusedActivationFunction = writer.fused_activation(clamp_attribute(node), node.outputs[0])
        writer.add("SUB", node.inputs, node.outputs, options, 2)


OPERATOR = Sub()
