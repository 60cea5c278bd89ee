"""ONNX operators on constants alone, computed while a file is read: the arithmetic of shapes, and weights that are moved.

Integers and float32, small results. What divides integers divides towards zero, as the ONNX standard says.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from onnx import TensorProto

from firmware_export.graph import Array, GraphError
from firmware_export.model_file import MAX_RANK
from firmware_export.onnx_layout import rearranged
from firmware_export.onnx_tensors import array_of, dtype_of

MAX_FOLDED = 2**24
"""Elements of one result; weights are the largest."""
Attributes = dict[str, Any]
Rule = Callable[[Sequence[Array], Attributes], Array]


def folded(op_type: str, inputs: Sequence[Array], attributes: Attributes) -> Array:
    """The result of an operator of FOLDED.

    Raises:
        GraphError: too large, or inputs that the operator does not take.
        ValueError, IndexError, TypeError: numbers that make no sense.
    """
    _refuse_large(op_type, math.prod(_broadcast_of(inputs)) if op_type in ELEMENTWISE else 0)
    with np.errstate(all="ignore"):
        result = np.asarray(FOLDED[op_type](inputs, attributes))
    if result.ndim > MAX_RANK:
        raise GraphError(f"{op_type} of constants gives {result.ndim} dimensions; supported: up to {MAX_RANK}")
    _refuse_large(op_type, result.size)
    return np.array(result, order="C")


def shape_values(shape: tuple[int, ...], attributes: Attributes) -> Array:
    """What Shape gives for an ONNX shape: int64, maybe a part of it."""
    found: Array = np.array(shape[attributes.get("start", 0) : attributes.get("end")], np.int64)
    return found


def _refuse_large(op_type: str, size: int) -> None:
    if size > MAX_FOLDED:
        raise GraphError(f"{op_type} of constants gives {size:,} elements; supported: up to {MAX_FOLDED:,}")


def _broadcast_of(inputs: Sequence[Array]) -> tuple[int, ...]:
    return np.broadcast_shapes(*(array.shape for array in inputs))


def _integers(array: Array) -> tuple[int, ...]:
    if array.dtype.kind != "i" or array.size > 64:
        raise GraphError(f"numbers of type {array.dtype} {array.shape}; expected up to 64 integers")
    return tuple(int(value) for value in array.reshape(-1).tolist())


def _axis_or_argument(inputs: Sequence[Array]) -> tuple[int, ...] | None:
    return _integers(inputs[1]) if len(inputs) > 1 else None


def _rearranging(op_type: str) -> Rule:
    def _rule(inputs: Sequence[Array], attributes: Attributes) -> Array:
        argument = None if op_type == "Dropout" else _axis_or_argument(inputs)
        return inputs[0].reshape(rearranged(op_type, attributes, argument, inputs[0].shape))

    return _rule


def _binary(function: Callable[[Any, Any], Any]) -> Rule:
    def _rule(inputs: Sequence[Array], attributes: Attributes) -> Array:
        one, other = inputs
        found: Array = np.asarray(function(one, other))
        return found if found.dtype == bool else found.astype(one.dtype)

    return _rule


def _divided(one: Any, other: Any) -> Any:
    if one.dtype.kind == "f":
        return one / other
    if np.any(other == 0):
        raise GraphError("a division of integers by 0; the model is damaged")
    quotients = np.abs(one.astype(np.int64)) // np.abs(other.astype(np.int64))
    return quotients * np.sign(one) * np.sign(other)


def _cast(inputs: Sequence[Array], attributes: Attributes) -> Array:
    if inputs[0].dtype.kind == "f" and not np.all(np.isfinite(inputs[0].astype(np.float64))):
        raise GraphError("a Cast of NaN or infinity; the model is damaged")
    return inputs[0].astype(dtype_of(int(attributes["to"]), "Cast"))


def _gather(inputs: Sequence[Array], attributes: Attributes) -> Array:
    axis, (data, indexes) = int(attributes.get("axis", 0)), inputs
    if indexes.dtype.kind != "i" or not -data.ndim <= axis < data.ndim:
        raise GraphError(f"Gather of {indexes.dtype} indexes along axis {axis} of {data.shape}")
    _refuse_large("Gather", indexes.size * data.size // max(1, data.shape[axis]))
    found: Array = np.take(data, indexes.astype(np.int64), axis=axis)
    return found


def _concat(inputs: Sequence[Array], attributes: Attributes) -> Array:
    _refuse_large("Concat", sum(array.size for array in inputs))
    found: Array = np.concatenate(inputs, axis=int(attributes["axis"]))
    return found


def _constant_of_shape(inputs: Sequence[Array], attributes: Attributes) -> Array:
    value = attributes.get("value")
    fill = array_of(value, None) if isinstance(value, TensorProto) else np.zeros(1, np.float32)
    shape = _integers(inputs[0])
    _refuse_large("ConstantOfShape", math.prod(shape))
    return np.full(shape, fill.reshape(-1)[0], fill.dtype)


def _expand(inputs: Sequence[Array], attributes: Attributes) -> Array:
    shape = np.broadcast_shapes(inputs[0].shape, _integers(inputs[1]))
    _refuse_large("Expand", math.prod(shape))
    return np.broadcast_to(inputs[0], shape)


def _clip(inputs: Sequence[Array], attributes: Attributes) -> Array:
    found: Array = np.clip(inputs[0], *inputs[1:3]) if len(inputs) > 2 else np.maximum(*inputs)
    return found


def _range(inputs: Sequence[Array], attributes: Attributes) -> Array:
    start, limit, step = (_integers(array)[0] for array in inputs)
    if step == 0:
        raise GraphError("a Range with step 0; the model is damaged")
    _refuse_large("Range", len(range(start, limit, step)))
    return np.arange(start, limit, step, dtype=np.int64)


def _slice(inputs: Sequence[Array], attributes: Attributes) -> Array:
    data, starts, ends = inputs[0], _integers(inputs[1]), _integers(inputs[2])
    axes = _integers(inputs[3]) if len(inputs) > 3 else tuple(range(len(starts)))
    steps = _integers(inputs[4]) if len(inputs) > 4 else (1,) * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if not -data.ndim <= axis < data.ndim or step == 0:
            raise GraphError(f"Slice of axis {axis} with step {step} of {data.shape}")
        count = data.shape[axis]
        last = None if step < 0 and end < -count else end
        chosen = [slice(None)] * data.ndim
        chosen[axis] = slice(start, last, step)
        data = data[tuple(chosen)]
    return data


def _transpose(inputs: Sequence[Array], attributes: Attributes) -> Array:
    return inputs[0].transpose(attributes.get("perm"))


def _where(inputs: Sequence[Array], attributes: Attributes) -> Array:
    found: Array = np.where(inputs[0].astype(bool), inputs[1], inputs[2])
    return found


def _product(inputs: Sequence[Array], attributes: Attributes) -> Array:
    axes = _integers(inputs[1]) if len(inputs) > 1 else attributes.get("axes")
    values = inputs[0].astype(np.float64 if inputs[0].dtype.kind == "f" else np.int64)
    found: Array = np.asarray(np.prod(values, axis=axes, keepdims=bool(attributes.get("keepdims", 1)))).astype(inputs[0].dtype)
    return found


ELEMENTWISE = ("Add", "Sub", "Mul", "Div", "Equal", "Where", "Min", "Max")
FOLDED: dict[str, Rule] = {
    "Add": _binary(np.add),
    "Cast": _cast,
    "Clip": _clip,
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "Div": _binary(_divided),
    "Dropout": _rearranging("Dropout"),
    "Equal": _binary(np.equal),
    "Expand": _expand,
    "Flatten": _rearranging("Flatten"),
    "Floor": lambda inputs, _: np.floor(inputs[0]).astype(inputs[0].dtype),
    "Gather": _gather,
    "Identity": _rearranging("Identity"),
    "Max": _binary(np.maximum),
    "Min": _binary(np.minimum),
    "Mul": _binary(np.multiply),
    "Neg": lambda inputs, _: np.negative(inputs[0]),
    "Range": _range,
    "ReduceProd": _product,
    "Reshape": _rearranging("Reshape"),
    "Size": lambda inputs, _: np.array(inputs[0].size, np.int64),
    "Slice": _slice,
    "Sqrt": lambda inputs, _: np.sqrt(inputs[0]).astype(inputs[0].dtype),
    "Squeeze": _rearranging("Squeeze"),
    "Sub": _binary(np.subtract),
    "Transpose": _transpose,
    "Unsqueeze": _rearranging("Unsqueeze"),
    "Where": _where,
}
"""Operator type -> its rule. Shape is computed by the reader, which knows the shapes of what is not constant."""
