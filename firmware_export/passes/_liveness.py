"""Which channels of each activation can change the model's outputs, and which must be there for the others to have a place."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from firmware_export.graph import Graph, Node
from firmware_export.passes._channel_ties import channel_labels, channels, classes
from firmware_export.passes._intervals import Reach
from firmware_export.passes._weighted import DENSE, DEPTHWISE, WEIGHTED, Mask, weights_of
from firmware_export.requantize import Int64

Masks = dict[int, Mask]


@dataclass(frozen=True)
class Liveness:
    """For each activation, bool [channels]. need: the values count. keep: the channel stays; need is part of it.

    A channel that stays and does not count has a place only: it is tied to others, or its tensor has no other.
    """

    need: Masks
    keep: Masks

    def is_live(self, node: Node) -> bool:
        """Whether the node stays: some channel that it computes does."""
        return any(bool(self.keep[index].any()) for index in node.outputs)


def liveness(graph: Graph, reach: Reach) -> Liveness:
    """From the model's outputs backwards; then channels that are tied together, until nothing changes."""
    need = {index: np.zeros(channels(tensor), np.bool_) for index, tensor in enumerate(graph.tensors) if tensor.data is None}
    for index in graph.outputs:
        need[index][:] = True
    for place in reversed(range(len(graph.nodes))):
        node = graph.nodes[place]
        if any(need[index].any() for index in node.outputs):
            _demand(graph, place, reach, need)
    found = Liveness(need, {index: mask.copy() for index, mask in need.items()})
    for index in graph.inputs:
        found.keep[index][:] = True
    _widen(graph, found)
    return found


def _widen(graph: Graph, found: Liveness) -> None:
    """Adds the channels that are tied to others, and one to each tensor that must be there and has none."""
    readers: dict[int, list[int]] = {index: [] for index in found.keep}
    for place, node in enumerate(graph.nodes):
        for index in {*node.inputs, *node.outputs} & found.keep.keys():
            readers[index].append(place)
    _settle(graph, found, readers, reversed(range(len(graph.nodes))))
    for node in reversed(graph.nodes):  # what is added here makes earlier nodes live
        for index in (*node.outputs, *node.inputs):
            if index in found.keep and found.is_live(node) and not found.keep[index].any():
                found.keep[index][0] = True
                _settle(graph, found, readers, readers[index])


def _settle(graph: Graph, found: Liveness, readers: dict[int, list[int]], places: Iterable[int]) -> None:
    """Ties the channels of these nodes, then of those that read or write what has changed, until nothing does."""
    waiting = dict.fromkeys(places)  # in order, each once
    while waiting:
        place = next(iter(waiting))
        del waiting[place]
        if found.is_live(graph.nodes[place]):
            for index in _tie(graph, graph.nodes[place], found.keep):
                waiting |= dict.fromkeys(readers[index])


def _demand(graph: Graph, place: int, reach: Reach, need: Masks) -> None:
    """What a live node needs of its inputs."""
    node = graph.nodes[place]
    if node.op in WEIGHTED:
        _demand_products(graph, place, reach, need)
        return
    of_inputs, of_outputs = channel_labels(graph, node)
    wanted = classes([*of_inputs, *of_outputs], [*map(_none_of, of_inputs), *(need[index] for index in node.outputs)])
    for index, labels in zip(node.inputs, of_inputs, strict=True):
        if index in need:
            need[index] |= wanted[labels]


def _demand_products(graph: Graph, place: int, reach: Reach, need: Masks) -> None:
    """Channels of which some product is not known beforehand and counts."""
    node, facts = graph.nodes[place], reach.sums[place]
    x, computed = node.inputs[0], need[node.outputs[0]] & ~facts.constant
    if node.op == DEPTHWISE:
        need[x] |= computed.reshape(len(need[x]), -1).any(1)
    else:
        used = (weights_of(graph, node)[computed] != 0).any(0) & ~facts.fixed
        owners = column_channels(graph, node)
        need[x][owners[used] if owners is not None else slice(None)] = True


def column_channels(graph: Graph, node: Node) -> Int64 | None:
    """The channel of the input that each column of a dense layer reads; None where that differs from row to row."""
    columns, count = weights_of(graph, node).shape[1], channels(graph.tensors[node.inputs[0]])
    return np.arange(columns) % count if columns % count == 0 else None


def _tie(graph: Graph, node: Node, keep: Masks) -> list[int]:
    """Widens the masks of a node's activations to what belongs together; the tensors whose masks have changed."""
    before = {index: int(keep[index].sum()) for index in (*node.inputs, *node.outputs) if index in keep}
    if node.op == DEPTHWISE:
        _tie_depthwise(keep, node.inputs[0], node.outputs[0])
    elif node.op in DENSE:
        if column_channels(graph, node) is None:
            keep[node.inputs[0]][:] = True
    else:
        _tie_labels(graph, node, keep)
    return [index for index, count in before.items() if count != int(keep[index].sum())]


def _tie_labels(graph: Graph, node: Node, keep: Masks) -> None:
    of_inputs, of_outputs = channel_labels(graph, node)
    pairs = [*zip(node.inputs, of_inputs, strict=True), *zip(node.outputs, of_outputs, strict=True)]
    wanted = classes([labels for _, labels in pairs], [keep.get(index, _none_of(labels)) for index, labels in pairs])
    for index, labels in pairs:
        if index in keep:
            keep[index] |= wanted[labels]


def _tie_depthwise(keep: Masks, x: int, y: int) -> None:
    """Every channel that stays has the same number of outputs: the most that one of them needs."""
    groups = keep[y].reshape(len(keep[x]), -1)
    keep[x] |= groups.any(1)
    wanted = int(groups[keep[x]].sum(1).max(initial=1))
    for channel in np.flatnonzero(keep[x]):
        spare = np.flatnonzero(~groups[channel])
        groups[channel, spare[: wanted - (groups.shape[1] - len(spare))]] = True


def _none_of(labels: Int64) -> Mask:
    return np.zeros(len(labels), np.bool_)
