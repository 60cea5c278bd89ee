"""What mean, sum and reduce_max share: axes in every format, shapes, the walk in C, example shapes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from firmware_export.graph import Attribute, Graph, GraphError, Node, Tensor
from firmware_export.operators import Operator, OutputSpec
from firmware_export.operators._checks import check_counts, int8_input, shape_text

if TYPE_CHECKING:
    from firmware_export.read_onnx import OnnxMatch
    from firmware_export.read_tflite import TfliteOperator
    from firmware_export.write_tflite import TfliteWriter

Shape = tuple[int, ...]
Axis = tuple[int, int]
"""Size and step in elements."""
MAX_AXES = 3
"""NN_REDUCTION_AXES of runtime/reduction.h."""
IMAGE_ORDERS = "axes that leave the channels, or height and width, alone"


class Reduction(Operator):
    """One value from all elements along some axes. Attributes: axes (ascending), keep_dims 0 or 1."""

    def infer(self, graph: Graph, node: Node) -> list[OutputSpec]:
        check_counts(node, (1,))
        x, axes = int8_input(graph, node), reduced_axes(graph, node)
        kept = [1 if axis in axes else size for axis, size in enumerate(x.shape)]
        shape = kept if node.attributes.get("keep_dims") else [s for axis, s in enumerate(kept) if axis not in axes]
        return [OutputSpec(tuple(shape), "int8")]

    def read_tflite(self, op: TfliteOperator) -> Node:
        axes, rank = op.input(1).data, len(op.input(0).shape)
        if axes is None or axes.dtype not in (np.int32, np.int64):
            raise GraphError(f"{op.builtin} with computed axes; supported: constant int32 axes")
        wrapped = sorted({int(axis) % rank if -rank <= axis < rank else int(axis) for axis in axes.ravel().tolist()})
        keep_dims = int(bool(op.options_as(schema.ReducerOptionsT).keepDims))
        return Node(self.name, op.inputs[:1], op.outputs, {"axes": tuple(wrapped), "keep_dims": keep_dims})

    def read_onnx(self, match: OnnxMatch) -> Node:
        return Node(self.name, match.inputs[:1], match.outputs, onnx_attributes(match))

    def add_to_file(self, builtin: str, graph: Graph, node: Node, writer: TfliteWriter) -> None:
        """Writes the node as a TFLite operator with the axes as a constant."""
        axes = writer.add_constant("axes", np.array(reduced_axes(graph, node), np.int32))
        options = schema.ReducerOptionsT()
        options.keepDims = bool(node.attributes.get("keep_dims"))
        writer.add(builtin, (node.inputs[0], axes), node.outputs, options, 2)


def reduced_axes(graph: Graph, node: Node) -> tuple[int, ...]:
    """The axes, checked. Raises GraphError unless they are ascending and within the input's rank."""
    axes, rank = node.attributes.get("axes"), len(graph.tensors[node.inputs[0]].shape)
    if not isinstance(axes, tuple) or not axes or not all(isinstance(axis, int) for axis in axes):
        raise GraphError(f"axes {axes}; expected at least one axis")
    ours = tuple(int(axis) for axis in axes)
    if ours[0] < 0 or ours[-1] >= rank or list(ours) != sorted(set(ours)):
        raise GraphError(f"axes {ours} of {rank} dimensions; supported: ascending, each once")
    return ours


def onnx_attributes(match: OnnxMatch) -> dict[str, Attribute]:
    """Axes in our layout and whether they are kept.

    Raises:
        GraphError: what is left of an image or of five dimensions would stand in another order than in NHWC.
    """
    rank, keep_dims = len(match.input(0).shape), int(bool(match.attributes.get("keepdims", 1)))
    given = _onnx_axes(match)
    if not given and match.attributes.get("noop_with_empty_axes", 0):
        raise GraphError(f"{match.op_type} over no axes; supported: at least one")
    onnx_axes = given or tuple(range(rank))
    axes = tuple(sorted({match.axis(axis, rank) for axis in onnx_axes}))
    if not keep_dims and (rank - len(axes) == 4 or (rank == 4 and 3 not in axes and {1, 2} - {*axes})):
        raise GraphError(f"{match.op_type} of an image over axes {onnx_axes} without keepdims; supported: {IMAGE_ORDERS}")
    return {"axes": axes, "keep_dims": keep_dims}


