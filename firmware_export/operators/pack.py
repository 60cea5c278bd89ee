"""Tensors of one shape along a new axis (PACK)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from firmware_export.graph import Array, Graph, GraphError, Node
from firmware_export.model_file import MAX_RANK
from firmware_export.operators import Example, LayerCode, Operator, OutputSpec
from firmware_export.operators import _examples as make
from firmware_export.operators._checks import shape_text
from firmware_export.operators._movement import Shape, axis_attribute, check_outputs, from_end, moving_example, random_shape
from firmware_export.operators._parts import joined_inputs, parts_code

if TYPE_CHECKING:
    from firmware_export.read_tflite import TfliteOperator
    from firmware_export.write_tflite import TfliteWriter


class Pack(Operator):
    """y = the inputs along a new axis; they are stored alike.

    Inputs: 1 to 64 int8 tensors of one shape. Attributes: axis (of the output). Output: int8, scale and zero point of the
    inputs. Moves bytes only, the same in every arithmetic.
    """

    name = "pack"
    tflite = ("PACK",)

    def infer(self, graph: Graph, node: Node) -> list[OutputSpec]:
        found = joined_inputs(graph, node)
        shapes = {x.shape for x in found}
        if len(shapes) != 1 or len(found[0].shape) == MAX_RANK:
            raise GraphError(f"shapes {sorted(shapes)[:3]}; supported: one for all inputs, fewer than {MAX_RANK} dimensions")
        check_outputs(graph, node, found[0])
        return [OutputSpec(_packed(found[0].shape, len(found), node), found[0].dtype)]

    def simulate(self, graph: Graph, node: Node, inputs: Sequence[Array | None]) -> list[Array]:
        return [np.stack([x for x in inputs if x is not None], axis=node.integer("axis"))]

    def emit(self, graph: Graph, node: Node) -> LayerCode:
        found = joined_inputs(graph, node)
        whole = _packed(found[0].shape, len(found), node)
        summary = f"{len(found)} x {shape_text(found[0])}, axis {node.integer('axis')}"
        return parts_code(self.name, graph, node, node.integer("axis"), whole, [1] * len(found), summary)

    def examples(self, rng: np.random.Generator) -> Iterator[Example]:
        for index in range(52):
            shape = random_shape(rng, make.pick(rng, 1, 4), 5)
            x = make.activation(shape, make.random_quantization(rng))
            count, axis = (2, 3, 1, 4)[index % 4], make.pick(rng, 0, len(shape))
            others = [replace(x, name=f"x{place}") for place in range(count)]
            yield moving_example("pack", others, {"axis": axis}, f"{count} x {shape}, axis {axis}, {index}")

    def read_tflite(self, op: TfliteOperator) -> Node:
        options = op.options_as(schema.PackOptionsT)
        return Node(self.name, op.inputs, op.outputs, {"axis": from_end(int(options.axis), len(op.input(0).shape) + 1)})

    def write_tflite(self, graph: Graph, node: Node, writer: TfliteWriter) -> None:
        options = schema.PackOptionsT(valuesCount=len(node.inputs), axis=node.integer("axis"))
        writer.add("PACK", node.inputs, node.outputs, options, 2)


def _packed(shape: Shape, count: int, node: Node) -> Shape:
    axis = axis_attribute(node, len(shape) + 1)
    return (*shape[:axis], count, *shape[axis:])


OPERATOR = Pack()
