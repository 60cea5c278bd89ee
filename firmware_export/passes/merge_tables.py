"""Makes one operator of two functions of one value in a row, where there is one that gives exactly what both give together.

A logistic or tanh and a change of its scale are one table; so are two relus, or a change of scale and a relu behind it. Which
single operator does is not derived but tried: its results for every value that can come must be those of the two.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial

import numpy as np

from firmware_export.graph import Array, Graph, GraphError, Node
from firmware_export.operators import operator_of
from firmware_export.passes._intervals import TABLES, Reach, intervals, met_values
from firmware_export.passes._rewrite import readers
from firmware_export.passes._weighted import in_every_arithmetic


def merge_tables(graph: Graph) -> Graph:
    """The graph with such pairs merged; what stands between them has no other reader and is no output of the model."""
    if not _has_pair(graph):
        return graph
    reach, counts = intervals(graph), readers(graph.nodes, graph.outputs)
    nodes: list[Node] = []
    makers: dict[int, int] = {}
    for node in graph.nodes:
        place = makers.get(node.inputs[0]) if _is_table(graph, node) else None
        if place is not None and counts[node.inputs[0]] == 1:
            single = _single(graph, nodes[place], node, reach)
            if single is not None:
                nodes[place], makers[node.outputs[0]] = single, place
                continue
        if _is_table(graph, node):
            makers[node.outputs[0]] = len(nodes)
        nodes.append(node)
    return graph if len(nodes) == len(graph.nodes) else replace(graph, nodes=nodes)


def _has_pair(graph: Graph) -> bool:
    """Whether there is anything to analyse the model for."""
    made = {node.outputs[0] for node in graph.nodes if _is_table(graph, node)}
    return any(node.inputs[0] in made and _is_table(graph, node) for node in graph.nodes)


def _is_table(graph: Graph, node: Node) -> bool:
    return node.op in TABLES and all(graph.tensors[index].dtype == "int8" for index in (*node.inputs, *node.outputs))


def _single(graph: Graph, first: Node, second: Node, reach: Reach) -> Node | None:
    """One operator for both; None if none of those tried gives the same results."""
    met = met_values(reach.values[first.inputs[0]])
    wanted = in_every_arithmetic(graph, partial(_results, (first, second), met))
    for node in _tried(first, second, wanted[0]):
        with suppress(GraphError):
            operator_of(node).infer(graph, node)
            found = in_every_arithmetic(graph, partial(_results, (node,), met))
            if len(found) == len(wanted) and all(map(np.array_equal, found, wanted)):
                return node
    return None


def _tried(first: Node, second: Node, results: Array) -> Iterator[Node]:
    """The first with the second's output, with a clamp to the results if it has one; the second with the first's input."""
    clamp = (int(results.min()), int(results.max()))
    for node in (replace(first, outputs=second.outputs), replace(second, inputs=first.inputs)):
        yield replace(node, attributes=node.attributes | {"clamp": clamp}) if "clamp" in node.attributes else node


def _results(nodes: tuple[Node, ...], values: Array, graph: Graph) -> Array:
    """What nodes in a row make of values."""
    for node in nodes:
        values = operator_of(node).simulate(graph, node, [values])[0]
    return values
