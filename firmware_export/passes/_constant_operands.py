"""A computed operand that is one constant for each channel becomes a constant: what computed it is then dead."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from firmware_export.graph import Array, Graph, Node, Tensor
from firmware_export.operators import operator_of
from firmware_export.operators._broadcast import Elementwise
from firmware_export.passes._intervals import Reach


def with_constant_operands(graph: Graph, reach: Reach) -> Graph:
    """The graph with such operands of sums, products and the like replaced; the reachable values of all others stay."""
    result = replace(graph, tensors=list(graph.tensors), nodes=list(graph.nodes))
    for place, node in enumerate(graph.nodes):
        if isinstance(operator_of(node), Elementwise) and len(set(graph.activation_inputs(node))) == 2:
            result.nodes[place] = _replaced(graph, node, reach, result)
    return graph if result.nodes == graph.nodes else result


def _replaced(graph: Graph, node: Node, reach: Reach, result: Graph) -> Node:
    """The node with its first constant operand replaced; the other stays computed."""
    for place, index in enumerate(node.inputs):
        row = _constant_row(graph.tensors[index], reach, index)
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


def _constant_row(tensor: Tensor, reach: Reach, index: int) -> Array | None:
    """int8 [channels] if the tensor is that at every place."""
    if index not in reach.values or not tensor.shape or not bool(reach.values[index].constant.all()):
        return None
    rows = reach.values[index].low.reshape(-1, tensor.shape[-1])
    return rows[0].copy() if bool(np.all(rows == rows[:1])) else None
