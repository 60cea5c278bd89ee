"""What is refused in a .tflite file for its kind: each sentence names the tensor or operator and a way out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ai_edge_litert import schema_py_generated as schema

from firmware_export.graph import DTYPES, GraphError, Tensor
from firmware_export.model_file import shown

TYPE_NAMES: dict[int, str] = {code: name.lower() for name, code in vars(schema.TensorType).items() if not name.startswith("_")}
BUILTIN_NAMES: dict[int, str] = {code: name for name, code in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
FLOAT_EDGES = ("QUANTIZE", "DEQUANTIZE")
"""Operators between the float32 edges of a model and its int8 inside."""
PACKED = ("int2", "int4", "uint4")
HALVES = ("float16", "bfloat16")
INT8_CONVERTER = "converter: representative_dataset, TFLITE_BUILTINS_INT8, inference_input_type=int8"


def refuse_subgraphs(model: Any, count: int) -> None:
    """Raises GraphError for a model of several graphs; names the second."""
    if count != 1:
        second = f" (one is '{shown(model.Subgraphs(1).Name() or b'')}')" if count > 1 else ""
        raise GraphError(
            f"{count:,} subgraphs{second}; supported: 1 (export without control flow such as IF and WHILE; "
            "recurrent layers of Keras 3 with unroll=True)"
        )


def refuse_builtin(index: int, number: int, custom_name: bytes, known: Iterable[str]) -> str:
    """The name of an operator that is known. Raises GraphError for custom and other ones."""
    if number == schema.BuiltinOperator.CUSTOM:
        raise GraphError(
            f"operator {index} is the custom operator '{shown(custom_name)}'; supported: TFLite's built-in operators only "
            "(convert without allow_custom_ops, or replace the layer)"
        )
    builtin = BUILTIN_NAMES.get(number, f"number {number}")
    if builtin not in known:
        raise GraphError(
            f"operator {index} is {builtin}, which is not supported; supported: {', '.join(sorted(known))}; replace it in the "
            "model, or add it: firmware_export/README.md"
        )
    return builtin


def dtype_of(tensor: Any, name: str) -> str:
    """A tensor's type. Raises GraphError for packed, half-precision and unknown ones."""
    dtype = TYPE_NAMES.get(tensor.Type(), str(tensor.Type()))
    if dtype in PACKED:
        raise GraphError(f"tensor '{name}' is packed {dtype}; supported: int8 (export with 8-bit weights)")
    if dtype in HALVES:
        raise GraphError(
            f"tensor '{name}' is {dtype}: a float model with short weights; quantize it to int8 ({INT8_CONVERTER})"
        )
    if dtype not in DTYPES:
        raise GraphError(f"tensor '{name}' is {dtype}; supported: {', '.join(DTYPES)}")
    return dtype


def refuse_layout(tensor: Any, name: str) -> None:
    """Raises GraphError for a sparse tensor."""
    if tensor.Sparsity() is not None:
        raise GraphError(f"tensor '{name}' is stored sparse; supported: dense tensors (export without sparsity)")


def refuse_kind(builtin: str, tensors: Sequence[Tensor], activations: Sequence[Tensor]) -> None:
    """Float, hybrid, int16x8 and old uint8 models have the operators of int8 ones; the tensors tell.

    Args:
        tensors: every input and output of one operator. activations: those that are computed or fed, states left out.
    Raises:
        GraphError: the operator is one of such a model.
    """
    constants = [tensor for tensor in tensors if tensor.is_constant]
    for tensor in activations:
        if tensor.dtype == "float32":
            raise GraphError(_float_sentence(builtin, tensor, any(t.dtype == "int8" for t in tensors)))
        if tensor.dtype == "int16":
            raise GraphError(
                f"int16x8 model: the activation '{tensor.name}' of {builtin} is int16; supported: int8 "
                "(converter: TFLITE_BUILTINS_INT8 instead of the 16x8 mode)"
            )
        if tensor.dtype == "uint8" and any(constant.dtype == "uint8" for constant in constants):
            raise GraphError(
                f"uint8 model: {builtin} has the uint8 activation '{tensor.name}' and uint8 weights (TensorFlow 1); "
                f"convert it again to int8 ({INT8_CONVERTER})"
            )


def _float_sentence(builtin: str, tensor: Tensor, hybrid: bool) -> str:
    if hybrid:
        return (
            f"hybrid model: {builtin} has int8 weights but the float activation '{tensor.name}'; "
            "quantize activations too (converter: representative_dataset and TFLITE_BUILTINS_INT8)"
        )
    return f"float model: {builtin} computes the float32 tensor '{tensor.name}'; quantize it to int8 first ({INT8_CONVERTER})"
