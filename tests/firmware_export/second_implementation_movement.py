"""Operators that move or convert single elements, once more as plain loops over Python numbers (see second_implementation)."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import numpy as np

from firmware_export.graph import Graph, Node

Arrays = list[np.ndarray]


def limits_of(dtype: str) -> tuple[int, int]:
    """Lowest and highest stored value."""
    return (0, 255) if dtype == "uint8" else (-128, 127)


def nearest(x: Fraction) -> int:
    """Halves away from zero."""
    whole = int(abs(x) + Fraction(1, 2))
    return whole if x >= 0 else -whole


def quantize(graph: Graph, node: Node, inputs: Arrays) -> np.ndarray:
    """Each value on its own: requantisation of bytes, exact rounding of the float32 quotient."""
    from second_implementation import multiplier_of, scale_of, scaled, stored

    x, y = graph.tensors[node.inputs[0]], graph.tensors[node.outputs[0]]
    limits = limits_of(y.dtype)
    found = []
    for value in inputs[0].reshape(-1):
        if x.dtype == "float32":
            with np.errstate(over="ignore"):
                quotient = np.float32(value) / np.float32(scale_of(y))
            steps = nearest(Fraction(float(quotient))) if abs(quotient) < 1e6 else (999 if quotient > 0 else -999)
        else:
            steps = scaled(int(value) - x.zero_point, *multiplier_of(scale_of(x) / scale_of(y)))
        found.append(stored(steps, y.zero_point, limits))
    return np.array(found, y.dtype).reshape(y.shape)


def dequantize(graph: Graph, node: Node, inputs: Arrays) -> np.ndarray:
    """One float32 product for each value."""
    x, y = graph.tensors[node.inputs[0]], graph.tensors[node.outputs[0]]
    scale = np.float32(x.scale)
    found = [scale * np.float32(int(value) - x.zero_point) for value in inputs[0].reshape(-1)]
    return np.array(found, np.float32).reshape(y.shape)


def transpose(graph: Graph, node: Node, inputs: Arrays) -> np.ndarray:
    """Every element to its new place."""
    perm = node.integers("perm")
    found = np.zeros(tuple(inputs[0].shape[axis] for axis in perm), np.int8)
    for place in np.ndindex(inputs[0].shape):
        found[tuple(place[axis] for axis in perm)] = inputs[0][place]
    return found


def strided_slice(graph: Graph, node: Node, inputs: Arrays) -> np.ndarray:
    """Every element of the output from its place in the input."""
    begin, stride, size = (node.integers(key) for key in ("begin", "stride", "size"))
    found = np.zeros(size, np.int8)
    for place in np.ndindex(size):
        found[place] = inputs[0][tuple(b + s * i for b, s, i in zip(begin, stride, place, strict=True))]
    return found.reshape(graph.tensors[node.outputs[0]].shape)


def concatenation(graph: Graph, node: Node, inputs: Arrays) -> np.ndarray:
    """Every element of every input behind those of the inputs before it."""
    axis, found, offset = node.integer("axis"), np.zeros(graph.tensors[node.outputs[0]].shape, np.int8), 0
    for values in inputs:
        for place in np.ndindex(values.shape):
            found[(*place[:axis], place[axis] + offset, *place[axis + 1 :])] = values[place]
        offset += values.shape[axis]
    return found


def pack(graph: Graph, node: Node, inputs: Arrays) -> np.ndarray:
    """Every element of input i at index i of the new axis."""
    axis, found = node.integer("axis"), np.zeros(graph.tensors[node.outputs[0]].shape, np.int8)
    for index, values in enumerate(inputs):
        for place in np.ndindex(values.shape):
            found[(*place[:axis], index, *place[axis:])] = values[place]
    return found


def unpack(graph: Graph, node: Node, inputs: Arrays) -> Arrays:
    """The reverse of pack."""
    axis, found = node.integer("axis"), [np.zeros(graph.tensors[index].shape, np.int8) for index in node.outputs]
    for place in np.ndindex(inputs[0].shape):
        found[place[axis]][(*place[:axis], *place[axis + 1 :])] = inputs[0][place]
    return found


def split(graph: Graph, node: Node, inputs: Arrays) -> Arrays:
    """The reverse of concatenation."""
    axis, offset, found = node.integer("axis"), 0, []
    for index in node.outputs:
        part = np.zeros(graph.tensors[index].shape, np.int8)
        for place in np.ndindex(part.shape):
            part[place] = inputs[0][(*place[:axis], place[axis] + offset, *place[axis + 1 :])]
        offset += part.shape[axis]
        found.append(part)
    return found


def pad(graph: Graph, node: Node, inputs: Arrays) -> np.ndarray:
    """The value, but where an element of the input lies."""
    befores = node.integers("paddings")[::2]
    found = np.full(graph.tensors[node.outputs[0]].shape, node.integer("value"), np.int8)
    for place in np.ndindex(inputs[0].shape):
        found[tuple(i + before for i, before in zip(place, befores, strict=True))] = inputs[0][place]
    return found


def mirror_pad(graph: Graph, node: Node, inputs: Arrays) -> np.ndarray:
    """Walks from each place of the border back over the edge, which counts as an element or not."""
    befores, offset = node.integers("paddings")[::2], node.integer("offset")
    found = np.zeros(graph.tensors[node.outputs[0]].shape, np.int8)
    for place in np.ndindex(found.shape):
        source = []
        for i, before, size in zip(place, befores, inputs[0].shape, strict=True):
            inside = i - before
            if inside < 0:
                inside = -inside - 1 + offset
            elif inside >= size:
                inside = 2 * size - 1 - inside - offset
            source.append(inside)
        found[place] = inputs[0][tuple(source)]
    return found


def tile(graph: Graph, node: Node, inputs: Arrays) -> np.ndarray:
    """Indexes modulo the input's sizes."""
    found = np.zeros(graph.tensors[node.outputs[0]].shape, np.int8)
    for place in np.ndindex(found.shape):
        found[place] = inputs[0][tuple(i % size for i, size in zip(place, inputs[0].shape, strict=True))]
    return found


