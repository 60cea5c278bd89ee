"""What refuses a whole ONNX model before any of it is read, each reason with its own sentence and a way out."""

from __future__ import annotations

from collections.abc import Collection

from onnx import ModelProto, NodeProto, TensorProto

from firmware_export.graph import GraphError
from firmware_export.model_file import MAX_OPERATORS, shown
from firmware_export.onnx_qoperator import MICROSOFT, QOPERATORS

MIN_OPSET = 10
MAX_NODES = 10 * MAX_OPERATORS
DYNAMIC = ("ConvInteger", "MatMulInteger", "DynamicQuantizeLinear", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM")
"""Operators whose scales are made from the values themselves while the model runs."""
QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")
REASONS: dict[str, str] = {
    **dict.fromkeys(
        DYNAMIC,
        "is quantized dynamically, its scales are made at run time; expected a static quantization: use onnxruntime's "
        "quantize_static with calibration data instead of quantize_dynamic",
    ),
    "BatchNormalization": "is not supported on its own; fold it into the convolution before quantizing "
    "(python -m onnxruntime.quantization.preprocess)",
    **dict.fromkeys(
        ("MatMulNBits", "GatherBlockQuantized"),
        "has weights of few bits and float activations (hybrid); expected int8 for both: onnxruntime's quantize_static",
    ),
    **dict.fromkeys(
        ("LSTM", "GRU", "RNN"),
        "computes in float32, ONNX has no int8 form of it; supported: the int8 LSTM of a TFLite file "
        "(convert the model with TensorFlow), or the layer unrolled into its MatMul and Sigmoid before quantizing",
    ),
    **dict.fromkeys(
        ("If", "Loop", "Scan"), "holds another graph; supported: one graph that always runs whole, export without control flow"
    ),
}
FLOAT = "computes in float32 and no QuantizeLinear is in the model; quantize it to int8 first (onnxruntime's quantize_static)"
HYBRID = (
    "has integer weights and float activations; quantize the activations too "
    "(onnxruntime's quantize_static with calibration data)"
)


def refuse_unsupported(model: ModelProto, known: Collection[str]) -> int:
    """The opset of the model.

    Args:
        known: the operator types that can be read.
    Raises:
        GraphError: too old, too large, sparse, float, hybrid, dynamic, or an operator that is not known.
    """
    opsets = [int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    if not opsets or max(opsets) < MIN_OPSET:
        raise GraphError(f"opset {max(opsets, default=0)}; supported: {MIN_OPSET} and above (QuantizeLinear)")
    if len(model.graph.node) > MAX_NODES:
        raise GraphError(f"{len(model.graph.node):,} nodes; supported: up to {MAX_NODES:,}")
    if model.graph.sparse_initializer:
        name = shown(model.graph.sparse_initializer[0].values.name)
        raise GraphError(f"the model has sparse initializers ('{name}'); supported: dense tensors (export without sparsity)")
    if model.functions:
        name = shown(model.functions[0].name)
        raise GraphError(
            f"the model has functions of its own ('{name}'); supported: one graph (onnx.inliner.inline_local_functions)"
        )
    for index, node in enumerate(model.graph.node):
        _refuse_node(f"node {index} ({shown(node.op_type)})", node)
    _refuse_float(model)
    for index, node in enumerate(model.graph.node):
        if node.op_type not in known:
            raise GraphError(f"node {index} ({shown(node.op_type)}) is not supported; supported: {', '.join(sorted(known))}")
    return max(opsets)


def _refuse_node(where: str, node: NodeProto) -> None:
    if node.op_type in REASONS:
        raise GraphError(f"{where} {REASONS[node.op_type]}")
    if node.op_type.startswith("QLinear") and node.op_type not in QOPERATORS:
        raise GraphError(
            f"{where} of the QOperator form is not supported; supported: {', '.join(sorted(QOPERATORS))}, "
            "others in the QDQ form (quant_format=QuantFormat.QDQ)"
        )
    allowed = ("", "ai.onnx", MICROSOFT) if node.op_type in (*QOPERATORS, *QUANTIZERS) else ("", "ai.onnx")
    if node.domain not in allowed:
        raise GraphError(
            f"{where} is of the domain '{shown(node.domain)}'; supported: standard ONNX operators "
            "(export or optimize the model without custom and fused operators)"
        )


def _refuse_float(model: ModelProto) -> None:
    types = {node.op_type for node in model.graph.node}
    edges = {value.type.tensor_type.elem_type for value in model.graph.input}
    if types & {"QuantizeLinear", *QOPERATORS} or edges & {TensorProto.INT8, TensorProto.UINT8}:
        return
    dequantized = {name for node in model.graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    for index, node in enumerate(model.graph.node):
        if node.op_type not in ("DequantizeLinear", "Constant"):
            where = f"node {index} ({shown(node.op_type)})"
            hybrid = bool(dequantized & set(node.input))
            raise GraphError(f"hybrid model: {where} {HYBRID}" if hybrid else f"float model: {where} {FLOAT}")
    raise GraphError(f"float model: it {FLOAT}")
