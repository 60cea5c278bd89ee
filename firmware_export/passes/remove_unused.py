"""Removes nodes whose results nobody reads, and tensors that no node names. Inputs of the model stay."""

from __future__ import annotations

from dataclasses import replace

from firmware_export.graph import ABSENT, Graph, Node


def remove_unused(graph: Graph) -> Graph:
    """The graph without dead nodes and tensors; the order of what stays is kept."""
    nodes = _live_nodes(graph)
    used = {*graph.inputs, *graph.outputs}
    used |= {index for node in nodes for index in (*node.inputs, *node.outputs)} - {ABSENT}
    if len(nodes) == len(graph.nodes) and len(used) == len(graph.tensors):
        return graph
    places = {index: place for place, index in enumerate(sorted(used))} | {ABSENT: ABSENT}
    return replace(
        graph,
        tensors=[graph.tensors[index] for index in sorted(used)],
        nodes=[replace(n, inputs=_moved(n.inputs, places), outputs=_moved(n.outputs, places)) for n in nodes],
        inputs=_moved(graph.inputs, places),
        outputs=_moved(graph.outputs, places),
    )


def _moved(indexes: tuple[int, ...], places: dict[int, int]) -> tuple[int, ...]:
    return tuple(places[index] for index in indexes)


def _live_nodes(graph: Graph) -> list[Node]:
    needed = set(graph.outputs)
    kept: list[Node] = []
    for node in reversed(graph.nodes):
        if needed & set(node.outputs):
            needed |= set(node.inputs)
            kept.append(node)
    return kept[::-1]
