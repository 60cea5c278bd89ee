"""Constants of an ONNX file as tensors of the graph: weights behind DequantizeLinears, numbers, and what operators read bare.

uint8 becomes int8: values and zero points less 128 stand for the same real numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from onnx import NodeProto

from firmware_export.activation import Bounds
from firmware_export.graph import Array, GraphError, Quantization, Tensor
from firmware_export.model_file import shown
from firmware_export.onnx_fold import folded
from firmware_export.onnx_quantization import UINT8_OFFSET, constant_input, quantization_of
from firmware_export.onnx_tensors import attributes_of

READS_FLOATS = ("Pad", "Resize")
"""Operators with constants that stay real numbers: a border's value, factors of sizes."""
READS_NUMBERS = ("Add", "Sub", "Mul", "Div", "PRelu")
"""Operators that may meet a float32 number, which int8 holds exactly as one step of its own size."""
READS_SLOPES = ("PRelu",)
"""Operators whose float32 constants are quantized here: onnxruntime's quantizer leaves them as they are."""


def unsigned(quantization: Quantization) -> Quantization:
    """The quantization of the uint8 values that int8 ones stand for."""
    return replace(quantization, zero_point=quantization.zero_point + UINT8_OFFSET)


def stored_zero(quantization: Quantization | None, is_unsigned: bool) -> float:
    """The real value of a stored 0: what a Pad on integers fills with where it names nothing."""
    if quantization is None:
        return 0.0
    zero_point = int(quantization.zero_point[0]) + (UINT8_OFFSET if is_unsigned else 0)
    return -zero_point * float(quantization.scale[0])


def integer_bounds(node: NodeProto, constants: Mapping[str, Array], quantization: Quantization, is_unsigned: bool) -> Bounds:
    """The real bounds of a Relu or Clip on stored integers; a bound that is not given is infinite.

    Raises:
        GraphError: a bound that is no constant integer.
    """
    bounds = [-math.inf, math.inf]
    places = [place for place in (1, 2) if place < len(node.input) and node.input[place]]
    given: dict[int, Array] = {place: constant_input(node, place, "bound", constants) for place in places}
    if node.op_type == "Relu":
        given = {1: np.zeros((), np.int64)}
    for place, array in given.items():
        if array.size != 1 or array.dtype.kind not in "iu":
            raise GraphError(f"a bound of {node.op_type} on integers is {array.dtype} {array.shape}; expected one integer")
        stored = int(array.reshape(-1)[0]) - (UINT8_OFFSET if is_unsigned else 0)
        bounds[place - 1] = (stored - int(quantization.zero_point[0])) * float(quantization.scale[0])
    return bounds[0], bounds[1]


def dequantized_constant(node: NodeProto, constants: Mapping[str, Array]) -> Tensor:
    """Weights or a bias behind a DequantizeLinear, in the file's layout.

    Raises:
        GraphError: not integers, or of another type than the zero point.
    """
    name = node.input[0]
    array = constants[name]
    quantization, dtype = quantization_of(node, array.ndim, constants)
    if array.dtype.kind not in "iu" or (len(node.input) > 2 and node.input[2] and dtype != str(array.dtype)):
        raise GraphError(f"'{shown(name)}' is {array.dtype}, its zero point {dtype}; expected the same integer type")
    return _tensor(name, array, quantization)


def bare_constant(name: str, array: Array, quantization: Quantization | None) -> Tensor:
    """A constant that an operator on stored integers reads: bytes are stored as the values it meets, numbers have no scale.

    quantization: of those values as int8; None where the operator reads no bytes.
    """
    if quantization is None or array.dtype not in (np.int8, np.uint8):
        return Tensor(shown(name), array.shape, str(array.dtype), None, array)
    return _tensor(name, array, unsigned(quantization) if array.dtype == np.uint8 else quantization)


def real_constant(reader: NodeProto, name: str, array: Array) -> Tensor:
    """A float32 constant that an operator reads without a QuantizeLinear.

    A single number c is the int8 value 1 (or -1) of the scale |c|: nothing is lost. Slopes take one scale in which the
    largest is 127.

    Raises:
        GraphError: an operator that would lose digits.
    """
    op_type = reader.op_type
    if op_type in READS_FLOATS:
        return Tensor(shown(name), array.shape, "float32", None, array)
    values = array.astype(np.float64)
    if op_type not in READS_NUMBERS or (values.size != 1 and op_type not in READS_SLOPES) or not np.all(np.isfinite(values)):
        raise GraphError(f"{op_type} reads the float32 constant '{shown(name)}'; store it as integers (QDQ)")
    if op_type == "Div":
        values = _reciprocal(reader, name, values)
    largest = float(np.abs(values).max(initial=0.0))
    steps = 1 if values.size == 1 else 127
    scale = np.float32(largest / steps) if largest else np.float32(1)
    if not np.isfinite(scale) or scale == 0:
        raise GraphError(f"the constant '{shown(name)}' has values of {largest:g}; supported: what float32 can divide")
    data = np.rint(values / scale).astype(np.int8)
    return Tensor(shown(name), array.shape, "int8", Quantization.per_tensor(float(scale), 0), data)


def divisor_constant(reader: NodeProto, tensor: Tensor) -> Tensor:
    """A stored divisor of one value as its reciprocal. Raises GraphError for other divisors."""
    if tensor.data is None or tensor.elements != 1 or tensor.quantization is None or tensor.quantization.scale.size != 1:
        raise GraphError(f"{reader.op_type} by '{tensor.name}' {tensor.shape}; supported: by one constant number")
    stored = float(tensor.data.reshape(-1).tolist()[0])
    return real_constant(reader, tensor.name, np.full(tensor.shape, (stored - tensor.zero_point) * tensor.scale, np.float32))


def _reciprocal(reader: NodeProto, name: str, values: Any) -> Any:
    if reader.input[0] == name or not np.all(values):
        raise GraphError(f"Div with '{shown(name)}'; supported: by one constant number other than 0")
    return 1 / values


def moved_constant(tensor: Tensor, node: NodeProto, arguments: Sequence[Array]) -> Tensor:
    """A constant behind a Transpose, Reshape, ... of its real values: the stored ones are moved, and the scales' axis.

    Raises:
        GraphError: the scales of channels would not stay along one axis.
    """
    assert tensor.data is not None
    attributes = attributes_of(node)
    data = folded(node.op_type, [tensor.data, *arguments], attributes)
    quantization = tensor.quantization
    if quantization is not None and quantization.axis is not None:
        axis = quantization.axis
        places = folded(node.op_type, [_along(tensor.shape, axis), *arguments], attributes)
        found = [a for a in range(data.ndim) if np.array_equal(places, _along(data.shape, a)) and data.shape[a] > 1]
        if not found:
            raise GraphError(f"{node.op_type} of '{tensor.name}' mixes the channels of its {quantization.scale.size} scales")
        quantization = replace(quantization, axis=found[0])
    return Tensor(tensor.name, data.shape, tensor.dtype, quantization, data)


def _along(shape: tuple[int, ...], axis: int) -> Array:
    """An array of a shape that holds each element's place along an axis."""
    line = np.arange(shape[axis]).reshape([-1 if place == axis else 1 for place in range(len(shape))])
    return np.broadcast_to(line, shape)


def _tensor(name: str, array: Array, quantization: Quantization) -> Tensor:
    if array.dtype == np.uint8:
        array = (array.astype(np.int16) - UINT8_OFFSET).astype(np.int8)
        quantization = replace(quantization, zero_point=quantization.zero_point - UINT8_OFFSET)
    return Tensor(shown(name), array.shape, str(array.dtype), quantization, array)
