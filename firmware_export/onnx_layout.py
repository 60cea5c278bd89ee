"""NCHW and NHWC: shapes, element orders, and what ONNX's rearranging operators do to a shape.

A tensor in ONNX's layout and ours hold the same elements; `order` says which: ours_flat[i] = onnx_flat[order[i]].
Rank 4 activations are NHWC here, every other rank is as in the file. A rearrangement moves no element in ONNX, so the
order stays while the shape changes; where the result is the usual order of the new shape nothing has to be done, and
where it is not (Flatten of an image), the weights that read it are reordered instead.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from firmware_export.graph import GraphError

Shape = tuple[int, ...]
Order = npt.NDArray[np.int32]

REARRANGING = ("Flatten", "Reshape", "Squeeze", "Unsqueeze", "Identity", "Dropout")
MAX_ORDERED = 2**24
"""Elements of an activation that can be rearranged; no microcontroller holds more."""


def our_shape(shape: Shape) -> Shape:
    """ONNX shape -> ours: [n, c, h, w] becomes [n, h, w, c]."""
    return (shape[0], shape[2], shape[3], shape[1]) if len(shape) == 4 else shape


def onnx_shape(shape: Shape) -> Shape:
    """Our shape -> ONNX's: [n, h, w, c] becomes [n, c, h, w]."""
    return (shape[0], shape[3], shape[1], shape[2]) if len(shape) == 4 else shape


def usual_order(shape: Shape) -> Order | None:
    """The order of an activation of this ONNX shape; None where both layouts are the same bytes."""
    if len(shape) != 4 or shape[1] == 1 or shape[2] * shape[3] == 1:
        return None
    if math.prod(shape) > MAX_ORDERED:
        raise GraphError(f"an activation of the shape {shape}; supported: up to {MAX_ORDERED:,} elements")
    numbers = np.arange(math.prod(shape), dtype=np.int32).reshape(shape)
    return np.ascontiguousarray(numbers.transpose(0, 2, 3, 1)).ravel()


def same_order(one: Order | None, other: Order | None) -> bool:
    """Whether two orders are equal; None is the order 0, 1, 2, ..."""
    if one is None or other is None:
        present = one if one is not None else other
        return present is None or np.array_equal(present, np.arange(present.size))
    return np.array_equal(one, other)


def rearranged(op_type: str, attributes: dict[str, Any], argument: tuple[int, ...] | None, shape: Shape) -> Shape:
    """The ONNX shape after a rearranging operator.

    Args:
        argument: the constant second input (the new shape, or axes); None if there is none.
        shape: the ONNX shape before it.
    Raises:
        GraphError: the operator does not fit the shape.
    """
    if op_type == "Flatten":
        axis = int(attributes.get("axis", 1))
        axis = axis if axis == len(shape) else _axes((axis,), len(shape))[0]
        result: Shape = (math.prod(shape[:axis]), math.prod(shape[axis:]))
    elif op_type == "Reshape":
        result = _reshaped(argument, bool(attributes.get("allowzero", 0)), shape)
    elif op_type == "Squeeze":
        result = _squeezed(argument or tuple(attributes.get("axes", ())), shape)
    elif op_type == "Unsqueeze":
        result = _unsqueezed(argument or tuple(attributes.get("axes", ())), shape)
    else:
        result = shape
    if math.prod(result) != math.prod(shape):
        raise GraphError(f"{op_type} from {shape} to {result} changes the number of elements; the model is damaged")
    return result


def _axes(axes: tuple[int, ...], rank: int) -> tuple[int, ...]:
    if any(not -rank <= axis < rank for axis in axes):
        raise GraphError(f"axes {axes} of a tensor with {rank} dimensions")
    return tuple(sorted({axis % rank for axis in axes}))


def _reshaped(target: tuple[int, ...] | None, zero_is_zero: bool, shape: Shape) -> Shape:
    if target is None:
        raise GraphError("Reshape to a shape that is computed; export with a fixed input shape")
    sizes = [shape[i] if size == 0 and not zero_is_zero and i < len(shape) else size for i, size in enumerate(target)]
    known = math.prod(size for size in sizes if size != -1)
    if sizes.count(-1) > 1 or any(size < -1 or size == 0 for size in sizes) or len(sizes) > 6:
        raise GraphError(f"Reshape from {shape} to {target[:8]}; the target is not a shape")
    return tuple(math.prod(shape) // known if size == -1 else size for size in sizes)


def _squeezed(axes: tuple[int, ...], shape: Shape) -> Shape:
    if not axes:
        return tuple(size for size in shape if size != 1)
    dropped = _axes(axes, len(shape))
    if any(shape[axis] != 1 for axis in dropped):
        raise GraphError(f"Squeeze of axes {axes} of {shape}; only sizes of 1 can be dropped")
    return tuple(size for axis, size in enumerate(shape) if axis not in dropped)


def _unsqueezed(axes: tuple[int, ...], shape: Shape) -> Shape:
    rank = len(shape) + len(axes)
    added = _axes(axes, rank)
    if len(added) != len(axes) or not axes or rank > 6:
        raise GraphError(f"Unsqueeze of axes {axes} of {shape}; expected different axes, at most 6 dimensions")
    sizes = iter(shape)
    return tuple(1 if axis in added else next(sizes) for axis in range(rank))
