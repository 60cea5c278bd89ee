"""Borders: how many elements before and after each axis, as TFLite and ONNX say it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from firmware_export.graph import Attribute, GraphError, Node, Tensor
from firmware_export.model_file import MAX_ELEMENTS
from firmware_export.operators._checks import integers
from firmware_export.operators._movement import Shape

if TYPE_CHECKING:
    from firmware_export.read_onnx import OnnxMatch
    from firmware_export.read_tflite import TfliteOperator

Paddings = list[tuple[int, int]]


def paddings_attribute(x: Tensor, node: Node) -> Paddings:
    """(before, after) of each axis. Raises GraphError unless there are two numbers of 0 or more for each."""
    flat = integers(node, "paddings", 2 * len(x.shape), 0)
    return list(zip(flat[::2], flat[1::2], strict=True))


def padded_shape(x: Tensor, paddings: Paddings) -> Shape:
    """The shape with its border. Raises GraphError if that is too large."""
    shape = tuple(before + size + after for size, (before, after) in zip(x.shape, paddings, strict=True))
    if math.prod(shape) > MAX_ELEMENTS:
        raise GraphError(f"a pad of {x.shape} to {shape}; supported: up to {MAX_ELEMENTS:,} elements")
    return shape


def tflite_paddings(op: TfliteOperator) -> Shape:
    """The constant second input, [rank, 2]."""
    rank, flat = len(op.input(0).shape), op.integers(1)
    if op.input(1).shape != (rank, 2):
        raise GraphError(f"paddings {op.input(1).shape} for a tensor with {rank} dimensions; expected ({rank}, 2)")
    return flat


def onnx_paddings(match: OnnxMatch) -> dict[str, Attribute]:
    """The attributes of a pad (with a value) or of a mirror_pad (with an offset); ONNX has all befores, then all afters."""
    x, mode = match.input(0), match.attributes.get("mode", "constant")
    rank = len(x.shape)
    pads = match.integers(1) if match.has(1) else tuple(match.attributes.get("pads", ()))
    axes = match.integers(3) if match.has(3) else tuple(range(rank))
    if len(pads) != 2 * len(axes):
        raise GraphError(f"{len(pads)} pads for {len(axes)} axes; expected two for each")
    flat = [0] * (2 * rank)
    for place, axis in enumerate(axes):
        ours = match.axis(axis, rank)
        flat[2 * ours : 2 * ours + 2] = pads[place], pads[place + len(axes)]
    if mode == "reflect":
        return {"paddings": tuple(flat), "offset": 1}
    if mode != "constant":
        raise GraphError(f"Pad with mode {mode}; supported: constant, reflect")
    return {"paddings": tuple(flat), "value": _stored_value(match)}


def _stored_value(match: OnnxMatch) -> int:
    """The border's real value as the output stores it; 0 where the model gives none."""
    y = match.output()
    real = float(match.attributes.get("value", 0.0))
    if match.has(2):
        value, data = match.input(2), match.constant(2)
        if data.size != 1:
            raise GraphError(f"a border of {data.size} values; expected one")
        stored = float(data.reshape(-1).tolist()[0])
        real = (stored - value.zero_point) * value.scale if value.quantization is not None else stored
    return max(-128, min(127, round(real / y.scale) + y.zero_point))
