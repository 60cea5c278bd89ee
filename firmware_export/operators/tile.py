"""A tensor repeated along its axes (TILE, Tile)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from firmware_export.graph import Array, Graph, GraphError, Node, Tensor
from firmware_export.model_file import MAX_ELEMENTS
from firmware_export.operators import Example, LayerCode, Operator, OutputSpec
from firmware_export.operators import _examples as make
from firmware_export.operators._checks import check_counts, integers, shape_text
from firmware_export.operators._movement import (
    Axis,
    Shape,
    StridedCopy,
    check_outputs,
    moved_input,
    moving_example,
    random_shape,
    steps,
)
from firmware_export.operators._parts import write_joined

if TYPE_CHECKING:
    from firmware_export.read_onnx import OnnxMatch
    from firmware_export.read_tflite import TfliteOperator
    from firmware_export.write_tflite import TfliteWriter


class Tile(Operator):
    """y = x, as often along each axis as `repeats` says.

    Inputs: x int8. Attributes: repeats (1 or more for each axis). Output: int8, scale and zero point of x.
    Moves bytes only, the same in every arithmetic.
    """

    name = "tile"
    tflite = ("TILE",)
    onnx = ("Tile",)

    def infer(self, graph: Graph, node: Node) -> list[OutputSpec]:
        check_counts(node, (1,))
        x = moved_input(graph, node)
        repeats = integers(node, "repeats", len(x.shape), 1)
        shape = _tiled(x, repeats)
        if math.prod(shape) > MAX_ELEMENTS:
            raise GraphError(f"a tile of {x.shape} by {repeats}; supported: up to {MAX_ELEMENTS:,} elements")
        _copy(x, repeats).fields()
        check_outputs(graph, node, x)
        return [OutputSpec(shape, x.dtype)]

    def simulate(self, graph: Graph, node: Node, inputs: Sequence[Array | None]) -> list[Array]:
        assert inputs[0] is not None
        return [np.tile(inputs[0], node.integers("repeats"))]

    def emit(self, graph: Graph, node: Node) -> LayerCode:
        x, repeats = moved_input(graph, node), node.integers("repeats")
        summary = f"{shape_text(x)} by {' '.join(map(str, repeats))}"
        fields = _copy(x, repeats).fields()
        return LayerCode("nn_tile", "nn_tile_params", fields, sources=("tile.c", "strided.c"), summary=summary)

    def examples(self, rng: np.random.Generator) -> Iterator[Example]:
        for index in range(54):
            shape = random_shape(rng, make.pick(rng, 2, 4), 5)
            repeats = (1, *(make.pick(rng, 1, 3) for _ in shape[1:]))
            if index % 9 == 0:
                repeats = (1, (3, 11, 23)[index // 9 % 3], *repeats[2:])
            x = make.activation(shape, make.random_quantization(rng))
            yield moving_example("tile", (x,), {"repeats": repeats}, f"{shape} by {repeats}, {index}")

    def read_tflite(self, op: TfliteOperator) -> Node:
        return Node(self.name, op.inputs[:1], op.outputs, {"repeats": op.integers(1)})

    def read_onnx(self, match: OnnxMatch) -> Node:
        repeats, rank = match.integers(1), len(match.input(0).shape)
        if len(repeats) != rank:
            raise GraphError(f"Tile by {repeats[:8]} of a tensor with {rank} dimensions")
        ours = tuple(repeats[axis] for axis in match.onnx_axes(rank))
        return Node(self.name, (match.requantized(0),), match.outputs, {"repeats": ours})

    def write_tflite(self, graph: Graph, node: Node, writer: TfliteWriter) -> None:
        """TFLite Micro has no TILE: the tensor is concatenated with itself, axis by axis."""
        repeats, source = node.integers("repeats"), node.inputs[0]
        for axis in (axis for axis, repeat in enumerate(repeats) if repeat > 1):
            output = node.outputs[0]
            if any(repeat > 1 for repeat in repeats[axis + 1 :]):
                x, y = writer.tensor(source), graph.tensors[output]
                shape = (*x.shape[:axis], x.shape[axis] * repeats[axis], *x.shape[axis + 1 :])
                output = writer.add_activation(f"{y.name}/tiled {axis}", shape, y.dtype, y.quantization)
            write_joined(writer, [source] * repeats[axis], output, axis)
            source = output
        if source == node.inputs[0]:
            write_joined(writer, [source], node.outputs[0], 0)


def _tiled(x: Tensor, repeats: Shape) -> Shape:
    return tuple(size * repeat for size, repeat in zip(x.shape, repeats, strict=True))


def _copy(x: Tensor, repeats: Shape) -> StridedCopy:
    """Each axis is two loops: the repetitions, which do not move the input, around the elements."""
    axes: list[Axis] = []
    for size, repeat, from_x, to in zip(x.shape, repeats, steps(x.shape), steps(_tiled(x, repeats)), strict=True):
        axes += [Axis(repeat, 0, to * size), Axis(size, from_x, to)]
    return StridedCopy(tuple(axes))


OPERATOR = Tile()
