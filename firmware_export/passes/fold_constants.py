"""Computes nodes whose inputs are all constants, once and for all. The TFLite reader does the same node by node, because what
such a node computes (a shape, a size) can be what the next operator needs to know."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from firmware_export.graph import ABSENT, Array, Graph, GraphError, Node, Tensor
from firmware_export.operators import operator_of

MAX_FOLDED = 2**26
"""Elements that one model's folded nodes may make together."""


class Folder:
    """Folds nodes of one model, as long as MAX_FOLDED lasts."""

    def __init__(self) -> None:
        self._left = MAX_FOLDED

    def fold(self, graph: Graph, node: Node) -> list[Tensor] | None:
        """The node's outputs as constants; None where an input is computed.

        Raises:
            GraphError: the operator does not take these constants, makes something else than the model says, or too much.
        """
        if graph.activation_inputs(node) or not any(index != ABSENT for index in node.inputs):
            return None
        outputs = [graph.tensors[index] for index in node.outputs]
        self._left -= sum(tensor.elements for tensor in outputs)
        if self._left < 0:
            raise GraphError(f"constants of more than {MAX_FOLDED:,} elements are computed; supported: smaller ones")
        view = _accepted(graph, node)
        found = operator_of(node).simulate(view, node, [_data(graph, index) for index in node.inputs])
        return [replace(tensor, data=data) for tensor, data in zip(outputs, found, strict=True)]


def fold_constants(graph: Graph) -> Graph:
    """The graph with constants in place of nodes that read nothing else. Raises GraphError as Folder.fold does."""
    folder, kept = Folder(), []
    result = replace(graph, tensors=list(graph.tensors))
    for node in graph.nodes:
        found = folder.fold(result, node)
        if found is None:
            kept.append(node)
            continue
        for index, tensor in zip(node.outputs, found, strict=True):
            result.tensors[index] = tensor
    return graph if len(kept) == len(graph.nodes) else replace(result, nodes=kept)


def _data(graph: Graph, index: int) -> Array | None:
    return None if index == ABSENT else graph.tensors[index].data


def _accepted(graph: Graph, node: Node) -> Graph:
    """The graph in which the operator takes the node's inputs: most expect computed ones, some beside constant weights."""
    wanted = [(graph.tensors[index].shape, graph.tensors[index].dtype) for index in node.outputs]
    errors: list[GraphError] = []
    for view in _views(graph, node):
        try:
            found = [(spec.shape, spec.dtype) for spec in operator_of(node).infer(view, node)]
        except GraphError as error:
            errors.append(error)
            continue
        if found != wanted:
            raise GraphError(f"{node.op} of constants makes {found[:3]}; the model says {wanted[:3]}")
        return view
    raise errors[0]


def _views(graph: Graph, node: Node) -> Iterator[Graph]:
    """The graph as it is, with every input of the node computed, and with the first alone."""
    yield graph
    yield _computed(graph, node.inputs)
    yield _computed(graph, node.inputs[:1])


def _computed(graph: Graph, indexes: Sequence[int]) -> Graph:
    tensors = list(graph.tensors)
    for index in indexes:
        if index != ABSENT:
            tensors[index] = replace(tensors[index], data=None)
    return replace(graph, tensors=tensors)
