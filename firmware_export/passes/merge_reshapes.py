"""Removes reshapes that change nothing, and lets a reshape of a reshape read the first one's input."""

from __future__ import annotations

from dataclasses import replace

from firmware_export.graph import Graph, Node
from firmware_export.passes._rewrite import reading


def merge_reshapes(graph: Graph) -> Graph:
    """The graph with at most one reshape in a row; the ones nobody reads any more are left to remove_unused."""
    origin: dict[int, int] = {}
    renamed: dict[int, int] = {}
    nodes: list[Node] = []
    for node in graph.nodes:
        changed = reading(node, renamed)
        if node.op == "reshape":
            source = origin.get(changed.inputs[0], changed.inputs[0])
            origin[node.outputs[0]] = source
            if _same(graph, source, node.outputs[0]) and node.outputs[0] not in graph.outputs:
                renamed[node.outputs[0]] = source
                continue
            changed = node if node.inputs[0] == source else replace(node, inputs=(source,))
        nodes.append(changed)
    unchanged = len(nodes) == len(graph.nodes) and all(new is old for new, old in zip(nodes, graph.nodes, strict=True))
    return graph if unchanged else replace(graph, nodes=nodes)


def _same(graph: Graph, one: int, other: int) -> bool:
    before, after = graph.tensors[one], graph.tensors[other]
    return (before.shape, before.dtype, before.quantization) == (after.shape, after.dtype, after.quantization)
