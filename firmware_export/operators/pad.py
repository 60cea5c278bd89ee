"""A border of one value (PAD, PADV2, Pad). Around an image before a convolution it becomes that one's padding (passes)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from firmware_export.graph import DTYPES, Array, Graph, GraphError, Node
from firmware_export.operators import Example, LayerCode, Operator, OutputSpec
from firmware_export.operators import _examples as make
from firmware_export.operators._checks import check_counts, shape_text
from firmware_export.operators._movement import (
    Axis,
    StridedCopy,
    check_outputs,
    moved_input,
    moving_example,
    random_shape,
    steps,
)
from firmware_export.operators._paddings import onnx_paddings, padded_shape, paddings_attribute, tflite_paddings
from firmware_export.requantize import INT8_MAX, INT8_MIN

if TYPE_CHECKING:
    from firmware_export.read_onnx import OnnxMatch
    from firmware_export.read_tflite import TfliteOperator
    from firmware_export.write_tflite import TfliteWriter


class Pad(Operator):
    """y = x with a border of one stored value.

    Inputs: x int8. Attributes: paddings (before and after each axis in turn), value (stored, -128..127).
    Output: int8, scale and zero point of x. Moves bytes only, the same in every arithmetic.
    """

    name = "pad"
    tflite = ("PAD", "PADV2")
    onnx = ("Pad",)

    def infer(self, graph: Graph, node: Node) -> list[OutputSpec]:
        check_counts(node, (1,))
        x = moved_input(graph, node)
        value = node.attributes.get("value")
        if not isinstance(value, int) or not INT8_MIN <= value <= INT8_MAX:
            raise GraphError(f"value {value} of a pad; supported: {INT8_MIN}..{INT8_MAX}")
        check_outputs(graph, node, x)
        return [OutputSpec(padded_shape(x, paddings_attribute(x, node)), x.dtype)]

    def simulate(self, graph: Graph, node: Node, inputs: Sequence[Array | None]) -> list[Array]:
        assert inputs[0] is not None
        paddings = paddings_attribute(graph.tensors[node.inputs[0]], node)
        return [np.pad(inputs[0], paddings, constant_values=node.integer("value"))]

    def emit(self, graph: Graph, node: Node) -> LayerCode:
        x = moved_input(graph, node)
        paddings = paddings_attribute(x, node)
        into = steps(padded_shape(x, paddings))
        copy = StridedCopy(
            tuple(Axis(*loop) for loop in zip(x.shape, steps(x.shape), into, strict=True)),
            output_start=sum(before * step for (before, _), step in zip(paddings, into, strict=True)),
        )
        y = graph.tensors[node.outputs[0]]
        fields = {"size": str(y.nbytes), "value": str(node.integer("value")), **copy.fields()}
        summary = f"{shape_text(x)} -> {shape_text(y)}"
        return LayerCode("nn_pad", "nn_pad_params", fields, sources=("pad.c", "strided.c"), summary=summary)

    def examples(self, rng: np.random.Generator) -> Iterator[Example]:
        for index in range(56):
            shape = random_shape(rng, make.pick(rng, 2, 4), 5)
            x = make.activation(shape, make.random_quantization(rng))
            paddings = [0, 0]
            for _ in shape[1:]:
                paddings += [0, 0] if rng.random() < 0.3 else [make.pick(rng, 0, 3), make.pick(rng, 0, 2)]
            value = x.zero_point if index % 2 else make.pick(rng, INT8_MIN, INT8_MAX)
            yield moving_example("pad", (x,), {"paddings": tuple(paddings), "value": value}, f"{shape}: {paddings}, {index}")

    def read_tflite(self, op: TfliteOperator) -> Node:
        x = op.input(0)
        value = x.zero_point if op.builtin == "PAD" else _constant_value(op)
        return Node(self.name, op.inputs[:1], op.outputs, {"paddings": tflite_paddings(op), "value": value})

    def read_onnx(self, match: OnnxMatch) -> Node:
        """Of mode `constant`; `reflect` becomes a mirror_pad."""
        attributes = onnx_paddings(match)
        return Node("pad" if "value" in attributes else "mirror_pad", (match.requantized(0),), match.outputs, attributes)

    def write_tflite(self, graph: Graph, node: Node, writer: TfliteWriter) -> None:
        x, value = graph.tensors[node.inputs[0]], node.integer("value")
        paddings = np.array(paddings_attribute(x, node), np.int32)
        inputs = [node.inputs[0], writer.add_constant("paddings", paddings)]
        if value == x.zero_point:
            writer.add("PAD", inputs, node.outputs, schema.PadOptionsT(), 2)
        else:
            inputs.append(writer.add_constant("value", np.array([value], DTYPES[x.dtype]), x.quantization))
            writer.add("PADV2", inputs, node.outputs, schema.PadV2OptionsT(), 2)


def _constant_value(op: TfliteOperator) -> int:
    """The stored value of a PADV2. Raises GraphError unless it is one int8 constant, stored like x."""
    x, value = op.input(0), op.input(2)
    if value.data is None or value.dtype != "int8" or value.elements != 1 or value.quantization != x.quantization:
        raise GraphError(f"the value '{value.name}' of a pad; supported: one constant with type, scale and zero point of x")
    return int(value.data.reshape(-1).astype(np.int64)[0])


OPERATOR = Pad()
