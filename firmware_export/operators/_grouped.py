"""Convolutions with groups, neither one nor as many as channels: one of each group's channels, set side by side."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from firmware_export.graph import ABSENT, Attribute, GraphError, Node, Quantization, Tensor
from firmware_export.operators._window import onnx_window

if TYPE_CHECKING:
    from firmware_export.read_onnx import OnnxMatch
    from firmware_export.read_tflite import TfliteOperator

MAX_GROUPS = 64
OUTPUTS = 0
"""The axis of weights and bias that the groups cut."""


def read_grouped(match: OnnxMatch) -> Node:
    """Adds a slice and a conv2d for each group; returns the concatenation of their outputs.

    Raises:
        GraphError: channels and weights that the groups do not divide, or too many groups.
    """
    x, weights, groups = match.input(0), match.weights(), int(match.attributes["group"])
    depth, channels = weights.shape[1], x.shape[-1]
    if not 1 < groups <= MAX_GROUPS or depth * groups != channels or weights.shape[OUTPUTS] % groups:
        raise GraphError(
            f"Conv with {groups} groups on {channels} channels, weights {weights.shape}; supported: 1 group, as many as "
            f"channels, or up to {MAX_GROUPS} that divide channels and outputs"
        )
    attributes = onnx_window(match)
    outputs = []
    for group in range(groups):
        part = {"begin": (0, 0, 0, group * depth), "stride": (1, 1, 1, 1), "size": (*x.shape[:3], depth)}
        image = match.ahead("strided_slice", match.inputs[:1], x.quantization, {**part, "shape": part["size"]})
        operands = (image, _part(match, weights, group, (0, 2, 3, 1)), _bias(match, group))
        outputs.append(match.ahead("conv2d", operands, match.output().quantization, attributes))
    return Node("concatenation", tuple(outputs), match.outputs, {"axis": 3})


def grouped_tflite(op: TfliteOperator, attributes: dict[str, Attribute]) -> Node:
    """As read_grouped, for a CONV_2D whose image has several times the channels of its filters.

    Raises:
        GraphError: outputs that the groups do not divide, computed weights, or too many groups.
    """
    x, weights, y = op.input(0), op.input(1), op.output()
    depth = weights.shape[3]
    groups = x.shape[-1] // depth
    if groups > MAX_GROUPS or weights.shape[OUTPUTS] % groups or weights.data is None:
        raise GraphError(
            f"weights '{weights.name}' {weights.shape} for an image of {x.shape[-1]} channels; supported: as many channels, or "
            f"constants for up to {MAX_GROUPS} groups that divide the outputs"
        )
    per_group, outputs = weights.shape[OUTPUTS] // groups, []
    for group in range(groups):
        shape = (*x.shape[:3], depth)
        image = _tflite_tensor(op, replace(x, name=f"{x.name}/{group}", shape=shape))
        part: dict[str, Attribute] = {"begin": (0, 0, 0, group * depth), "stride": (1, 1, 1, 1), "size": shape, "shape": shape}
        op.graph.nodes.append(Node("strided_slice", op.inputs[:1], (image,), part))
        shares = [_tflite_share(op, place, groups, group) for place in range(1, len(op.inputs))]
        output = _tflite_tensor(op, replace(y, name=f"{y.name}/{group}", shape=(*y.shape[:3], per_group)))
        op.graph.nodes.append(Node("conv2d", (image, *shares), (output,), attributes))
        outputs.append(output)
    return Node("concatenation", tuple(outputs), op.outputs, {"axis": 3})


def _tflite_tensor(op: TfliteOperator, tensor: Tensor) -> int:
    op.graph.tensors.append(tensor)
    return len(op.graph.tensors) - 1


def _tflite_share(op: TfliteOperator, place: int, groups: int, group: int) -> int:
    """One group's share of weights or bias, with its share of the scales."""
    if op.inputs[place] == ABSENT:
        return ABSENT
    tensor = op.input(place)
    if tensor.data is None or not tensor.shape or tensor.shape[OUTPUTS] % groups:
        raise GraphError(f"'{tensor.name}' {tensor.shape} with {groups} groups; supported: constants that the groups divide")
    data = np.ascontiguousarray(np.split(tensor.data, groups, OUTPUTS)[group])
    quantization = tensor.quantization
    if quantization is not None and quantization.axis is not None:
        quantization = _share(quantization, groups, group)
    return _tflite_tensor(op, Tensor(f"{tensor.name}/{group}", data.shape, tensor.dtype, quantization, data))


def _bias(match: OnnxMatch, group: int) -> int:
    return _part(match, match.input(2), group, (0,)) if match.has(2) else ABSENT


def _part(match: OnnxMatch, tensor: Tensor, group: int, perm: tuple[int, ...]) -> int:
    """One group's share of a constant, in our layout, with its share of the scales."""
    groups = int(match.attributes["group"])
    if tensor.data is None or tensor.data.ndim != len(perm) or tensor.data.shape[OUTPUTS] % groups:
        raise GraphError(f"'{tensor.name}' {tensor.shape} with {groups} groups; supported: constants that the groups divide")
    data = np.ascontiguousarray(np.split(tensor.data, groups, OUTPUTS)[group].transpose(perm))
    quantization = tensor.quantization
    if quantization is not None and quantization.axis is not None:
        quantization = _share(quantization, groups, group)
    return match.add_constant(f"{tensor.name}/{group}", data, quantization)


def _share(quantization: Quantization, groups: int, group: int) -> Quantization:
    """The scales of one group. Raises GraphError if they are not along the outputs."""
    if quantization.axis != OUTPUTS or quantization.scale.size % groups:
        raise GraphError(f"{quantization.scale.size} scales along axis {quantization.axis}; supported: along the outputs")
    count = quantization.scale.size // groups
    share = slice(group * count, (group + 1) * count)
    return replace(quantization, scale=quantization.scale[share], zero_point=quantization.zero_point[share])