def nearest_pixel(index: int, source: int, target: int, align_corners: int, half_pixel: int) -> int:
    """GetNearestNeighbor, one float32 operation after the other."""
    scale = np.float32(source) / np.float32(target)
    if align_corners and target > 1:
        scale = np.float32(source - 1) / np.float32(target - 1)
    place = np.float32(np.float32(index + (0.5 if half_pixel else 0.0)) * scale)
    found = nearest(Fraction(float(place))) if align_corners else int(place)
    return max(0, min(source - 1, found))


def resize_nearest_neighbor(graph: Graph, node: Node, inputs: Arrays) -> np.ndarray:
    """Pixel by pixel."""
    (image,), (height, width) = inputs[0], node.integers("size")
    flags = node.integer("align_corners"), node.integer("half_pixel")
    found = np.zeros((1, height, width, image.shape[2]), np.int8)
    for i, j in np.ndindex(height, width):
        row, column = nearest_pixel(i, image.shape[0], height, *flags), nearest_pixel(j, image.shape[1], width, *flags)
        found[0, i, j] = image[row, column]
    return found


def interpolated(index: int, source: int, target: int, align_corners: int, half_pixel: int) -> list[tuple[int, int]]:
    """ComputeInterpolationValuesInteger: both neighbours and their weights of 1024."""
    factor = (1024 * source + target // 2) // target
    if align_corners and target > 1:
        factor = (1024 * (source - 1) + (target - 1) // 2) // (target - 1)
    place = index * factor + (factor // 2 - 512 if half_pixel else 0)
    lower = max(int(place / 1024), 0)
    upper = min(int((place + 1023) / 1024), source - 1)
    return [(lower, 1024 - (place - 1024 * lower)), (upper, place - 1024 * lower)]


def resize_bilinear(graph: Graph, node: Node, inputs: Arrays) -> np.ndarray:
    """ResizeBilinearInteger: four products for each element."""
    (image,), (height, width) = inputs[0], node.integers("size")
    flags = node.integer("align_corners"), node.integer("half_pixel")
    found = np.zeros((1, height, width, image.shape[2]), np.int8)
    for i, j, c in np.ndindex(height, width, image.shape[2]):
        rows = interpolated(i, image.shape[0], height, *flags)
        columns = interpolated(j, image.shape[1], width, *flags)
        total = sum(int(image[y, x, c]) * down * across for y, down in rows for x, across in columns)
        found[0, i, j, c] = nearest(Fraction(total, 2**20))
    return found


MOVEMENTS: dict[str, Callable[[Graph, Node, Arrays], np.ndarray | Arrays]] = {
    implementation.__name__: implementation
    for implementation in (
        quantize, dequantize, transpose, strided_slice, concatenation, pack, unpack, split, pad, mirror_pad, tile,
        resize_nearest_neighbor, resize_bilinear,
    )
}  # fmt: skip
