"""Operators of two broadcast inputs once more, value by value on Python integers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from second_arithmetic import multiplier_of, scale_of, scaled, stored, wrapped

from firmware_export.graph import Graph, Node, Tensor

Arrays = list[np.ndarray]
EVERY_INT8 = (-128, 127)


def value_at(values: np.ndarray, place: tuple[int, ...]) -> int:
    """The value that stands at a place of the output: indexes from the last axis on, 0 along axes of size 1."""
    own = place[len(place) - values.ndim :]
    return int(values[tuple(0 if size == 1 else i for i, size in zip(own, values.shape, strict=True))])


def each(graph: Graph, node: Node, inputs: Arrays, function: Callable[[int, int], int]) -> np.ndarray:
    """A function of both inputs at every place of the output; constants come from the graph."""
    given = iter(inputs)
    a, b = (next(given) if graph.tensors[i].data is None else graph.tensors[i].data for i in node.inputs)
    output = np.zeros(graph.tensors[node.outputs[0]].shape, np.int8)
    for place in np.ndindex(output.shape):
        output[place] = function(value_at(a, place), value_at(b, place))
    return output


def tensors_of(graph: Graph, node: Node) -> tuple[Tensor, Tensor, Tensor]:
    """Both inputs and the output."""
    a, b = (graph.tensors[index] for index in node.inputs)
    return a, b, graph.tensors[node.outputs[0]]


def summed(graph: Graph, node: Node, inputs: Arrays, sign: int) -> np.ndarray:
    """20 bits of headroom, twice the larger scale."""
    a, b, y = tensors_of(graph, node)
    common = 2 * max(scale_of(a), scale_of(b))
    factors = [multiplier_of(scale_of(side) / common) for side in (a, b)]
    last = multiplier_of(common / (2**20 * scale_of(y)))

    def one(left: int, right: int) -> int:
        first = scaled((left - a.zero_point) * 2**20, *factors[0])
        second = scaled((right - b.zero_point) * 2**20, *factors[1])
        total = first + second if sign > 0 else first - second
        return stored(scaled(wrapped(total), *last), y.zero_point, node.integers("clamp"))

    return each(graph, node, inputs, one)


def add(graph: Graph, node: Node, inputs: Arrays) -> np.ndarray:
    """a + b."""
    return summed(graph, node, inputs, 1)


def sub(graph: Graph, node: Node, inputs: Arrays) -> np.ndarray:
    """a - b."""
    return summed(graph, node, inputs, -1)


def mul(graph: Graph, node: Node, inputs: Arrays) -> np.ndarray:
    """a * b."""
    a, b, y = tensors_of(graph, node)
    factor = multiplier_of(scale_of(a) * scale_of(b) / scale_of(y))

    def one(left: int, right: int) -> int:
        product = (left - a.zero_point) * (right - b.zero_point)
        return stored(scaled(product, *factor), y.zero_point, node.integers("clamp"))

    return each(graph, node, inputs, one)


def minimum(graph: Graph, node: Node, inputs: Arrays) -> np.ndarray:
    """The smaller one."""
    return each(graph, node, inputs, lambda left, right: left if left < right else right)


def maximum(graph: Graph, node: Node, inputs: Arrays) -> np.ndarray:
    """The larger one."""
    return each(graph, node, inputs, lambda left, right: left if left > right else right)


def prelu(graph: Graph, node: Node, inputs: Arrays) -> np.ndarray:
    """One factor for values, one for values times slopes."""
    a, b, y = tensors_of(graph, node)
    identity = multiplier_of(scale_of(a) / scale_of(y))
    sloped = multiplier_of(scale_of(a) * scale_of(b) / scale_of(y))

    def one(left: int, right: int) -> int:
        value = left - a.zero_point
        result = scaled(value, *identity) if value >= 0 else scaled(value * (right - b.zero_point), *sloped)
        return stored(result, y.zero_point, EVERY_INT8)

    return each(graph, node, inputs, one)


ELEMENTWISE: dict[str, Callable[[Graph, Node, Arrays], np.ndarray]] = {
    implementation.__name__: implementation for implementation in (add, sub, mul, minimum, maximum, prelu)
}
