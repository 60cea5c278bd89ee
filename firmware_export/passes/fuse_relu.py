"""Makes a relu behind an operator with a clamp part of that clamp, where both store their output alike."""

from __future__ import annotations

from dataclasses import replace

from firmware_export.graph import Graph, Node
from firmware_export.passes._rewrite import readers


def fuse_relu(graph: Graph) -> Graph:
    """The graph with every relu fused that is the only reader of its input and does not change the scale."""
    counts = readers(graph.nodes, graph.outputs)
    nodes: list[Node] = []
    makers: dict[int, int] = {}
    for node in graph.nodes:
        maker = makers.get(node.inputs[0]) if node.op == "relu" else None
        if maker is not None and counts[node.inputs[0]] == 1 and _fits(graph, nodes[maker], node):
            nodes[maker] = _clamped(nodes[maker], node)
            makers[node.outputs[0]] = maker
            continue
        makers |= dict.fromkeys(node.outputs, len(nodes))
        nodes.append(node)
    return graph if len(nodes) == len(graph.nodes) else replace(graph, nodes=nodes)


def _fits(graph: Graph, maker: Node, relu: Node) -> bool:
    if (
        "clamp" not in maker.attributes
        or graph.tensors[relu.inputs[0]].quantization != graph.tensors[relu.outputs[0]].quantization
    ):
        return False
    low, high = _intersection(maker, relu)
    return low <= high


def _intersection(maker: Node, relu: Node) -> tuple[int, int]:
    one, other = maker.integers("clamp"), relu.integers("clamp")
    return max(one[0], other[0]), min(one[1], other[1])


def _clamped(maker: Node, relu: Node) -> Node:
    """The maker writes the relu's output, between both clamps."""
    return replace(maker, outputs=relu.outputs, attributes=maker.attributes | {"clamp": _intersection(maker, relu)})
