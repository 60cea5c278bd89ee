"""Which channels of an operator's tensors must stay or go together. A channel is an index of a tensor's last axis."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from firmware_export.graph import ABSENT, Graph, Node, Tensor
from firmware_export.operators._reduction import reduced_axes
from firmware_export.passes._weighted import Mask
from firmware_export.requantize import Int64

FREE = -1
"""The label of a channel that every other one of the operator needs: one value for all channels."""
CHANNELWISE = (
    "relu", "quantize", "leaky_relu", "logistic", "tanh", "hard_swish", "prelu", "add", "sub", "mul", "maximum", "minimum",
    "average_pool2d", "max_pool2d", "resize_nearest_neighbor", "resize_bilinear",
)  # fmt: skip
"""Each output channel depends on the same channel of the inputs, or on an input's only channel."""
BORDERS = ("pad", "mirror_pad")
PARTS = ("concatenation", "split")
REDUCTIONS = ("mean", "sum", "reduce_max")


def channels(tensor: Tensor) -> int:
    """The size of the last axis; 1 for a single value."""
    return tensor.shape[-1] if tensor.shape else 1


def channel_labels(graph: Graph, node: Node) -> tuple[list[Int64], list[Int64]]:
    """A label for each channel of each input (absent ones: none) and of each output of an operator without weights.

    Channels of one label depend on each other: all of them stay as soon as one is needed. An operator of which nothing is
    known has one label for everything.
    """
    inputs = [0 if index == ABSENT else channels(graph.tensors[index]) for index in node.inputs]
    outputs = [channels(graph.tensors[index]) for index in node.outputs]
    if _is_channelwise(graph, node):
        return [_along(count, outputs[0]) for count in inputs], [_along(count, outputs[0]) for count in outputs]
    if node.op == "reshape" and max(inputs[0], outputs[0]) % min(inputs[0], outputs[0]) == 0:
        period = min(inputs[0], outputs[0])
        return [np.arange(inputs[0]) % period], [np.arange(outputs[0]) % period]
    if divides_channels(graph, node):
        return _in_a_row(inputs), _in_a_row(outputs)
    return [np.zeros(count, np.int64) for count in inputs], [np.zeros(count, np.int64) for count in outputs]


def divides_channels(graph: Graph, node: Node) -> bool:
    """Whether the node puts channels one behind the other, or deals them out in that order."""
    return node.op in PARTS and node.integer("axis") == _last_axis(graph, node.inputs[0])


def _in_a_row(counts: list[int]) -> list[Int64]:
    """Labels 0, 1, 2, ... over all tensors of one side."""
    starts = np.cumsum([0, *counts])
    return [np.arange(count) + start for count, start in zip(counts, starts, strict=False)]


def _is_channelwise(graph: Graph, node: Node) -> bool:
    last = _last_axis(graph, node.inputs[0])
    if node.op in BORDERS:
        return not any(node.integers("paddings")[-2:])
    if node.op in REDUCTIONS:
        return last not in reduced_axes(graph, node)
    if node.op in (*PARTS, "unpack"):
        return node.integer("axis") != last
    if node.op == "pack":
        return node.integer("axis") != last + 1
    if node.op == "transpose":
        return node.integers("perm")[-1] == last
    return node.op in CHANNELWISE or (node.op == "tile" and node.integers("repeats")[-1] == 1)


def _last_axis(graph: Graph, index: int) -> int:
    return len(graph.tensors[index].shape) - 1


def _along(count: int, total: int) -> Int64:
    """Labels of `count` channels that meet `total`: each its own, or one that is repeated."""
    return np.arange(count) if count == total else np.full(count, FREE)


def classes(labels: Sequence[Int64], masks: Sequence[Mask]) -> Mask:
    """bool [labels + 1]: whether some channel of a label is set in its mask; the last one, FREE's, always is."""
    size = 1 + max((int(label.max()) for label in labels if label.size), default=FREE)
    found = np.zeros(size + 1, np.bool_)
    for label, mask in zip(labels, masks, strict=True):
        found[label[mask]] = True
    found[FREE] = True
    return found
