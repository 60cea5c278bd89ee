"""Elementwise sum of two int8 inputs that broadcast (ADD, Add)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ai_edge_litert import schema_py_generated as schema

from firmware_export.graph import Graph, Node
from firmware_export.operators import LayerCode
from firmware_export.operators._checks import clamp_attribute, int8_operand, shape_text
from firmware_export.operators._sum import ScaledSum

if TYPE_CHECKING:
    from firmware_export.read_tflite import TfliteOperator
    from firmware_export.write_tflite import TfliteWriter


class Add(ScaledSum):
    """y = clamp(requantize(a / common + b / common)), common = twice the larger of the two scales, 20 bits of headroom.

    Inputs: a, b: int8, shapes that broadcast; one may be a constant, both may be the same tensor.
    Attributes: clamp (lowest, highest stored value).
    Output: int8 of the common shape. Source of the arithmetic: tensorflow/lite/kernels/add.cc and internal/reference/add.h.
    In float32: XNNPACK's rule (_xnnpack.py), as LiteRT's default; where XNNPACK refuses the scales the rule of double.
    Two activations of one shape, by far the most frequent sum, have a kernel without the walk over axes.
    """

    name = "add"
    tflite = ("ADD",)
    onnx = ("Add",)
    sign = 1

    def emit(self, graph: Graph, node: Node) -> LayerCode:
        a, b = int8_operand(graph, node, 0), int8_operand(graph, node, 1)
        if a.shape != b.shape or a.is_constant or b.is_constant:
            return self.broadcast_code(graph, node, "add_broadcast")
        fields = {"size": str(a.elements), **self.fields(graph, node)}
        return LayerCode("nn_add", "nn_add_params", fields, sources=("add.c",), summary=shape_text(a))

    def read_tflite(self, op: TfliteOperator) -> Node:
        options = op.options_as(schema.AddOptionsT)
        return Node(self.name, op.inputs, op.outputs, {"clamp": op.clamp(options.fusedActivationFunction)})

    def write_tflite(self, graph: Graph, node: Node, writer: TfliteWriter) -> None:
        options = schema.AddOptionsT()
        options.fusedActivationFunction = writer.fused_activation(clamp_attribute(node), node.outputs[0])
        writer.add("ADD", node.inputs, node.outputs, options, 2)


OPERATOR = Add()
