"""Makes a relu of a minimum or maximum with one constant value: a clamp, which can become part of the operator before it."""

from __future__ import annotations

from dataclasses import replace

from firmware_export.graph import ABSENT, Graph, Node
from firmware_export.requantize import INT8_MAX, INT8_MIN

EXTREMA = ("minimum", "maximum")


def recognise_clamps(graph: Graph) -> Graph:
    """The graph with a relu in place of every minimum and maximum of a computed tensor and a single constant value."""
    clamps = {place: clamp for place, node in enumerate(graph.nodes) if (clamp := _clamp(graph, node)) is not None}
    if not clamps:
        return graph
    return replace(graph, nodes=[clamps.get(place, node) for place, node in enumerate(graph.nodes)])


def _clamp(graph: Graph, node: Node) -> Node | None:
    """The relu that a node is, else None; both inputs and the output of an extremum are stored alike."""
    if node.op not in EXTREMA or ABSENT in node.inputs:
        return None
    constants = [index for index in node.inputs if graph.tensors[index].elements == 1 and graph.tensors[index].is_constant]
    computed = [index for index in node.inputs if index not in constants]
    if len(computed) != 1 or graph.tensors[computed[0]].shape != graph.tensors[node.outputs[0]].shape:
        return None
    data = graph.tensors[constants[0]].data
    assert data is not None
    bound = int(data.reshape(-1)[0])
    clamp = (INT8_MIN, bound) if node.op == "minimum" else (bound, INT8_MAX)
    return Node("relu", (computed[0],), node.outputs, {"clamp": clamp})
