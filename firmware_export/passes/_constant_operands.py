"""A computed operand that is one constant for each channel becomes a constant: what computed it is then dead."""

from __future__ import annotations

from dataclasses import replace

from firmware_export.graph import Array, Graph, Node, Tensor
from firmware_export.operators import operator_of
from firmware_export.operators._broadcast import Elementwise
from firmware_export.passes._intervals import Reach
from firmware_export.passes._liveness import Liveness

MAX_RANK = 4
"""Up to here every runtime repeats a row of constants."""


def with_constant_operands(graph: Graph, reach: Reach, live: Liveness) -> Graph:
    """The graph with such operands of sums, products and the like replaced; channels that do not count need not be constant.

    The reachable values of all other tensors stay.
    """
    result = replace(graph, tensors=list(graph.tensors), nodes=list(graph.nodes))
    for place, node in enumerate(graph.nodes):
        if isinstance(operator_of(node), Elementwise) and len(set(graph.activation_inputs(node))) == 2:
            result.nodes[place] = _replaced(graph, node, reach, live, result)
    return graph if result.nodes == graph.nodes else result


def _replaced(graph: Graph, node: Node, reach: Reach, live: Liveness, result: Graph) -> Node:
    """The node with its first constant operand replaced; the other stays computed."""
    for place, index in enumerate(node.inputs):
        row = _constant_row(graph.tensors[index], reach, live, index)
        if row is None or (node.op == "prelu" and place == 0):
            continue
        shape = (1,) * (len(graph.tensors[index].shape) - 1) + row.shape
        result.tensors.append(replace(graph.tensors[index], shape=shape, data=row.reshape(shape)))
        inputs = list(node.inputs)
        inputs[place] = len(result.tensors) - 1
        made = replace(node, inputs=tuple(inputs))
        if operator_of(node).infer(result, made)[0].shape == graph.tensors[node.outputs[0]].shape:
            return made
    return node


def _constant_row(tensor: Tensor, reach: Reach, live: Liveness, index: int) -> Array | None:
    """int8 [channels] if every channel that counts is that at every place; None if one is not, or none counts."""
    need = live.need.get(index)
    if need is None or index not in reach.values or not 1 <= len(tensor.shape) <= MAX_RANK or not bool(need.any()):
        return None
    low, high = (values.reshape(-1, len(need)) for values in (reach.values[index].low, reach.values[index].high))
    constant = ((low == high) & (low == low[:1])).all(0)
    return low[0].copy() if bool(constant[need].all()) else None
