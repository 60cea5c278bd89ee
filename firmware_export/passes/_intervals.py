"""Which values each element of each int8 activation can have: from the model's inputs, which can be anything, to its outputs.

Every element has its own interval, so that what the border of an image does to a convolution is seen where it happens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from firmware_export.graph import DTYPES, Array, Graph, Node, Tensor
from firmware_export.operators import operator_of
from firmware_export.operators._broadcast import Elementwise
from firmware_export.operators._reduction import reduced_axes
from firmware_export.passes._weighted import SAFE_SUM, WEIGHTED, Interval, SumFacts, in_every_arithmetic, weighted_layer
from firmware_export.requantize import INT8_MAX, INT8_MIN

TABLES = ("relu", "quantize", "leaky_relu", "logistic", "tanh", "hard_swish")
"""Each output depends on the input at its place alone."""
MOVING = (
    "reshape", "transpose", "concatenation", "split", "pack", "unpack", "pad", "mirror_pad", "strided_slice", "tile",
    "resize_nearest_neighbor",
)  # fmt: skip
MONOTONE = (*MOVING, "average_pool2d", "max_pool2d", "reduce_max", "mean", "sum")
"""No output falls when an input rises: the lowest inputs give the lowest outputs, the highest the highest."""
EVERY_INT8 = np.arange(INT8_MIN, INT8_MAX + 1).astype(np.int8)


@dataclass(frozen=True)
class Reach:
    """values: int8 activation -> its interval. sums: place of a weighted layer in graph.nodes -> what is known of it."""

    values: dict[int, Interval] = field(default_factory=dict)
    sums: dict[int, SumFacts] = field(default_factory=dict)


def intervals(graph: Graph) -> Reach:
    """The analysis of a graph that `check` has passed."""
    reach = Reach()
    for index in graph.inputs:
        _set(reach, graph, index, anything(graph.tensors[index]))
    for place, node in enumerate(graph.nodes):
        for index, found in zip(node.outputs, _outputs(graph, place, reach), strict=True):
            _set(reach, graph, index, found)
    return reach


def anything(tensor: Tensor, clamp: Sequence[int] = (INT8_MIN, INT8_MAX)) -> Interval:
    """Every value between two bounds for each element."""
    return Interval(np.full(tensor.shape, clamp[0], np.int8), np.full(tensor.shape, clamp[1], np.int8))


def met_values(x: Interval) -> Array:
    """int8: every value that some element of a tensor can have."""
    found: Array = EVERY_INT8[(x.low.min() <= EVERY_INT8) & (x.high.max() >= EVERY_INT8)]
    return found


def _set(reach: Reach, graph: Graph, index: int, found: Interval) -> None:
    if graph.tensors[index].dtype == "int8":
        reach.values[index] = found


def _outputs(graph: Graph, place: int, reach: Reach) -> list[Interval]:
    node = graph.nodes[place]
    known = _known(graph, node, reach)
    if known is not None and node.op in WEIGHTED:
        found, reach.sums[place] = weighted_layer(graph, node, known[0])
        return [found]
    if known is not None and node.op in TABLES:
        return [_by_table(graph, node, known[0])]
    if known is not None and isinstance(operator_of(node), Elementwise):
        return [_by_pairs(graph, node, known)]
    if known is not None and node.op in MONOTONE and _cannot_wrap(graph, node):
        return _by_ends(graph, node, known)
    return [anything(graph.tensors[index]) for index in node.outputs]


def _known(graph: Graph, node: Node, reach: Reach) -> list[Interval] | None:
    """The intervals of all inputs, constants included; None unless all tensors are int8. Weights and bias do not count."""
    inputs = node.inputs[:1] if node.op in WEIGHTED else node.inputs
    if any(index < 0 or graph.tensors[index].dtype != "int8" for index in (*inputs, *node.outputs)):
        return None
    found = []
    for index in inputs:
        data = graph.tensors[index].data
        found.append(reach.values[index] if data is None else Interval(data, data))
    return found


def _by_table(graph: Graph, node: Node, x: Interval) -> Interval:
    """The least and the largest of the results between the ends, from the table of all 256."""
    tables = in_every_arithmetic(graph, lambda view: operator_of(node).simulate(view, node, [EVERY_INT8])[0])
    return _hull([_of_ranges(table, x) for table in tables])


def _of_ranges(table: Array, x: Interval) -> Interval:
    """The least and the largest of table[low..high] of each element; elements of one interval are looked up once."""
    low, high = (values.astype(np.int64).reshape(-1) - INT8_MIN for values in (x.low, x.high))
    codes, places = np.unique(low * 256 + high, return_inverse=True)
    parts = [table[first : last + 1] for first, last in (divmod(code, 256) for code in codes.tolist())]
    ends = [np.array([extreme(part) for part in parts], np.int8)[places].reshape(x.low.shape) for extreme in (np.min, np.max)]
    return Interval(*ends)


def _by_pairs(graph: Graph, node: Node, inputs: list[Interval]) -> Interval:
    """From the table of all pairs: where it is monotone along both axes, the extremes lie in the corners."""
    operator, y = operator_of(node), graph.tensors[node.outputs[0]]
    assert isinstance(operator, Elementwise)
    every = EVERY_INT8.astype(np.int64)
    pairs = np.broadcast_arrays(every[:, np.newaxis], every[np.newaxis])
    tables = in_every_arithmetic(graph, lambda view: operator.combine(view, node, *pairs))
    return _hull([_of_corners(table, node, inputs, y.shape) for table in tables])


def _of_corners(table: Array, node: Node, inputs: list[Interval], shape: tuple[int, ...]) -> Interval:
    a, b = inputs
    if node.inputs[0] == node.inputs[1]:  # one tensor twice: only equal pairs occur
        return _of_ranges(np.diagonal(table), a)
    if not all(_monotone(table, axis) for axis in (0, 1)):
        return Interval(np.full(shape, table.min(), np.int8), np.full(shape, table.max(), np.int8))
    ends = [(side.astype(np.int64) - INT8_MIN) for x in (a, b) for side in (x.low, x.high)]
    corners = [np.broadcast_to(table[one, other], shape) for one in ends[:2] for other in ends[2:]]
    return Interval(np.minimum.reduce(corners), np.maximum.reduce(corners))


def _monotone(table: Array, axis: int) -> bool:
    """Whether each line along the axis only rises or only falls."""
    steps = np.diff(table.astype(np.int64), axis=axis)
    return bool(((steps >= 0).all(axis) | (steps <= 0).all(axis)).all())


def _by_ends(graph: Graph, node: Node, inputs: list[Interval]) -> list[Interval]:
    ends = [[x.low for x in inputs], [x.high for x in inputs]]
    found = in_every_arithmetic(graph, lambda view: [operator_of(node).simulate(view, node, values) for values in ends])
    return [_hull([Interval(low[place], high[place]) for low, high in found]) for place in range(len(node.outputs))]


def _cannot_wrap(graph: Graph, node: Node) -> bool:
    """Whether the requantisation of a mean or sum is monotone: nothing that it shifts left leaves int32."""
    if node.op not in ("mean", "sum"):
        return True
    x, y = graph.tensors[node.inputs[0]], graph.tensors[node.outputs[0]]
    count = math.prod(x.shape[axis] for axis in reduced_axes(graph, node))
    return count * 256 * max(1.0, 2.0 * x.scale / y.scale) < SAFE_SUM


def _hull(found: list[Interval]) -> Interval:
    low, high = (ufunc.reduce([getattr(x, end) for x in found]) for ufunc, end in ((np.minimum, "low"), (np.maximum, "high")))
    return Interval(low.astype(DTYPES["int8"]), high.astype(DTYPES["int8"]))
