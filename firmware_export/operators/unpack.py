"""A tensor as its slices along an axis, which they no longer have (UNPACK)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from firmware_export.graph import Array, Graph, GraphError, Node
from firmware_export.operators import Example, LayerCode, Operator, OutputSpec
from firmware_export.operators import _examples as make
from firmware_export.operators._checks import shape_text
from firmware_export.operators._movement import (
    axis_attribute,
    check_outputs,
    from_end,
    moved_input,
    moving_example,
    random_shape,
)
from firmware_export.operators._parts import check_parts, parts_code

if TYPE_CHECKING:
    from firmware_export.read_tflite import TfliteOperator
    from firmware_export.write_tflite import TfliteWriter


class Unpack(Operator):
    """y0, y1, ... = x at 0, 1, ... of an axis.

    Inputs: x int8. Attributes: axis. Outputs: as many int8 tensors as the axis has elements, without that axis, scale and
    zero point of x. Moves bytes only, the same in every arithmetic.
    """

    name = "unpack"
    tflite = ("UNPACK",)

    def infer(self, graph: Graph, node: Node) -> list[OutputSpec]:
        if len(node.inputs) != 1:
            raise GraphError(f"{len(node.inputs)} inputs; expected 1")
        check_parts(node.outputs, "outputs")
        x = moved_input(graph, node)
        axis = axis_attribute(node, len(x.shape))
        if x.shape[axis] != len(node.outputs):
            raise GraphError(f"{len(node.outputs)} outputs of axis {axis} of {x.shape}; expected one for each element")
        check_outputs(graph, node, x)
        return [OutputSpec((*x.shape[:axis], *x.shape[axis + 1 :]), x.dtype)] * len(node.outputs)

    def simulate(self, graph: Graph, node: Node, inputs: Sequence[Array | None]) -> list[Array]:
        assert inputs[0] is not None
        return [np.ascontiguousarray(part) for part in np.moveaxis(inputs[0], node.integer("axis"), 0)]

    def emit(self, graph: Graph, node: Node) -> LayerCode:
        x, axis = moved_input(graph, node), node.integer("axis")
        summary = f"{shape_text(x)}, axis {axis}"
        return parts_code(self.name, graph, node, axis, x.shape, [1] * x.shape[axis], summary)

    def examples(self, rng: np.random.Generator) -> Iterator[Example]:
        for index in range(52):
            shape = random_shape(rng, make.pick(rng, 2, 4), 5)
            axis = make.pick(rng, 1, len(shape) - 1) if index % 8 else 0
            x = make.activation(shape, make.random_quantization(rng))
            yield moving_example("unpack", (x,), {"axis": axis}, f"{shape}, axis {axis}, {index}", shape[axis])

    def read_tflite(self, op: TfliteOperator) -> Node:
        options = op.options_as(schema.UnpackOptionsT)
        return Node(self.name, op.inputs, op.outputs, {"axis": from_end(int(options.axis), len(op.input(0).shape))})

    def write_tflite(self, graph: Graph, node: Node, writer: TfliteWriter) -> None:
        options = schema.UnpackOptionsT(num=len(node.outputs), axis=node.integer("axis"))
        writer.add("UNPACK", node.inputs, node.outputs, options, 2)


OPERATOR = Unpack()
