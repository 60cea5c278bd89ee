"""Part of a tensor: every so many elements from a beginning on, along each axis (STRIDED_SLICE, SLICE, Slice, Split)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from firmware_export.graph import Array, Attribute, Graph, GraphError, Node, Tensor
from firmware_export.operators import Example, LayerCode, Operator, OutputSpec
from firmware_export.operators import _examples as make
from firmware_export.operators._checks import check_counts, shape_text
from firmware_export.operators._movement import (
    Axis,
    Shape,
    StridedCopy,
    check_outputs,
    moved_input,
    moving_example,
    random_shape,
    steps,
    values_attribute,
)
from firmware_export.operators._slices import part_of_split, slice_of_axis, slice_onnx, slice_tflite

if TYPE_CHECKING:
    from firmware_export.read_onnx import OnnxMatch
    from firmware_export.read_tflite import TfliteOperator
    from firmware_export.write_tflite import TfliteWriter


class StridedSlice(Operator):
    """y[i0, i1, ...] = x[begin + i * stride] along each axis, in another shape where axes are dropped.

    Inputs: x int8, any shape. Attributes: begin (first index of each axis), stride (not 0, negative ones go backwards),
    size (how many of each axis), shape (of the output, as many elements). Output: int8, scale and zero point of x.
    Moves bytes only, the same in every arithmetic.
    """

    name = "strided_slice"
    tflite = ("STRIDED_SLICE", "SLICE")
    onnx = ("Slice", "Split")

    def infer(self, graph: Graph, node: Node) -> list[OutputSpec]:
        check_counts(node, (1,))
        x = moved_input(graph, node)
        _, _, size = _ranges(x, node)
        shape = node.attributes.get("shape")
        if not isinstance(shape, tuple) or math.prod(shape) != math.prod(size) or any(int(n) < 1 for n in shape):
            raise GraphError(f"shape is {shape}; expected {math.prod(size)} elements")
        check_outputs(graph, node, x)
        return [OutputSpec(tuple(int(n) for n in shape), x.dtype)]

    def simulate(self, graph: Graph, node: Node, inputs: Sequence[Array | None]) -> list[Array]:
        begin, stride, size = _ranges(graph.tensors[node.inputs[0]], node)
        assert inputs[0] is not None
        indexes = [first + step * np.arange(count) for first, step, count in zip(begin, stride, size, strict=True)]
        return [inputs[0][np.ix_(*indexes)].reshape(node.integers("shape"))]

    def emit(self, graph: Graph, node: Node) -> LayerCode:
        x = moved_input(graph, node)
        begin, stride, size = _ranges(x, node)
        from_x = steps(x.shape)
        loops = zip(size, stride, from_x, steps(size), strict=True)
        copy = StridedCopy(
            tuple(Axis(count, step * distance, to) for count, step, distance, to in loops),
            input_start=sum(first * distance for first, distance in zip(begin, from_x, strict=True)),
        )
        summary = f"{shape_text(x)} -> {shape_text(graph.tensors[node.outputs[0]])}"
        sources = ("strided_slice.c", "strided.c")
        return LayerCode("nn_strided_slice", "nn_strided_slice_params", copy.fields(), sources=sources, summary=summary)

    def examples(self, rng: np.random.Generator) -> Iterator[Example]:
        for index in range(56):
            shape = random_shape(rng, make.pick(rng, 1, 4), 7)
            picked = [_random_range(rng, n, forward=index % 3 == 0, whole=index % 4 == 1) for n in shape]
            begin, stride, size = (tuple(part) for part in zip(*picked, strict=True))
            kept = tuple(n for n in size if n > 1) if index % 5 == 4 else size
            attributes: dict[str, Attribute] = {"begin": begin, "stride": stride, "size": size, "shape": kept or (1,)}
            x = make.activation(shape, make.random_quantization(rng))
            yield moving_example("strided_slice", (x,), attributes, f"{shape}: {begin} by {stride}, {index}")

    def read_tflite(self, op: TfliteOperator) -> Node:
        return Node(self.name, op.inputs[:1], op.outputs, slice_tflite(op))

    def read_onnx(self, match: OnnxMatch) -> Node:
        attributes = part_of_split(match) if match.op_type == "Split" else slice_onnx(match)
        return Node(self.name, (match.requantized(0),), match.outputs, attributes)

    def write_tflite(self, graph: Graph, node: Node, writer: TfliteWriter) -> None:
        """STRIDED_SLICE of all axes, and a RESHAPE where axes are dropped."""
        x, y = graph.tensors[node.inputs[0]], graph.tensors[node.outputs[0]]
        begin, stride, size = _ranges(x, node)
        ends = [first + step * count for first, step, count in zip(begin, stride, size, strict=True)]
        options = schema.StridedSliceOptionsT()
        options.endMask = sum(1 << axis for axis, end in enumerate(ends) if end < 0)
        constants = (("begin", begin), ("end", [max(0, end) for end in ends]), ("strides", stride))
        numbers = [writer.add_constant(key, np.array(values, np.int32)) for key, values in constants]
        output = node.outputs[0]
        if y.shape != size:
            output = writer.add_activation(f"{y.name}/sliced", size, y.dtype, y.quantization)
        writer.add("STRIDED_SLICE", (node.inputs[0], *numbers), (output,), options, 2)
        if y.shape != size:
            shape = writer.add_constant("shape", np.array(y.shape, np.int32))
            writer.add("RESHAPE", (output, shape), node.outputs, schema.ReshapeOptionsT(newShape=np.array(y.shape)), 1)


def _ranges(x: Tensor, node: Node) -> tuple[Shape, Shape, Shape]:
    """begin, stride and size. Raises GraphError if an index lies outside of the tensor."""
    begin, stride, size = (values_attribute(node, key, len(x.shape)) for key in ("begin", "stride", "size"))
    for first, step, count, limit in zip(begin, stride, size, x.shape, strict=True):
        if step == 0 or count < 1 or not (0 <= first < limit and 0 <= first + (count - 1) * step < limit):
            raise GraphError(
                f"a slice of {count} from {first} on by {step} of {limit} elements; supported: inside of the tensor"
            )
    return begin, stride, size


def _random_range(rng: np.random.Generator, limit: int, forward: bool, whole: bool) -> Shape:
    """Begin, stride and size within `limit`."""
    if whole and rng.random() < 0.7:
        return slice_of_axis(None, None, 1, limit)
    first, last = sorted((make.pick(rng, 0, limit - 1), make.pick(rng, 0, limit - 1)))
    step = make.pick(rng, 1, 3)
    if forward or rng.random() < 0.6:
        return slice_of_axis(first, last + 1, step, limit)
    return slice_of_axis(last, first - 1 if first else None, -step, limit)


OPERATOR = StridedSlice()
