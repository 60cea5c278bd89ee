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


MOVEMENTS: dict[str, Callable[[Graph, Node, Arrays], np.ndarray | Arrays]] = {
    implementation.__name__: implementation for implementation in (quantize, dequantize, transpose, strided_slice)
}
