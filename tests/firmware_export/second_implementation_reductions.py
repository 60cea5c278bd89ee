"""Operators that reduce axes once more, element by element on Python integers."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from second_arithmetic import multiplier_of, scale_of, scaled, stored

from firmware_export.graph import Graph, Node

Arrays = list[np.ndarray]
Group = dict[tuple[int, ...], list[int]]


def groups_of(graph: Graph, node: Node, values: np.ndarray) -> list[list[int]]:
    """The elements of each output, in the order of the outputs."""
    axes, groups = node.integers("axes"), Group()
    for place in np.ndindex(values.shape):
        kept = tuple(0 if axis in axes else i for axis, i in enumerate(place))
        groups.setdefault(kept, []).append(int(values[place]))
    return [groups[kept] for kept in sorted(groups)]


def summed(graph: Graph, node: Node, inputs: Arrays, divided: bool) -> np.ndarray:
    """Requantized sums; for a mean, 1 / count goes into the multiplier with as many more bits as fit."""
    x, y = graph.tensors[node.inputs[0]], graph.tensors[node.outputs[0]]
    multiplier, shift = multiplier_of(scale_of(x) / scale_of(y))
    groups = groups_of(graph, node, inputs[0])
    count = len(groups[0])
    if divided:
        up = min(int(math.log2(count)), 32, 31 + shift)
        multiplier, shift = (multiplier << up) // count, shift - up
    clamp = node.integers("clamp") if "clamp" in node.attributes else (-128, 127)
    totals = [sum(group) - count * x.zero_point for group in groups]
    values = [stored(scaled(total, multiplier, shift), y.zero_point, clamp) for total in totals]
    return np.array(values, np.int8).reshape(y.shape)


def mean(graph: Graph, node: Node, inputs: Arrays) -> np.ndarray:
    """Sum over count."""
    return summed(graph, node, inputs, divided=True)


def plain_sum(graph: Graph, node: Node, inputs: Arrays) -> np.ndarray:
    """Sum."""
    return summed(graph, node, inputs, divided=False)


def reduce_max(graph: Graph, node: Node, inputs: Arrays) -> np.ndarray:
    """The largest."""
    best = [max(group) for group in groups_of(graph, node, inputs[0])]
    return np.array(best, np.int8).reshape(graph.tensors[node.outputs[0]].shape)


REDUCTIONS: dict[str, Callable[[Graph, Node, Arrays], np.ndarray]] = {
    "mean": mean, "sum": plain_sum, "reduce_max": reduce_max
}  # fmt: skip
