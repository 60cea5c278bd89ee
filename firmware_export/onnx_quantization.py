"""What single ONNX nodes say about quantization: scales and zero points, bounds of clamps, constants."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, ValueInfoProto

from firmware_export.activation import Bounds
from firmware_export.graph import Array, GraphError, Quantization
from firmware_export.model_file import MAX_ELEMENTS, MAX_RANK, shown
from firmware_export.onnx_tensors import array_of, attributes_of, dtype_of

Constants = Mapping[str, Array]
UINT8_OFFSET = 128


def constant_input(node: NodeProto, place: int, what: str, constants: Constants) -> Array:
    """An input that must be a constant of the model. Raises GraphError if it is missing or computed."""
    name = node.input[place] if place < len(node.input) else ""
    if name not in constants:
        raise GraphError(f"the {what} '{shown(name)}' is not a constant of the model; expected one")
    return constants[name]


def quantization_of(node: NodeProto, rank: int, constants: Constants) -> tuple[Quantization, str]:
    """The scale and zero point of a QuantizeLinear or DequantizeLinear, and the stored type they mean.

    Args:
        rank: of the quantized tensor; a negative axis counts from its end.
    Raises:
        GraphError: not constants, not float32, or quantized in blocks.
    """
    attributes = attributes_of(node)
    scale = constant_input(node, 1, "scale", constants)
    zero_point = constant_input(node, 2, "zero point", constants) if len(node.input) > 2 and node.input[2] else None
    if scale.dtype != np.float32 or scale.ndim > 1 or attributes.get("block_size", 0):
        raise GraphError(f"the scale is {scale.dtype} {scale.shape}; supported: float32, one or one per channel")
    scales = scale.astype(np.float32).reshape(-1)
    if not np.all(np.isfinite(scales) & (scales > 0)):
        raise GraphError(f"the scale '{shown(node.input[1])}' is {scales.min()}; supported: finite scales above 0")
    declared = dtype_of(int(attributes["output_dtype"]), "output_dtype") if attributes.get("output_dtype") else "uint8"
    dtype = declared if zero_point is None else str(zero_point.dtype)
    if zero_point is not None and zero_point.size != scale.size:
        raise GraphError(f"{scale.size} scales and {zero_point.size} zero points; expected one of each")
    zeros = np.zeros(scale.size, np.int64) if zero_point is None else zero_point.astype(np.int64).reshape(-1)
    axis = None
    if scale.size > 1:
        axis = int(attributes.get("axis", 1))
        axis += rank if axis < 0 else 0
    return Quantization(scales, zeros, axis), dtype


def quantized_constant(node: NodeProto, constants: Constants) -> Array:
    """What a QuantizeLinear makes of float weights: round half to even, saturated, as the ONNX standard says."""
    values = constants[node.input[0]]
    quantization, dtype = quantization_of(node, values.ndim, constants)
    if values.dtype != np.float32 or dtype not in ("int8", "uint8", "int32"):
        raise GraphError(
            f"quantizes the {values.dtype} constant '{shown(node.input[0])}' to {dtype}; supported: float32 to int8"
        )
    axis = quantization.axis
    if axis is not None and not (0 <= axis < values.ndim and values.shape[axis] == quantization.scale.size):
        raise GraphError(f"{quantization.scale.size} scales along axis {axis} of '{shown(node.input[0])}' {values.shape}")
    shape = [-1 if place == axis else 1 for place in range(values.ndim)]
    with np.errstate(over="ignore", invalid="ignore"):
        steps = np.rint(values.astype(np.float32) / quantization.scale.reshape(shape if axis is not None else ())).astype(
            np.float64
        )
    stored = steps + quantization.zero_point.reshape(shape if axis is not None else ())
    if np.any(np.isnan(stored)):
        raise GraphError(f"the constant '{shown(node.input[0])}' holds NaN; train or export the model again")
    limits = np.iinfo(dtype)
    found: Array = np.clip(stored, limits.min, limits.max).astype(dtype)
    return found


def activation_quantization(node: NodeProto, constants: Constants, stored: str | None = None) -> tuple[Quantization, str]:
    """The quantization of an activation as int8, and the type it has in the file: int8 or uint8.

    uint8 values less 128 are the int8 values of the zero point less 128.

    Args:
        stored: the type of what a DequantizeLinear reads.
    Raises:
        GraphError: another type, several scales, or a zero point of another type than the values.
    """
    name = node.input[0] if node.input else ""
    quantization, dtype = quantization_of(node, 0, constants)
    if len(node.input) < 3 or not node.input[2]:
        dtype = stored or dtype
    refuse_activation_type(dtype, quantization, name)
    if stored not in (None, dtype):
        raise GraphError(f"'{shown(name)}' is stored as {stored}, its zero point is {dtype}; expected the same type")
    if dtype == "uint8":
        quantization = replace(quantization, zero_point=quantization.zero_point - UINT8_OFFSET)
    return quantization, dtype


def refuse_activation_type(dtype: str, quantization: Quantization, name: str) -> None:
    """Raises GraphError unless an activation is int8 or uint8 with one scale."""
    if dtype in ("int16", "uint16"):
        raise GraphError(
            f"the activation '{shown(name)}' is {dtype} (16 bits); supported: 8 bits (activation_type=QuantType.QInt8)"
        )
    if dtype not in ("int8", "uint8"):
        raise GraphError(
            f"the activation '{shown(name)}' is {dtype}; supported: int8 and uint8 (activation_type=QuantType.QInt8)"
        )
    if quantization.scale.size != 1:
        raise GraphError(f"the activation '{shown(name)}' is quantized per channel; supported: one scale for the whole tensor")


def bounds_of(node: NodeProto, constants: Constants) -> Bounds:
    """The real bounds of a Relu or Clip; a bound that is not given is infinite."""
    if node.op_type == "Relu":
        return 0.0, math.inf
    attributes = attributes_of(node)
    low = _bound(node, 1, attributes.get("min"), constants)
    high = _bound(node, 2, attributes.get("max"), constants)
    return -math.inf if low is None else low, math.inf if high is None else high


def _bound(node: NodeProto, place: int, attribute: Any, constants: Constants) -> float | None:
    """A bound of Clip: an input, or an attribute in files before opset 11."""
    found: Any = attribute
    if len(node.input) > place and node.input[place]:
        value = constant_input(node, place, "bound", constants)
        if value.size != 1:
            raise GraphError(f"a bound of Clip has {value.size} values; expected 1")
        found = float(value.reshape(-1)[0])
    if found is None:
        return None
    if not isinstance(found, float) or math.isnan(found):
        raise GraphError(f"a bound of Clip is {found}; expected a number")
    return found


def narrowed(one: Bounds, other: Bounds) -> Bounds:
    """Both bounds at once. Raises GraphError if no value satisfies them."""
    both = max(one[0], other[0]), min(one[1], other[1])
    if not both[0] <= both[1]:
        raise GraphError(f"activation bounds {one} and {other} leave no value")
    return both


def constant_value(node: NodeProto, folder: Path | None) -> Array:
    """The array of a Constant node."""
    attributes = attributes_of(node)
    if isinstance(attributes.get("value"), TensorProto):
        return array_of(attributes["value"], folder)
    for key, dtype in (
        ("value_float", np.float32),
        ("value_int", np.int64),
        ("value_floats", np.float32),
        ("value_ints", np.int64),
    ):
        if key in attributes:
            return np.array(attributes[key], dtype)
    raise GraphError("a Constant without numbers; supported: tensors, floats and integers")


def declared_shape(value: ValueInfoProto) -> tuple[int, ...]:
    """The shape of a model input; a batch without a number is 1.

    Raises:
        GraphError: not a tensor, no shape, or a size that is not fixed.
    """
    if not value.type.tensor_type.HasField("shape"):
        raise GraphError(f"model input '{shown(value.name)}' has no shape; export with a fixed input shape")
    sizes = [size.dim_value if size.HasField("dim_value") else None for size in value.type.tensor_type.shape.dim]
    if len(sizes) > 1 and sizes[0] is None:
        sizes[0] = 1
    shape = tuple(size for size in sizes if size is not None)
    if len(shape) != len(sizes) or any(size < 1 for size in shape):
        raise GraphError(f"model input '{shown(value.name)}' has the dynamic shape {sizes}; export with a fixed input shape")
    if len(shape) > MAX_RANK or math.prod(shape) > MAX_ELEMENTS:
        raise GraphError(
            f"model input '{shown(value.name)}' has the shape {shape[:8]}; supported: up to {MAX_ELEMENTS:,} elements"
        )
    return shape


def matches_declared(value: ValueInfoProto, shape: tuple[int, ...]) -> bool:
    """Whether the shape that a model output is declared with, where it is, agrees with an ONNX shape."""
    if not value.type.tensor_type.HasField("shape"):
        return True
    sizes = [size.dim_value if size.HasField("dim_value") else None for size in value.type.tensor_type.shape.dim]
    return not sizes or (len(sizes) == len(shape) and all(s in (None, f) for s, f in zip(sizes, shape, strict=True)))
