"""Makes a border of an image part of the padding of the convolution or pool that reads it."""

from __future__ import annotations

from dataclasses import replace

from firmware_export.graph import Graph, GraphError, Node
from firmware_export.operators import operator_of
from firmware_export.passes._rewrite import readers
from firmware_export.requantize import INT8_MIN

CONVOLUTIONS = ("conv2d", "depthwise_conv2d")
"""Their padding is the input's zero point; that of a max pool is below every value; an average pool leaves padding out."""


def fuse_pad(graph: Graph) -> Graph:
    """The graph with every pad fused that has one reader, a border of height and width only, and that reader's fill."""
    counts = readers(graph.nodes, graph.outputs)
    pads = {node.outputs[0]: node for node in graph.nodes if node.op == "pad" and counts[node.outputs[0]] == 1}
    fused: dict[int, Node] = {}
    for place, node in enumerate(graph.nodes):
        pad = pads.get(node.inputs[0])
        merged = None if pad is None else _merged(graph, pad, node)
        if merged is not None:
            fused[place] = merged
    if not fused:
        return graph
    gone = {graph.nodes[place].inputs[0] for place in fused}
    kept = [fused.get(place, node) for place, node in enumerate(graph.nodes) if not gone & set(node.outputs)]
    return replace(graph, nodes=kept)


def _merged(graph: Graph, pad: Node, reader: Node) -> Node | None:
    """The reader with the border as padding; None where that would be something else."""
    x, flat = graph.tensors[pad.inputs[0]], pad.integers("paddings")
    if len(x.shape) != 4 or any(flat[:2] + flat[6:]) or pad.integer("value") != _fill(graph, reader):
        return None
    padding = tuple(own + border for own, border in zip(reader.integers("padding"), flat[2:6], strict=True))
    merged = replace(reader, inputs=(pad.inputs[0], *reader.inputs[1:]), attributes=reader.attributes | {"padding": padding})
    try:
        operator_of(merged).infer(graph, merged)
    except GraphError:
        return None
    return merged


def _fill(graph: Graph, reader: Node) -> int | None:
    """The stored value that a reader's own padding stands for."""
    if reader.op in CONVOLUTIONS:
        return graph.tensors[reader.inputs[0]].zero_point
    return INT8_MIN if reader.op == "max_pool2d" else None
