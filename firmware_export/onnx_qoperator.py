"""Operators of the QOperator form (QLinearConv, QLinearAdd, ...) as what they stand for in the QDQ form.

Each becomes a DequantizeLinear for every input, the float operator, and a QuantizeLinear: one meaning, one way through the
rest of the reader. Scales and zero points stay where they are in the file; only the bias gets a scale, that of the sums.
Source: the operator definitions of ONNX and of onnxruntime's domain com.microsoft (docs/ContribOperators.md).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from onnx import NodeProto, helper, numpy_helper

from firmware_export.graph import Array, GraphError
from firmware_export.onnx_tensors import attributes_of

MICROSOFT = "com.microsoft"
SCALE, ZERO_POINT = 1, 2
"""Places behind the value in a group of three inputs."""


@dataclass(frozen=True)
class Form:
    """Where the inputs of one operator stand.

    op_type: the float operator. inputs: place of each quantized input; its scale and zero point follow it.
    output: place of the output's scale; its zero point follows it. bias: place of an int32 bias, None if there is none.
    """

    op_type: str
    inputs: tuple[int, ...]
    output: int
    bias: int | None = None


FORMS: dict[str, Form] = {
    "QLinearConv": Form("Conv", (0, 3), 6, 8),
    "QLinearMatMul": Form("MatMul", (0, 3), 6),
    "QGemm": Form("Gemm", (0, 3), 7, 6),
    "QLinearAdd": Form("Add", (0, 3), 6),
    "QLinearMul": Form("Mul", (0, 3), 6),
    **{
        f"QLinear{op_type}": Form(op_type, (0,), 3)
        for op_type in ("AveragePool", "GlobalAveragePool", "LeakyRelu", "Sigmoid", "Softmax")
    },
}
CONCAT = "QLinearConcat"
QOPERATORS = (*FORMS, CONCAT)
"""Every operator that `expanded` takes."""


def expanded(node: NodeProto, constants: Mapping[str, Array], fresh: Callable[[str], str]) -> Iterator[NodeProto]:
    """The QDQ form of one node.

    Args:
        constants: the model's constants by name, for the bias's scale.
        fresh: makes a name that the file does not have from a word.
    Raises:
        GraphError: inputs are missing, or an option that NCHW models do not have.
    """
    if attributes_of(node).get("channels_last", 0):
        raise GraphError(f"{node.op_type} with channels_last; supported: NCHW")
    form = _concat_form(node) if node.op_type == CONCAT else FORMS[node.op_type]
    names = []
    for place in form.inputs:
        names.append(fresh("dequantized"))
        yield _dequantize(node, place, names[-1], _weights_axis(node, form) if place == 3 else None)
    if form.bias is not None and _input(node, form.bias):
        names.append(fresh("bias"))
        yield from _bias(node, form.bias, names[-1], constants, fresh("scale"))
    kept = [attribute for attribute in node.attribute if attribute.name != "channels_last"]
    real = fresh("real")
    computed = helper.make_node(form.op_type, names, [real], node.name)
    computed.attribute.extend(kept)
    yield computed
    yield helper.make_node("QuantizeLinear", [real, *_pair(node, form.output)], node.output[:1])


def first_reader(name: str, nodes: Iterable[NodeProto], moving: Collection[str]) -> Iterator[NodeProto]:
    """The DequantizeLinear that says what a model's integer input stands for, where it is moved before it is computed with.

    Args:
        nodes: all of the file, in order. moving: operators whose output is stored as their first input.
    Returns:
        one node, or none where no operator reads it with a scale.
    """
    moved = {name}
    for node in nodes:
        if node.op_type in moving and node.input and node.input[0] in moved:
            moved |= {*node.output}
        for value, *pair in filter(None, _groups(node)):
            if value in moved:
                yield helper.make_node("DequantizeLinear", [name, *pair], ["found"])
                return


def _groups(node: NodeProto) -> Iterator[tuple[str, ...]]:
    """Each quantized value that a node reads, with the names of its scale and zero point."""
    if node.op_type == "DequantizeLinear":
        yield tuple(node.input[:3])
    elif node.op_type in QOPERATORS:
        places = range(2, len(node.input), 3) if node.op_type == CONCAT else FORMS[node.op_type].inputs
        yield from (tuple(node.input[place : place + 3]) for place in places if place + 2 < len(node.input))


def _concat_form(node: NodeProto) -> Form:
    """QLinearConcat: the output's scale and zero point, then three inputs for each value."""
    if len(node.input) < 5 or len(node.input) % 3 != 2:
        raise GraphError(f"{node.op_type} with {len(node.input)} inputs; expected 2 and 3 for each value")
    return Form("Concat", tuple(range(2, len(node.input), 3)), 0)


def _weights_axis(node: NodeProto, form: Form) -> int | None:
    """The axis of input 3 that per-channel scales belong to: the outputs."""
    if form.op_type == "Gemm":
        return 0 if attributes_of(node).get("transB", 0) else 1
    return {"Conv": 0, "MatMul": 1}.get(form.op_type)


def _input(node: NodeProto, place: int) -> str:
    return node.input[place] if place < len(node.input) else ""


def _needed(node: NodeProto, place: int, what: str) -> str:
    if not _input(node, place):
        raise GraphError(f"{node.op_type} without {what} (input {place}); expected one")
    return _input(node, place)


def _pair(node: NodeProto, scale: int) -> list[str]:
    return [_needed(node, scale, "a scale"), _needed(node, scale + 1, "a zero point")]


def _dequantize(node: NodeProto, place: int, output: str, axis: int | None) -> NodeProto:
    inputs = [_needed(node, place, "a value"), *_pair(node, place + SCALE)]
    attributes = {} if axis is None else {"axis": axis}
    return helper.make_node("DequantizeLinear", inputs, [output], **attributes)


def _bias(node: NodeProto, place: int, output: str, constants: Mapping[str, Array], scale: str) -> Iterator[NodeProto]:
    """The bias has the scale of the products: that of input 0 times that of the weights."""
    factors = [constants.get(_input(node, operand + SCALE)) for operand in (0, 3)]
    if any(factor is None or factor.dtype != np.float32 for factor in factors):
        raise GraphError(f"{node.op_type} with computed scales; supported: float32 constants")
    product = np.multiply(*(np.asarray(factor, np.float32) for factor in factors), dtype=np.float32)
    yield helper.make_node("Constant", [], [scale], value=numpy_helper.from_array(np.asarray(product).squeeze()))
    yield helper.make_node("DequantizeLinear", [node.input[place], scale], [output], axis=0)
