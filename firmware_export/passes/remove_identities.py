"""Removes operators that give every value they can meet back as it is: a relu above 0, a change of scale that is none.

What they can meet comes from the interval analysis: a relu behind a logistic, or behind a pool of what a relu made, does
nothing.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from firmware_export.graph import Graph, Node
from firmware_export.operators import operator_of
from firmware_export.passes._intervals import TABLES, Reach, intervals, met_values
from firmware_export.passes._rewrite import reading
from firmware_export.passes._weighted import in_every_arithmetic


def remove_identities(graph: Graph) -> Graph:
    """The graph without such operators; one that writes an output of the model stays."""
    if not any(_is_candidate(graph, node) for node in graph.nodes):
        return graph
    reach = intervals(graph)
    instead: dict[int, int] = {}
    nodes = []
    for node in graph.nodes:
        changed = reading(node, instead)
        if _is_candidate(graph, node) and _changes_nothing(graph, node, reach):
            instead[node.outputs[0]] = changed.inputs[0]
        else:
            nodes.append(changed)
    return replace(graph, nodes=nodes) if instead else graph


def _is_candidate(graph: Graph, node: Node) -> bool:
    """Whether input and output are stored alike, and the values of one depend on the other's alone."""
    if node.op not in TABLES or node.outputs[0] in graph.outputs:
        return False
    x, y = graph.tensors[node.inputs[0]], graph.tensors[node.outputs[0]]
    return (x.dtype, x.quantization) == ("int8", y.quantization) and y.dtype == "int8"


def _changes_nothing(graph: Graph, node: Node, reach: Reach) -> bool:
    met = met_values(reach.values[node.inputs[0]])
    results = in_every_arithmetic(graph, lambda view: operator_of(node).simulate(view, node, [met])[0])
    return all(np.array_equal(result, met) for result in results)
