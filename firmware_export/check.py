"""Holds a graph to its rules; runs after reading and after every pass.

A graph that passes can be planned, simulated and emitted without further questions: indexes in range, one writer per
tensor, nodes in order, shapes and types as the operators infer them, quantization finite and in range, data complete.
"""

from __future__ import annotations

import math

import numpy as np

from firmware_export.graph import ABSENT, DTYPES, Graph, GraphError, Node, Quantization, Tensor
from firmware_export.model_file import MAX_ELEMENTS, MAX_OPERATORS, MAX_RANK
from firmware_export.operators import operator_of

ARITHMETICS = ("double", "float32")
MAX_EDGE_SIZE = 65535
"""One dimension of a graph input or output: nn_tensor.shape is uint16_t."""
MAX_EDGES = 255
"""Graph inputs or outputs: nn_network counts them in a byte."""


def check(graph: Graph) -> None:
    """Raises GraphError for the first rule that does not hold: what was found, what is supported."""
    if graph.arithmetic not in ARITHMETICS:
        raise GraphError(f"arithmetic '{graph.arithmetic}'; supported: {', '.join(ARITHMETICS)}")
    if not 1 <= len(graph.nodes) <= MAX_OPERATORS:
        raise GraphError(f"the model has {len(graph.nodes):,} operators; supported: 1 to {MAX_OPERATORS:,}")
    for tensor in graph.tensors:
        _check_tensor(tensor)
    _check_edges(graph)
    _check_order(graph)
    for place, node in enumerate(graph.nodes):
        _check_inference(graph, place, node)


def _check_tensor(tensor: Tensor) -> None:
    name = f"tensor '{tensor.name}'"
    if tensor.dtype not in DTYPES:
        raise GraphError(f"{name} is {tensor.dtype}; supported: {', '.join(DTYPES)}")
    if len(tensor.shape) > MAX_RANK:
        raise GraphError(f"{name} has {len(tensor.shape)} dimensions; supported: up to {MAX_RANK}")
    if any(size < 1 for size in tensor.shape) or math.prod(tensor.shape) > MAX_ELEMENTS:
        raise GraphError(f"{name} has the shape {tensor.shape}; supported: 1 to {MAX_ELEMENTS:,} elements")
    if tensor.quantization is not None:
        _check_quantization(name, tensor, tensor.quantization)
    _check_data(name, tensor)


def _check_quantization(name: str, tensor: Tensor, quantization: Quantization) -> None:
    scale, zero_point = quantization.scale, quantization.zero_point
    if tensor.dtype in ("float32", "bool"):
        raise GraphError(f"{name} is {tensor.dtype} and has a scale; supported: scales of integers")
    if scale.ndim != 1 or scale.dtype != np.float32 or zero_point.shape != scale.shape or zero_point.dtype != np.int64:
        raise GraphError(f"{name} has {scale.size} scales and {zero_point.size} zero points; expected one of each")
    if not np.all(np.isfinite(scale)) or not np.all(scale > 0):
        bad = scale[~(np.isfinite(scale) & (scale > 0))][0]
        raise GraphError(f"{name} has the scale {bad}; supported: finite scales above 0")
    limits = np.iinfo(tensor.dtype)
    if zero_point.min() < limits.min or zero_point.max() > limits.max:
        raise GraphError(f"{name} has zero points outside {limits.min}..{limits.max} of its type {tensor.dtype}")
    _check_axis(name, tensor, quantization)


def _check_axis(name: str, tensor: Tensor, quantization: Quantization) -> None:
    count, axis = quantization.scale.size, quantization.axis
    if axis is None:
        if count != 1:
            raise GraphError(f"{name} has {count} scales and no axis; expected 1")
    elif not 0 <= axis < len(tensor.shape) or tensor.shape[axis] != count:
        raise GraphError(f"{name} {tensor.shape} has {count} scales along axis {axis}; expected one for each of its channels")


def _check_data(name: str, tensor: Tensor) -> None:
    if tensor.data is None:
        return
    if tensor.data.shape != tensor.shape or tensor.data.dtype != DTYPES[tensor.dtype]:
        found = f"{tensor.data.dtype} {tensor.data.shape}"
        raise GraphError(f"{name} holds data {found}, expected {tensor.dtype} {tensor.shape}")
    if tensor.dtype == "float32" and not np.all(np.isfinite(tensor.data.astype(np.float32))):
        raise GraphError(f"{name} holds NaN or infinity; train or export the model again")


def _check_edges(graph: Graph) -> None:
    for what, edges in (("input", graph.inputs), ("output", graph.outputs)):
        if not 1 <= len(edges) <= MAX_EDGES or len(set(edges)) != len(edges):
            raise GraphError(f"the model has {len(edges)} {what}s; supported: 1 to {MAX_EDGES}, each once")
        for index in edges:
            tensor = _tensor_at(graph, index, f"model {what}")
            if tensor.is_constant:
                raise GraphError(f"model {what} '{tensor.name}' is a constant; expected a tensor that is {what}")
            if max(tensor.shape, default=1) > MAX_EDGE_SIZE:
                raise GraphError(f"model {what} '{tensor.name}' {tensor.shape}; supported: sizes up to {MAX_EDGE_SIZE:,}")
    for index in graph.inputs:
        tensor = graph.tensors[index]
        if len(tensor.shape) > 1 and tensor.shape[0] != 1:
            raise GraphError(f"model input '{tensor.name}' {tensor.shape} has batch {tensor.shape[0]}; supported: 1")


def _tensor_at(graph: Graph, index: int, what: str) -> Tensor:
    if not 0 <= index < len(graph.tensors):
        raise GraphError(f"{what} names tensor {index}; the model has {len(graph.tensors)} tensors")
    return graph.tensors[index]


def _check_order(graph: Graph) -> None:
    """Every tensor has one writer, and it stands before all readers; so there is no cycle either."""
    written = set(graph.inputs)
    for place, node in enumerate(graph.nodes):
        where = f"operator {place} ({node.op})"
        for index in node.inputs:
            if index == ABSENT:
                continue
            tensor = _tensor_at(graph, index, where)
            if not tensor.is_constant and index not in written:
                raise GraphError(f"{where} reads tensor '{tensor.name}' before anything has written it")
        for index in node.outputs:
            tensor = _tensor_at(graph, index, where)
            if tensor.is_constant or index in written:
                raise GraphError(f"{where} writes tensor '{tensor.name}', which already has a value")
            written.add(index)
    for index in graph.outputs:
        if index not in written or index in graph.inputs:
            raise GraphError(f"model output '{graph.tensors[index].name}' is written by no operator")


def _check_inference(graph: Graph, place: int, node: Node) -> None:
    where = f"operator {place} ({node.op})"
    operator = operator_of(node)
    if not graph.activation_inputs(node):
        raise GraphError(f"{where} reads constants only; expected a constant in its place")
    try:
        specs = operator.infer(graph, node)
    except GraphError as error:
        raise GraphError(f"{where}: {error}") from None
    if len(specs) != len(node.outputs):
        raise GraphError(f"{where} has {len(node.outputs)} outputs; expected {len(specs)}")
    for spec, index in zip(specs, node.outputs, strict=True):
        tensor = graph.tensors[index]
        if (spec.shape, spec.dtype) != (tensor.shape, tensor.dtype):
            found = f"{tensor.dtype} {tensor.shape}"
            raise GraphError(f"{where} writes {found} '{tensor.name}'; its inputs make {spec.dtype} {spec.shape}")
