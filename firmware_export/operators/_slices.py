"""What the slicing operators of TFLite and ONNX mean: begin, stride and size of each axis, and the shape of the result."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from firmware_export.graph import Attribute, GraphError
from firmware_export.operators._movement import Shape, from_end

if TYPE_CHECKING:
    from firmware_export.read_onnx import OnnxMatch
    from firmware_export.read_tflite import TfliteOperator

Attributes = dict[str, Attribute]


def slice_of_axis(begin: int | None, end: int | None, stride: int, limit: int) -> Shape:
    """First index, stride and count of Python's x[begin:end:stride] along an axis of `limit` elements.

    Raises:
        GraphError: nothing is left.
    """
    if stride == 0:
        raise GraphError("a slice with stride 0; expected another")
    found = range(*slice(begin, end, stride).indices(limit))
    if not found:
        raise GraphError(f"the slice {begin}:{end}:{stride} of {limit} elements is empty")
    return found.start, stride, len(found)


def attributes_of(ranges: list[Shape], dropped: frozenset[int] = frozenset()) -> Attributes:
    """The node's attributes of (begin, stride, size) for each axis; `dropped` axes are not in the output's shape."""
    begin, stride, size = (tuple(part) for part in zip(*ranges, strict=True))
    shape = tuple(count for axis, count in enumerate(size) if axis not in dropped)
    return {"begin": begin, "stride": stride, "size": size, "shape": shape}


def slice_tflite(op: TfliteOperator) -> Attributes:
    """From a SLICE (begin, size; -1 is the rest) or a STRIDED_SLICE (begin, end, strides and masks)."""
    shape = op.input(0).shape
    if op.builtin == "SLICE":
        begin, size = (_of_rank(op, place, len(shape)) for place in (1, 2))
        ends = [limit if n == -1 else b + n for b, n, limit in zip(begin, size, shape, strict=True)]
        if any(not 0 <= b < e <= limit for b, e, limit in zip(begin, ends, shape, strict=True)):
            raise GraphError(f"a slice of {size} from {begin} on of {shape}; supported: inside of the tensor")
        return attributes_of([(b, 1, e - b) for b, e in zip(begin, ends, strict=True)])
    return _strided_slice_tflite(op, shape)


def _strided_slice_tflite(op: TfliteOperator, shape: Shape) -> Attributes:
    options = op.options_as(schema.StridedSliceOptionsT)
    if options.ellipsisMask or options.newAxisMask or getattr(options, "offset", False):
        raise GraphError("STRIDED_SLICE with an ellipsis, a new axis or an offset; supported: begin, end and shrink masks")
    begin, end, strides = (_of_rank(op, place, len(shape)) for place in (1, 2, 3))
    dropped = frozenset(axis for axis in range(len(shape)) if options.shrinkAxisMask >> axis & 1)
    ranges: list[Shape] = []
    for axis, limit in enumerate(shape):
        if axis in dropped:
            ranges.append((from_end(begin[axis], limit), 1, 1))
            continue
        first = None if options.beginMask >> axis & 1 else begin[axis]
        last = None if options.endMask >> axis & 1 else end[axis]
        ranges.append(slice_of_axis(first, last, strides[axis], limit))
    return attributes_of(ranges, dropped)


def _of_rank(op: TfliteOperator, place: int, rank: int) -> Shape:
    found = op.integers(place)
    if len(found) != rank:
        raise GraphError(f"input {place} has {len(found)} numbers for a tensor with {rank} dimensions")
    return found


def slice_onnx(match: OnnxMatch) -> Attributes:
    """From ONNX's Slice: starts, ends, and maybe axes and steps."""
    shape = match.input(0).shape
    starts, ends = match.integers(1), match.integers(2)
    axes = match.integers(3) if match.has(3) else tuple(range(len(starts)))
    strides = match.integers(4) if match.has(4) else (1,) * len(starts)
    if not len(starts) == len(ends) == len(axes) == len(strides):
        raise GraphError(f"Slice with {len(starts)} starts, {len(ends)} ends, {len(axes)} axes, {len(strides)} steps")
    ranges: list[Shape] = [(0, 1, limit) for limit in shape]
    for start, end, axis, stride in zip(starts, ends, axes, strides, strict=True):
        ours = match.axis(axis, len(shape))
        lowest = -shape[ours] - 1
        ranges[ours] = slice_of_axis(start, None if stride < 0 and end < lowest + 1 else end, stride, shape[ours])
    return attributes_of(ranges)


def part_of_split(match: OnnxMatch) -> Attributes:
    """One output of ONNX's Split as a slice; the sizes are an input, or an attribute before opset 13, or equal."""
    shape, place = match.input(0).shape, match.place
    axis = match.axis(int(match.attributes.get("axis", 0)), len(shape))
    sizes = match.integers(1) if match.has(1) else tuple(match.attributes.get("split", ()))
    if not sizes:
        size = -(-shape[axis] // match.output_count)
        sizes = (size,) * (match.output_count - 1) + (shape[axis] - size * (match.output_count - 1),)
    if len(sizes) != match.output_count or min(sizes) < 1 or sum(sizes) != shape[axis]:
        raise GraphError(f"Split of {shape[axis]} into {sizes[:8]} for {match.output_count} outputs")
    ranges: list[Shape] = [(0, 1, limit) for limit in shape]
    ranges[axis] = (int(np.sum(sizes[:place])), 1, sizes[place])
    return attributes_of(ranges)
