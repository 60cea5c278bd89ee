"""Nodes without the channels that do not count: weights, bias and scales sliced, known products added to the bias."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from firmware_export.graph import ABSENT, Array, Attribute, Graph, Node, Quantization, Tensor
from firmware_export.operators import operator_of
from firmware_export.passes._channel_ties import channel_labels, classes, divides_channels
from firmware_export.passes._intervals import Reach
from firmware_export.passes._liveness import Liveness, column_channels
from firmware_export.passes._weighted import DEPTHWISE, WEIGHTED, Mask, bias_of, weights_of
from firmware_export.requantize import Int64


def sliced(graph: Graph, reach: Reach, live: Liveness) -> Graph:
    """The graph of what counts. Tensors that nobody reads any more are left to remove_unused."""
    result = replace(graph, tensors=list(graph.tensors))
    nodes = []
    for place, node in enumerate(graph.nodes):
        if live.is_live(node):
            weighted = node.op in WEIGHTED
            made = _weighted(graph, place, reach, live, result) if weighted else _plain(graph, node, live, result)
            for index, spec in zip(made.outputs, operator_of(made).infer(result, made), strict=True):
                result.tensors[index] = replace(result.tensors[index], shape=spec.shape)
            nodes.append(made)
    unchanged = len(nodes) == len(graph.nodes) and all(new is old for new, old in zip(nodes, graph.nodes, strict=True))
    return graph if unchanged else replace(result, nodes=nodes)


def _add(result: Graph, tensor: Tensor) -> int:
    result.tensors.append(tensor)
    return len(result.tensors) - 1


# Operators without weights


def _plain(graph: Graph, node: Node, live: Liveness, result: Graph) -> Node:
    """The node with sliced constants beside its inputs, and with the shape that its output has now."""
    if all(bool(live.keep[index].all()) for index in (*node.inputs, *node.outputs) if index in live.keep):
        return node
    of_inputs, of_outputs = channel_labels(graph, node)
    kept = classes(of_outputs, [live.keep[index] for index in node.outputs])
    inputs = []
    for index, labels in zip(node.inputs, of_inputs, strict=True):
        constant = None if index == ABSENT else graph.tensors[index].data
        whole = constant is None or bool(kept[labels].all())
        inputs.append(index if whole else _add(result, _sliced_constant(graph.tensors[index], kept[labels])))
    return replace(node, inputs=tuple(inputs), attributes=node.attributes | _sizes(graph, node, live))


def _sizes(graph: Graph, node: Node, live: Liveness) -> dict[str, Attribute]:
    """The attributes that count channels."""
    left = tuple(int(live.keep[index].sum()) for index in node.outputs)
    if node.op == "reshape":
        return {"shape": (*node.integers("shape")[:-1], left[0])}
    return {"sizes": left} if node.op == "split" and divides_channels(graph, node) else {}


def _sliced_constant(tensor: Tensor, kept: Mask) -> Tensor:
    assert tensor.data is not None
    data = np.ascontiguousarray(tensor.data[..., kept])
    return replace(tensor, shape=data.shape, data=data)


# Layers of weights


def _weighted(graph: Graph, place: int, reach: Reach, live: Liveness, result: Graph) -> Node:
    """The layer with the inputs and outputs that stay; outputs that do not count, or are constant, without weights."""
    node, facts = graph.nodes[place], reach.sums[place]
    x, y = node.inputs[0], node.outputs[0]
    depthwise = node.op == DEPTHWISE
    before = weights_of(graph, node)
    weights = before.T.astype(np.int64) if depthwise else before.astype(np.int64)
    bias = bias_of(graph, node, len(weights))
    if not depthwise:
        gone = _unneeded_columns(graph, node, live)
        bias = bias + (weights * facts.values)[:, gone].sum(1)
        weights[:, gone] = 0
    silent = facts.constant | ~live.need[y]
    weights[silent] = 0
    bias = np.where(facts.constant, facts.sums, np.where(live.need[y], bias, 0))
    weights, bias = weights[live.keep[y]], bias[live.keep[y]]
    if not depthwise:
        weights = weights[:, _kept_columns(graph, node, live.keep[x])]
    found = (weights.T if depthwise else weights).astype(np.int8)
    return _rebuilt(graph, node, found, bias, live.keep[y], result)


def _unneeded_columns(graph: Graph, node: Node, live: Liveness) -> Mask:
    owners, need = column_channels(graph, node), live.need[node.inputs[0]]
    return np.zeros(weights_of(graph, node).shape[1], np.bool_) if owners is None else ~need[owners]


def _kept_columns(graph: Graph, node: Node, keep: Mask) -> Mask:
    owners = column_channels(graph, node)
    return np.ones(weights_of(graph, node).shape[1], np.bool_) if owners is None else keep[owners]


def _rebuilt(graph: Graph, node: Node, weights: Array, bias: Int64, kept: Mask, result: Graph) -> Node:
    """The node with these weights (flat) and bias, the very one if they are its own."""
    if np.array_equal(weights, weights_of(graph, node)) and np.array_equal(bias, bias_of(graph, node, len(kept))):
        return node
    old = graph.tensors[node.inputs[1]]
    shape = _weights_shape(node, old.shape, weights)
    quantization = _sliced_scales(old.quantization, kept)
    w = _add(result, replace(old, shape=shape, data=weights.reshape(shape), quantization=quantization))
    has_bias = len(node.inputs) > 2 and node.inputs[2] != ABSENT
    if not has_bias and not bias.any():
        return replace(node, inputs=(node.inputs[0], w, *node.inputs[2:]))
    b = _add(result, _bias_tensor(graph, node, bias, result.tensors[w], kept))
    return replace(node, inputs=(node.inputs[0], w, b))


def _weights_shape(node: Node, shape: tuple[int, ...], weights: Array) -> tuple[int, ...]:
    if node.op == DEPTHWISE:
        return (*shape[:-1], weights.shape[1])
    if node.op == "fully_connected":
        return weights.shape[0], weights.shape[1]
    return (weights.shape[0], *shape[1:3], weights.shape[1] // (shape[1] * shape[2]))


def _sliced_scales(quantization: Quantization | None, kept: Mask) -> Quantization | None:
    if quantization is None or quantization.scale.size == 1:
        return quantization
    return replace(quantization, scale=quantization.scale[kept], zero_point=quantization.zero_point[kept])


def _bias_tensor(graph: Graph, node: Node, bias: Int64, weights: Tensor, kept: Mask) -> Tensor:
    """int32 [outputs], stored as the bias before; with the scale of the sums where there was none."""
    data = bias.astype(np.int32)
    assert np.array_equal(data, bias)  # weighted_layer lets nothing be folded that would not fit
    if len(node.inputs) > 2 and node.inputs[2] != ABSENT:
        old = graph.tensors[node.inputs[2]]
        return replace(old, shape=data.shape, data=data, quantization=_sliced_scales(old.quantization, kept))
    assert weights.quantization is not None  # operators take quantized weights only
    scale = np.float32(graph.tensors[node.inputs[0]].scale) * weights.quantization.scale
    axis = None if weights.quantization.axis is None else 0
    return Tensor(f"{weights.name}/bias", data.shape, "int32", Quantization(scale, np.zeros(scale.size, np.int64), axis), data)