def _onnx_axes(match: OnnxMatch) -> tuple[int, ...]:
    if match.op_type == "GlobalAveragePool":
        return tuple(range(2, len(match.input(0).shape)))
    if len(match.inputs) > 1:
        return tuple(int(axis) for axis in match.constant(1).ravel())
    return tuple(match.attributes.get("axes", ()))


def grouped(shape: Shape, axes: tuple[int, ...]) -> list[tuple[bool, int, int]]:
    """Whether reduced, size, step of runs of neighbouring axes of one kind; axes of size 1 are left out."""
    groups: list[tuple[bool, int, int]] = []
    step = 1
    for axis in reversed(range(len(shape))):
        if shape[axis] == 1:
            continue
        if groups and groups[0][0] == (axis in axes):
            groups[0] = (groups[0][0], groups[0][1] * shape[axis], groups[0][2])
        else:
            groups.insert(0, (axis in axes, shape[axis], step))
        step *= shape[axis]
    return groups


def middle_of(shape: Shape, axes: tuple[int, ...]) -> tuple[int, int, int] | None:
    """(outer, count, inner) where the axes are neighbours, but for axes of size 1; else None."""
    groups = grouped(shape, axes)
    places = [place for place, (reduced, _, _) in enumerate(groups) if reduced]
    if len(places) > 1:
        return None
    place = places[0] if places else len(groups)
    sizes = [size for _, size, _ in groups]
    return math.prod(sizes[:place]), math.prod(sizes[place : place + 1]), math.prod(sizes[place + 1 :])


def walk_fields(shape: Shape, axes: tuple[int, ...]) -> dict[str, str]:
    """Initializers of the nn_reduction `shape`."""
    groups = grouped(shape, axes)
    texts = {}
    for name, kind in (("kept", False), ("reduced", True)):
        found: list[Axis] = [(size, step) for reduced, size, step in groups if reduced is kind]
        padded = [(1, 0)] * (MAX_AXES - len(found)) + found
        texts[f"shape.{name}"] = "{" + ", ".join(f"{{{size}, {step}}}" for size, step in padded) + "}"
    return texts


def summary(x: Tensor, y: Tensor, axes: tuple[int, ...]) -> str:
    """For the layer's comment, e.g. "axes 1,2, 4x4x3 -> 3"."""
    return f"axes {','.join(map(str, axes))}, {shape_text(x)} -> {shape_text(y)}"


REDUCTIONS: tuple[tuple[Shape, tuple[int, ...], str], ...] = (
    ((1, 4, 5, 3), (3,), "over the channels"),
    ((1, 4, 5, 3), (1,), "over the rows"),
    ((1, 4, 5, 3), (1, 2, 3), "over everything"),
    ((1, 4, 5, 3), (0, 1, 2, 3), "over everything and the batch"),
    ((1, 4, 5, 3), (1, 3), "over rows and channels"),
    ((1, 4, 5, 3), (0, 2), "over batch and columns"),
    ((1, 4, 1, 3), (1, 3), "over rows and channels of one column"),
    ((1, 1, 1, 6), (1, 2), "one pixel"),
    ((1, 2, 3, 2, 3), (1, 3), "five dimensions, two in turn"),
    ((1, 2, 3, 2, 3), (2, 4), "five dimensions, the last too"),
    ((7,), (0,), "one dimension"),
    ((1, 9), (1,), "a row"),
)


def random_reductions(rng: np.random.Generator, count: int) -> Iterator[tuple[Shape, tuple[int, ...], int]]:
    """Shape, axes, keep_dims: images over height and width every other time, else any axes."""
    for index in range(count):
        shape = (1, *(int(rng.integers(1, 10)) for _ in range(3)))
        chosen = tuple(axis for axis in range(4) if rng.random() < 0.5) or (3,)
        yield shape, (1, 2) if index % 2 == 0 else chosen, index // 2 % 2
