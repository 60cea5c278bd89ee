"""Makes a relu behind an operator with a clamp part of that clamp, where both store their output alike."""

from __future__ import annotations

from dataclasses import replace

from firmware_export.activation import fused_activation
from firmware_export.graph import Graph, GraphError, Node
from firmware_export.passes._rewrite import readers

CLAMPING = (
    "conv2d", "depthwise_conv2d", "transpose_conv", "fully_connected", "add", "sub", "mul", "average_pool2d", "max_pool2d",
    "relu",
)  # fmt: skip
"""Operators that TFLite knows with a fused activation, and the relu itself, which is written with any clamp."""


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
    """Whether one clamp can do what both do, and the maker can be written to TFLite with it."""
    before, after = graph.tensors[relu.inputs[0]], graph.tensors[relu.outputs[0]]
    if maker.op not in CLAMPING or before.quantization != after.quantization:
        return False
    low, high = _intersection(maker, relu)
    if low > high or maker.op == "relu":
        return low <= high
    try:
        fused_activation((low, high), after)
    except GraphError:
        return False
    return True


def _intersection(maker: Node, relu: Node) -> tuple[int, int]:
    one, other = maker.integers("clamp"), relu.integers("clamp")
    return max(one[0], other[0]), min(one[1], other[1])


def _clamped(maker: Node, relu: Node) -> Node:
    """The maker writes the relu's output, between both clamps."""
    return replace(maker, outputs=relu.outputs, attributes=maker.attributes | {"clamp": _intersection(maker, relu)})
