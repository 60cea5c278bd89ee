"""What quantize and dequantize ask of their tensors: bytes with one scale, signed or not, and float32 at a model's edge."""

from __future__ import annotations

import math
from collections.abc import Collection

import numpy as np

from firmware_export.graph import Graph, GraphError, Tensor

BYTES = ("int8", "uint8")


def edge_tensor(graph: Graph, index: int, what: str, dtypes: Collection[str]) -> Tensor:
    """A tensor of one of the types; bytes have one scale, float32 has none.

    Raises:
        GraphError: missing, of another type, or without a usable scale and zero point.
    """
    if index < 0:
        raise GraphError(f"{what} is missing; expected {' or '.join(dtypes)}")
    tensor = graph.tensors[index]
    if tensor.dtype not in dtypes:
        raise GraphError(f"{what} '{tensor.name}' is {tensor.dtype}; supported: {', '.join(dtypes)}")
    if tensor.dtype == "float32":
        return tensor
    limits = np.iinfo(tensor.dtype)
    if not math.isfinite(tensor.scale) or tensor.scale <= 0 or not limits.min <= tensor.zero_point <= limits.max:
        raise GraphError(
            f"{what} '{tensor.name}' has scale {tensor.scale} and zero point {tensor.zero_point}; "
            f"supported: finite scales above 0, zero points {limits.min}..{limits.max}"
        )
    return tensor


def signed_zero_point(tensor: Tensor) -> int:
    """The zero point where an uint8 value is taken as the int8 value 128 below it."""
    return tensor.zero_point - (128 if tensor.dtype == "uint8" else 0)
