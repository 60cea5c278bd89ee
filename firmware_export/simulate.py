"""The exact simulator: runs the nodes in order; what one operator computes is in its file in operators/."""

from __future__ import annotations

from firmware_export.graph import ABSENT, DTYPES, Array, Graph, GraphError
from firmware_export.operators import operator_of


def simulate(graph: Graph, *inputs: Array) -> list[Array]:
    """The outputs for one image, byte for byte as the board answers.

    Args:
        inputs: one array for each graph input, of its shape and type, e.g. int8 [1, h, w, c].
    Raises:
        GraphError: another number of inputs, or another shape or type.
    """
    values = _values(graph, inputs)
    return [values[index] for index in graph.outputs]


def simulate_trace(graph: Graph, *inputs: Array) -> list[list[Array]]:
    """The outputs of every node, in node order. Arguments and errors as simulate."""
    values = _values(graph, inputs)
    return [[values[index] for index in node.outputs] for node in graph.nodes]


def _values(graph: Graph, inputs: tuple[Array, ...]) -> dict[int, Array]:
    values = _checked_inputs(graph, inputs)
    for place, node in enumerate(graph.nodes):
        arguments = [_value(graph, values, index) for index in node.inputs]
        results = operator_of(node).simulate(graph, node, arguments)
        for index, result in zip(node.outputs, results, strict=True):
            tensor = graph.tensors[index]
            if result.shape != tensor.shape or str(result.dtype) != tensor.dtype:
                found = f"{result.dtype} {result.shape}"
                raise AssertionError(f"node {place} ({node.op}) made {found}, expected {tensor.dtype} {tensor.shape}")
            values[index] = result
    return values


def _value(graph: Graph, values: dict[int, Array], index: int) -> Array | None:
    if index == ABSENT:
        return None
    data = graph.tensors[index].data
    return values[index] if data is None else data


def _checked_inputs(graph: Graph, inputs: tuple[Array, ...]) -> dict[int, Array]:
    if len(inputs) != len(graph.inputs):
        raise GraphError(f"{len(inputs)} inputs given; the model has {len(graph.inputs)}")
    for place, (index, value) in enumerate(zip(graph.inputs, inputs, strict=True)):
        tensor = graph.tensors[index]
        if value.shape != tensor.shape or value.dtype != DTYPES[tensor.dtype]:
            found = f"{value.dtype} {value.shape}"
            raise GraphError(f"input {place} is {found}; the model takes {tensor.dtype} {tensor.shape}")
    return dict(zip(graph.inputs, inputs, strict=True))
