"""ONNX tensors and attributes of an untrusted file -> numpy arrays and plain values. External data only inside the folder."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
from onnx import AttributeProto, NodeProto, TensorProto

from firmware_export.graph import Array, GraphError
from firmware_export.model_file import MAX_ELEMENTS, MAX_FILE_BYTES, MAX_RANK, shown

DTYPES: dict[int, str] = {
    TensorProto.FLOAT: "float32",
    TensorProto.UINT8: "uint8",
    TensorProto.INT8: "int8",
    TensorProto.INT16: "int16",
    TensorProto.INT32: "int32",
    TensorProto.INT64: "int64",
    TensorProto.BOOL: "bool",
}
PACKED = ("INT4", "UINT4", "INT2", "UINT2", "FLOAT4E2M1")
"""Types of which several values share a byte."""


def dtype_of(code: int, name: str) -> str:
    """The numpy name of an ONNX element type. Raises GraphError for packed 4-bit, half precision and others."""
    if code not in DTYPES:
        known = {number: word for word, number in TensorProto.DataType.items()}
        found = known.get(code, f"type {code}")
        if found in PACKED:
            raise GraphError(f"tensor '{shown(name)}' is packed {found}; supported: int8 (weight_type=QuantType.QInt8)")
        raise GraphError(f"tensor '{shown(name)}' is {found}; supported: {', '.join(DTYPES.values())}")
    return DTYPES[code]


def array_of(tensor: TensorProto, folder: Path | None) -> Array:
    """The data of a TensorProto, checked against its shape; a writable copy.

    Args:
        folder: where external data may lie; None refuses external data.
    Raises:
        GraphError: unknown type, shape that is not positive or too large, missing or surplus data, external data outside.
    """
    dtype = np.dtype(dtype_of(tensor.data_type, tensor.name))
    shape = tuple(tensor.dims)
    if len(shape) > MAX_RANK or any(size < 1 for size in shape) or math.prod(shape) > MAX_ELEMENTS:
        raise GraphError(f"tensor '{shown(tensor.name)}' has the shape {shape[:8]}; supported: 1 to {MAX_ELEMENTS:,} elements")
    if tensor.data_location == TensorProto.EXTERNAL:
        raw = _external_bytes(tensor, folder, math.prod(shape) * dtype.itemsize)
    elif tensor.HasField("raw_data"):
        raw = tensor.raw_data
    else:
        return _typed_values(tensor, dtype, shape)
    if len(raw) != math.prod(shape) * dtype.itemsize:
        expected = math.prod(shape) * dtype.itemsize
        raise GraphError(f"tensor '{shown(tensor.name)}' {shape} has {len(raw):,} bytes of data, expected {expected:,}")
    return np.frombuffer(raw, dtype.newbyteorder("<")).astype(dtype).reshape(shape)


def _typed_values(tensor: TensorProto, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
    fields: dict[str, Any] = {"float32": tensor.float_data, "int64": tensor.int64_data}
    field = fields.get(dtype.name, tensor.int32_data)
    if len(field) != math.prod(shape):
        raise GraphError(f"tensor '{shown(tensor.name)}' {shape} has {len(field):,} values, expected {math.prod(shape):,}")
    values = np.array(field, np.float32 if dtype.name == "float32" else np.int64)
    converted = values.astype(dtype)
    if dtype.name != "float32" and not np.array_equal(converted, values):
        raise GraphError(f"tensor '{shown(tensor.name)}' holds values outside its type {dtype.name}; the file is damaged")
    found: Array = converted.reshape(shape)
    return found


def _external_bytes(tensor: TensorProto, folder: Path | None, size: int) -> bytes:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location, offset, length = entries.get("location", ""), entries.get("offset", "0"), entries.get("length", str(size))
    if not re.fullmatch("[0-9]{1,12}", offset, re.ASCII) or length != str(size):
        raise GraphError(
            f"the external data of tensor '{shown(tensor.name)}' has a wrong offset or length; the file is damaged"
        )
    path = _inside(folder, location, tensor.name)
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise GraphError(f"the external data file '{shown(location)}' is larger than {MAX_FILE_BYTES:,} bytes")
        with path.open("rb") as stream:
            stream.seek(int(offset))
            return stream.read(size)
    except OSError as error:
        raise GraphError(f"cannot read the external data file '{shown(location)}': {error.strerror}") from None


def _inside(folder: Path | None, location: str, name: str) -> Path:
    """The file of external data: relative, a regular file, and inside the model's folder after following links."""
    if folder is None:
        raise GraphError(f"tensor '{shown(name)}' has external data; supported here: models in one file (external_data=False)")
    refusal = GraphError(
        f"the external data '{shown(location)}' of tensor '{shown(name)}' is not a file inside the model's folder; "
        "export the model in one file (external_data=False)"
    )
    if not location or "\0" in location or Path(location).is_absolute() or ".." in Path(location).parts:
        raise refusal
    path = (folder / location).resolve()
    if not path.is_relative_to(folder.resolve()) or not path.is_file():
        raise refusal
    return path


def attributes_of(node: NodeProto) -> dict[str, Any]:
    """A node's attributes as int, float, str or tuples of numbers; tensors and graphs stay as they are in the file."""
    return {attribute.name: _attribute(attribute) for attribute in node.attribute}


def _attribute(attribute: AttributeProto) -> Any:
    if attribute.type == AttributeProto.INT:
        return int(attribute.i)
    if attribute.type == AttributeProto.FLOAT:
        return float(attribute.f)
    if attribute.type == AttributeProto.STRING:
        return attribute.s.decode()
    if attribute.type == AttributeProto.INTS:
        return tuple(int(value) for value in attribute.ints)
    if attribute.type == AttributeProto.FLOATS:
        return tuple(float(value) for value in attribute.floats)
    if attribute.type == AttributeProto.TENSOR:
        return attribute.t
    kind = AttributeProto.AttributeType.Name(attribute.type)
    raise GraphError(f"attribute '{shown(attribute.name)}' is of type {kind}; supported: numbers, texts and tensors")
