"""Another order of the axes (TRANSPOSE, Transpose)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from firmware_export.graph import Array, Graph, GraphError, Node
from firmware_export.operators import Example, LayerCode, Operator, OutputSpec
from firmware_export.operators import _examples as make
from firmware_export.operators._checks import check_counts, shape_text
from firmware_export.operators._movement import (
    Axis,
    Shape,
    StridedCopy,
    check_outputs,
    from_end,
    moved_input,
    moving_example,
    random_shape,
    steps,
    values_attribute,
)

if TYPE_CHECKING:
    from firmware_export.read_onnx import OnnxMatch
    from firmware_export.read_tflite import TfliteOperator
    from firmware_export.write_tflite import TfliteWriter

PERMUTATIONS: tuple[Shape, ...] = (
    (0, 2, 1),
    (0, 3, 1, 2),
    (0, 2, 3, 1),
    (0, 3, 2, 1),
    (3, 2, 1, 0),
    (1, 0),
    (0, 1, 2, 3),
    (0, 4, 2, 3, 1),
)


class Transpose(Operator):
    """y[i0, i1, ...] = x with axis perm[k] of x as axis k of y.

    Inputs: x int8, any shape. Attributes: perm (each axis of x once). Output: int8, scale and zero point of x.
    Moves bytes only, the same in every arithmetic.
    """

    name = "transpose"
    tflite = ("TRANSPOSE",)
    onnx = ("Transpose",)

    def infer(self, graph: Graph, node: Node) -> list[OutputSpec]:
        check_counts(node, (1,))
        x, perm = moved_input(graph, node), _permutation(graph, node)
        check_outputs(graph, node, x)
        return [OutputSpec(tuple(x.shape[axis] for axis in perm), x.dtype)]

    def simulate(self, graph: Graph, node: Node, inputs: Sequence[Array | None]) -> list[Array]:
        assert inputs[0] is not None
        return [np.ascontiguousarray(inputs[0].transpose(_permutation(graph, node)))]

    def emit(self, graph: Graph, node: Node) -> LayerCode:
        x, perm = moved_input(graph, node), _permutation(graph, node)
        shape = tuple(x.shape[axis] for axis in perm)
        from_x = steps(x.shape)
        copy = StridedCopy(tuple(Axis(x.shape[axis], from_x[axis], to) for axis, to in zip(perm, steps(shape), strict=True)))
        summary = f"{shape_text(x)}, axes {' '.join(map(str, perm))}"
        sources = ("transpose.c", "strided.c")
        return LayerCode("nn_transpose", "nn_transpose_params", copy.fields(), sources=sources, summary=summary)

    def examples(self, rng: np.random.Generator) -> Iterator[Example]:
        for index in range(56):
            perm = PERMUTATIONS[index % len(PERMUTATIONS)]
            if index >= 3 * len(PERMUTATIONS):
                perm = tuple(int(axis) for axis in rng.permutation(make.pick(rng, 1, 5)))
            shape = random_shape(rng, len(perm))
            x = make.activation(shape, make.random_quantization(rng))
            yield moving_example("transpose", (x,), {"perm": perm}, f"{shape} by {perm}, {index}")

    def read_tflite(self, op: TfliteOperator) -> Node:
        rank = len(op.input(0).shape)
        return Node(self.name, op.inputs[:1], op.outputs, {"perm": tuple(from_end(axis, rank) for axis in op.integers(1))})

    def read_onnx(self, match: OnnxMatch) -> Node:
        rank = len(match.input(0).shape)
        perm = tuple(match.attributes.get("perm", tuple(range(rank))[::-1]))
        if len(perm) != rank:
            raise GraphError(f"perm {perm} of a tensor with {rank} dimensions")
        ours = tuple(match.axis(perm[axis], rank) for axis in match.onnx_axes(rank))
        return Node(self.name, (match.requantized(0),), match.outputs, {"perm": ours})

    def write_tflite(self, graph: Graph, node: Node, writer: TfliteWriter) -> None:
        perm = writer.add_constant("perm", np.array(node.integers("perm"), np.int32))
        writer.add("TRANSPOSE", (node.inputs[0], perm), node.outputs, schema.TransposeOptionsT(), 2)


def _permutation(graph: Graph, node: Node) -> Shape:
    rank = len(graph.tensors[node.inputs[0]].shape)
    perm = values_attribute(node, "perm", rank)
    if sorted(perm) != list(range(rank)):
        raise GraphError(f"perm is {perm}; expected each of 0 to {rank - 1} once")
    return perm


OPERATOR = Transpose()
