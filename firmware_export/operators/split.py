"""A tensor in pieces along an axis (SPLIT, SPLIT_V)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from firmware_export.graph import Array, Graph, GraphError, Node, Tensor
from firmware_export.operators import Example, LayerCode, Operator, OutputSpec
from firmware_export.operators import _examples as make
from firmware_export.operators._checks import shape_text
from firmware_export.operators._movement import (
    Shape,
    axis_attribute,
    check_outputs,
    from_end,
    moved_input,
    moving_example,
    random_shape,
    values_attribute,
)
from firmware_export.operators._parts import check_parts, parts_code

if TYPE_CHECKING:
    from firmware_export.read_tflite import TfliteOperator
    from firmware_export.write_tflite import TfliteWriter


class Split(Operator):
    """y0, y1, ... = x cut along an axis.

    Inputs: x int8. Attributes: axis, sizes (of each output along it). Outputs: int8, scale and zero point of x.
    Moves bytes only, the same in every arithmetic. ONNX's Split becomes strided slices.
    """

    name = "split"
    tflite = ("SPLIT", "SPLIT_V")

    def infer(self, graph: Graph, node: Node) -> list[OutputSpec]:
        if len(node.inputs) != 1:
            raise GraphError(f"{len(node.inputs)} inputs; expected 1")
        check_parts(node.outputs, "outputs")
        x = moved_input(graph, node)
        axis, sizes = _cut(x, node)
        check_outputs(graph, node, x)
        return [OutputSpec((*x.shape[:axis], size, *x.shape[axis + 1 :]), x.dtype) for size in sizes]

    def simulate(self, graph: Graph, node: Node, inputs: Sequence[Array | None]) -> list[Array]:
        assert inputs[0] is not None
        places = np.cumsum(node.integers("sizes"))[:-1]
        return [np.ascontiguousarray(part) for part in np.split(inputs[0], places, node.integer("axis"))]

    def emit(self, graph: Graph, node: Node) -> LayerCode:
        x = moved_input(graph, node)
        axis, sizes = _cut(x, node)
        summary = f"{shape_text(x)}, axis {axis} into {' '.join(map(str, sizes))}"
        return parts_code(self.name, graph, node, axis, x.shape, sizes, summary)

    def examples(self, rng: np.random.Generator) -> Iterator[Example]:
        for index in range(52):
            shape, count = random_shape(rng, make.pick(rng, 2, 4), 5), (2, 3, 1, 4)[index % 4]
            axis = make.pick(rng, 1, len(shape) - 1)
            equal = index % 2 == 0
            sizes = (make.pick(rng, 1, 4),) * count if equal else tuple(make.pick(rng, 1, 5) for _ in range(count))
            x = make.activation((*shape[:axis], sum(sizes), *shape[axis + 1 :]), make.random_quantization(rng))
            yield moving_example("split", (x,), {"axis": axis, "sizes": sizes}, f"{x.shape} into {sizes}, {index}", count)

    def read_tflite(self, op: TfliteOperator) -> Node:
        """SPLIT has the axis first and equal sizes, SPLIT_V sizes of which one may be -1: the rest."""
        source, axis_place = (1, 0) if op.builtin == "SPLIT" else (0, 2)
        shape, axes = op.input(source).shape, op.integers(axis_place)
        if len(axes) != 1:
            raise GraphError(f"{op.builtin} along the axes {axes[:6]}; expected one")
        axis, count = from_end(axes[0], len(shape)), len(op.outputs)
        sizes = (shape[axis] // count,) * count if op.builtin == "SPLIT" else op.integers(1)
        rest = shape[axis] - sum(size for size in sizes if size != -1)
        sizes = tuple(rest if size == -1 else size for size in sizes)
        return Node(self.name, (op.inputs[source],), op.outputs, {"axis": axis, "sizes": sizes})

    def write_tflite(self, graph: Graph, node: Node, writer: TfliteWriter) -> None:
        axis, sizes = writer.add_constant("axis", np.array(node.integer("axis"), np.int32)), node.integers("sizes")
        if len(set(sizes)) == 1:
            options = schema.SplitOptionsT(numSplits=len(sizes))
            writer.add("SPLIT", (axis, node.inputs[0]), node.outputs, options, 2)
            return
        lengths = writer.add_constant("sizes", np.array(sizes, np.int32))
        writer.add("SPLIT_V", (node.inputs[0], lengths, axis), node.outputs, schema.SplitVOptionsT(numSplits=len(sizes)), 2)


def _cut(x: Tensor, node: Node) -> tuple[int, Shape]:
    axis = axis_attribute(node, len(x.shape))
    sizes = values_attribute(node, "sizes", len(node.outputs))
    if min(sizes) < 1 or sum(sizes) != x.shape[axis]:
        raise GraphError(f"sizes {sizes[:6]} along axis {axis} of {x.shape}; expected pieces that make up the whole")
    return axis, sizes


OPERATOR = Split()
