"""ONNX's Conv with groups, neither one nor as many as channels: a convolution of each group's channels, set side by side."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from firmware_export.graph import ABSENT, GraphError, Node, Quantization, Tensor
from firmware_export.operators._window import onnx_window

if TYPE_CHECKING:
    from firmware_export.read_onnx import OnnxMatch

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
