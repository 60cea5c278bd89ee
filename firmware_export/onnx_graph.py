"""The walk over an ONNX file's nodes that makes the graph: QuantizeLinear and DequantizeLinear become quantization.

A float value of the file is one of: behind a DequantizeLinear (then it stands for the stored tensor), a constant, or
pending: computed in float until a QuantizeLinear says how it is stored. There the chain back to the last operator is
matched, its Relu or Clip becomes the operator's clamp, and the node is made.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
from onnx import ModelProto, NodeProto, ValueInfoProto

from firmware_export.activation import UNBOUNDED, Bounds, clamp_of
from firmware_export.graph import ABSENT, Array, Graph, GraphError, Node, Quantization, Tensor
from firmware_export.model_file import MAX_OPERATORS, damage, shown
from firmware_export.onnx_layout import REARRANGING, Order, onnx_shape, our_shape, rearranged, same_order, usual_order
from firmware_export.onnx_quantization import (
    bounds_of,
    constant_input,
    constant_value,
    declared_shape,
    matches_declared,
    narrowed,
    quantization_of,
    quantized_constant,
    refuse_activation_type,
)
from firmware_export.onnx_tensors import array_of, attributes_of, dtype_of
from firmware_export.operators import Operator, operator_of, registry
from firmware_export.read_onnx import OnnxMatch

MIN_OPSET = 10
MAX_NODES = 10 * MAX_OPERATORS
MAX_CHAIN = 64
"""Clamps and rearrangements between an operator and its QuantizeLinear."""
MAX_COPIED = 2**28
"""Bytes of constants and orders that one model may make: shared weights are copied for each operator that reads them."""
CLAMPS = ("Relu", "Clip")
KEEPS_QUANTIZATION = ("MaxPool",)
"""Operators whose output is stored like their input, so that they need no QuantizeLinear behind them."""
SEVERAL_OUTPUTS = ("Split",)
"""Operators of which each output becomes a node of its own."""
READS_FLOATS = ("Pad", "Resize")
"""Operators with constants that stay real numbers: a border's value, factors of sizes."""
FUSES_CLAMP = ("Conv", "ConvTranspose", "Gemm", "MatMul", "Add", "Sub", "Mul", "AveragePool", "MaxPool")
"""Operators of which a Relu or Clip behind them becomes a part, as in TFLite; behind others it is a node of its own."""
READS_FLATTENED = ("Gemm", "MatMul")
"""Operators whose constant weights can be reordered where a flattened image is read."""
EVERY_INT8 = (-128, 127)


@cache
def _operators_by_type() -> dict[str, Operator]:
    return {op_type: operator for operator in registry().values() for op_type in operator.onnx}


class OnnxReader:
    """Reads one model. Every dictionary is keyed by the names of the file."""

    def __init__(self, model: ModelProto, folder: Path | None) -> None:
        _refuse_unsupported(model)
        self._file, self._folder = model.graph, folder
        self._graph = Graph([], [], (), ())
        self._budget = MAX_COPIED
        self._constants: dict[str, Array] = {}
        self._file_inputs: dict[str, tuple[int, ...]] = {}
        self._inputs: dict[str, int] = {}
        self._stored: dict[str, int] = {}
        self._dequantized: dict[str, int] = {}
        self._pending: dict[str, NodeProto] = {}
        self._made: dict[str, int] = {}
        self._orders: dict[int, Order] = {}

    def read(self) -> Graph:
        """The graph of the whole file; its rules are not checked yet."""
        for tensor in self._file.initializer:
            self._define(tensor.name)
            self._constants[tensor.name] = array_of(tensor, self._folder)
        for value in self._file.input:
            if value.name not in self._constants:
                self._add_input(value)
        for index, node in enumerate(self._file.node):
            with damage(f"node {index} ({node.op_type})", named=True):
                self._visit(node)
        self._graph.inputs = tuple(self._used_input(name) for name in self._file_inputs)
        self._graph.outputs = tuple(self._output(value) for value in self._file.output)
        return self._graph

    def _define(self, name: str) -> None:
        """Holds that a name gets one value."""
        places = (self._constants, self._file_inputs, self._stored, self._dequantized, self._pending)
        if not isinstance(name, str):
            raise GraphError(f"the name '{shown(name)}' is no UTF-8 text; the file is damaged")
        if not name or any(name in place for place in places):
            raise GraphError(f"the value '{shown(name)}' is made twice; the file is damaged")

    def _spend(self, size: int) -> None:
        self._budget -= size
        if self._budget < 0:
            raise GraphError(
                f"the model's operators need more than {MAX_COPIED:,} bytes of constants; supported: smaller models"
            )

    def _add_tensor(self, tensor: Tensor) -> int:
        self._graph.tensors.append(tensor)
        return len(self._graph.tensors) - 1

    def _add_input(self, value: ValueInfoProto) -> None:
        self._define(value.name)
        shape = declared_shape(value)
        dtype = dtype_of(value.type.tensor_type.elem_type, value.name)
        if dtype not in ("float32", "int8"):
            raise GraphError(f"model input '{shown(value.name)}' is {dtype}; supported: float32 and int8")
        self._file_inputs[value.name] = shape
        if dtype == "int8":
            self._stored[value.name] = self._add_tensor(Tensor(shown(value.name), our_shape(shape), "int8"))
            self._inputs[value.name] = self._stored[value.name]

    def _visit(self, node: NodeProto) -> None:
        for name in node.output:
            if name:
                self._define(name)
        if not node.output or not node.output[0]:
            raise GraphError("has no output; the file is damaged")
        source = self._dequantized.get(node.input[0]) if node.input else None
        output = node.output[0]
        if node.op_type == "Constant":
            self._constants[output] = constant_value(node, self._folder)
        elif node.op_type == "QuantizeLinear" and node.input and node.input[0] in self._constants:
            self._constants[output] = quantized_constant(node, self._constants)
        elif node.op_type == "QuantizeLinear":
            self._stored[output] = self._quantize(node)
        elif node.op_type == "DequantizeLinear":
            self._dequantized[output] = self._dequantize(node)
        elif source is not None and node.op_type in REARRANGING:
            self._dequantized[output] = self._rearrange(source, node)
        elif source is not None and node.op_type in KEEPS_QUANTIZATION:
            self._dequantized[output] = self._make_node(node, self._graph.tensors[source].quantization, None)
        else:
            self._pending |= {name: node for name in node.output if name}

    def _dequantize(self, node: NodeProto) -> int:
        name = node.input[0] if node.input else ""
        if name in self._constants:
            return self._constant_tensor(node, name)
        if name not in self._stored:
            raise GraphError(f"dequantizes '{shown(name)}', which nothing before it has quantized")
        index = self._stored[name]
        tensor = self._graph.tensors[index]
        quantization, dtype = quantization_of(node, len(tensor.shape), self._constants)
        refuse_activation_type(dtype, quantization, name)
        if tensor.quantization is None:
            self._graph.tensors[index] = replace(tensor, quantization=quantization)
        elif tensor.quantization != quantization:
            raise GraphError(f"'{shown(name)}' is dequantized with another scale than it was quantized with; export again")
        return index

    def _constant_tensor(self, node: NodeProto, name: str) -> int:
        """Weights or a bias, in the file's layout."""
        array = self._constants[name]
        quantization, dtype = quantization_of(node, array.ndim, self._constants)
        if array.dtype.kind not in "iu" or (len(node.input) > 2 and dtype != str(array.dtype)):
            raise GraphError(f"'{shown(name)}' is {array.dtype}, its zero point {dtype}; expected the same integer type")
        return self._add_tensor(Tensor(shown(name), array.shape, str(array.dtype), quantization, array))

    def _quantize(self, node: NodeProto) -> int:
        name = node.input[0] if node.input else ""
        quantization, dtype = quantization_of(node, 0, self._constants)
        refuse_activation_type(dtype, quantization, name)
        if name in self._file_inputs:
            index = self._quantized_input(name, quantization)
        else:
            index = self._made[name] if name in self._made else self._match(name, quantization)
            self._made[name] = index
        if self._graph.tensors[index].quantization != quantization:
            raise GraphError(f"'{shown(name)}' is quantized in two ways; supported: one scale and zero point for each value")
        return index

    def _quantized_input(self, name: str, quantization: Quantization) -> int:
        """A float input behind its QuantizeLinear: the graph takes the stored values themselves."""
        if name not in self._inputs:
            tensor = Tensor(shown(name), our_shape(self._file_inputs[name]), "int8", quantization)
            self._inputs[name] = self._add_tensor(tensor)
        return self._inputs[name]

    def _match(self, name: str, quantization: Quantization) -> int:
        """The stored tensor of a float value: walks back over clamps and rearrangements to what computes it."""
        bounds: Bounds | None = None
        moves: list[NodeProto] = []
        for _ in range(MAX_CHAIN):
            node = self._pending.get(name)
            if node is None or node.op_type not in (*CLAMPS, *REARRANGING):
                break
            if node.op_type in CLAMPS:
                bounds = narrowed(bounds or UNBOUNDED, bounds_of(node, self._constants))
            else:
                moves.append(node)
            name = node.input[0] if node.input else ""
        if name in self._dequantized:
            index = self._restored(self._dequantized[name], quantization, bounds)
        elif name in self._pending and self._pending[name].op_type in _operators_by_type():
            fused = self._pending[name].op_type in FUSES_CLAMP
            index = self._make_node(self._pending[name], quantization, bounds if fused else None, name)
            index = index if fused else self._restored(index, quantization, bounds)
        else:
            raise GraphError(f"quantizes '{shown(name)}', which no supported operator before it computes")
        for node in reversed(moves):
            index = self._rearrange(index, node)
        return index

    def _restored(self, index: int, quantization: Quantization, bounds: Bounds | None) -> int:
        """DequantizeLinear and QuantizeLinear with nothing but clamps between them: nothing, a quantize or a relu node."""
        tensor = self._graph.tensors[index]
        if tensor.is_constant:
            raise GraphError(f"quantizes the constant '{tensor.name}' again; supported: constants stored as integers")
        if tensor.quantization == quantization and clamp_of(bounds or UNBOUNDED, tensor) == EVERY_INT8:
            return index
        op_type = "QuantizeLinear" if bounds is None else "Relu"
        output = self._add_tensor(Tensor(f"{tensor.name}/{op_type}", (), "int8", quantization))
        self._append(op_type, OnnxMatch(op_type, {}, (index,), (output,), bounds, self._graph))
        if index in self._orders:
            self._orders[output] = self._orders[index]
        return output

    def _make_node(self, file_node: NodeProto, quantization: Quantization | None, clamp: Bounds | None, name: str = "") -> int:
        """Adds the node of a compute operator's output `name` (default: the only one), stored with `quantization`."""
        if len(file_node.output) != 1 and file_node.op_type not in SEVERAL_OUTPUTS:
            raise GraphError(f"{file_node.op_type} has {len(file_node.output)} outputs; supported: 1")
        inputs = self._in_our_order(file_node, tuple(self._operand(file_node, name) for name in file_node.input))
        names = list(file_node.output)
        place = names.index(name) if name else 0
        output = self._add_tensor(Tensor(shown(names[place]), (), "int8", quantization))
        match = OnnxMatch(file_node.op_type, attributes_of(file_node), inputs, (output,), clamp, self._graph, place, len(names))
        with damage(f"'{shown(file_node.name or file_node.output[0])}' ({file_node.op_type})", named=True):
            self._append(file_node.op_type, match)
        return output

    def _append(self, op_type: str, match: OnnxMatch) -> None:
        """Adds the operator's node and gives its outputs the shapes that it infers."""
        before = len(self._graph.tensors)
        if op_type not in _operators_by_type():
            raise GraphError(f"{op_type} on its own is not supported; supported: behind an operator")
        node = _operators_by_type()[op_type].read_onnx(match)
        self._spend(sum(tensor.nbytes for tensor in self._graph.tensors[before:]))
        self._graph.nodes.append(node)
        for index, spec in zip(node.outputs, operator_of(node).infer(self._graph, node), strict=True):
            self._graph.tensors[index] = replace(self._graph.tensors[index], shape=spec.shape, dtype=spec.dtype)

    def _operand(self, reader: NodeProto, name: str) -> int:
        if not name:
            return ABSENT
        if name in self._dequantized:
            return self._dequantized[name]
        if name in self._constants:
            array = self._constants[name]
            if array.dtype == np.float32 and reader.op_type not in READS_FLOATS:
                raise GraphError(f"{reader.op_type} reads the float32 constant '{shown(name)}'; store it as integers (QDQ)")
            return self._add_tensor(Tensor(shown(name), array.shape, str(array.dtype), None, array))
        if name in self._pending or name in self._file_inputs:
            raise GraphError(
                f"{reader.op_type} reads '{shown(name)}' in float32; expected QuantizeLinear and DequantizeLinear before it"
            )
        raise GraphError(f"{reader.op_type} reads '{shown(name)}', which nothing before it computes")

    def _rearrange(self, index: int, file_node: NodeProto) -> int:
        """A Flatten, Reshape, ...: nothing, a reshape node, or an order that the next operator's weights take on."""
        tensor = self._graph.tensors[index]
        if tensor.is_constant:
            raise GraphError(f"{file_node.op_type} of the constant '{tensor.name}'; store it in its final shape")
        before = onnx_shape(tensor.shape)
        argument = None
        if len(file_node.input) > 1 and file_node.input[1] and file_node.op_type != "Dropout":
            argument = tuple(int(v) for v in constant_input(file_node, 1, "shape", self._constants).reshape(-1)[:16])
        after = rearranged(file_node.op_type, attributes_of(file_node), argument, before)
        if after == before:
            return index
        self._spend(16 * tensor.elements)
        order = self._orders[index] if index in self._orders else usual_order(before)
        usual = same_order(order, usual_order(after))
        if not usual and len(after) == 4:
            raise GraphError(
                f"{file_node.op_type} from {before} to {after} moves channels; that needs a transpose: not supported"
            )
        output = self._add_tensor(replace(tensor, name=shown(file_node.output[0]), shape=our_shape(after)))
        if not usual and order is not None:
            self._orders[output] = order
        self._graph.nodes.append(Node("reshape", (index,), (output,), {"shape": our_shape(after)}))
        return output

    def _in_our_order(self, file_node: NodeProto, inputs: tuple[int, ...]) -> tuple[int, ...]:
        """Reorders the weights of an operator that reads a flattened image. Raises GraphError for other operators."""
        if not any(index in self._orders for index in inputs):
            return inputs
        if file_node.op_type not in READS_FLATTENED or len(inputs) < 2 or inputs[0] not in self._orders:
            raise GraphError(f"{file_node.op_type} reads a flattened image; supported there: {', '.join(READS_FLATTENED)}")
        order, weights = self._orders[inputs[0]], self._graph.tensors[inputs[1]]
        axis = 1 if attributes_of(file_node).get("transB", 0) else 0
        if weights.data is None or weights.data.ndim != 2 or weights.shape[axis] != order.size:
            raise GraphError(f"{file_node.op_type} reads {order.size:,} values with weights {weights.shape}; they do not fit")
        self._spend(weights.nbytes)
        reordered = np.ascontiguousarray(np.take(weights.data, order, axis=axis))
        return (inputs[0], self._add_tensor(replace(weights, data=reordered)), *inputs[2:])

    def _used_input(self, name: str) -> int:
        if name not in self._inputs or self._graph.tensors[self._inputs[name]].quantization is None:
            raise GraphError(f"model input '{shown(name)}' is never quantized; expected a QuantizeLinear behind it")
        return self._inputs[name]

    def _output(self, value: ValueInfoProto) -> int:
        index = self._dequantized.get(value.name, self._stored.get(value.name))
        if index is None:
            maker = (
                f"computed in float32 by {self._pending[value.name].op_type}" if value.name in self._pending else "never made"
            )
            raise GraphError(f"model output '{shown(value.name)}' is {maker}; expected QuantizeLinear (and DequantizeLinear)")
        if index in self._orders:
            raise GraphError(f"model output '{shown(value.name)}' is a flattened image; supported: outputs without Flatten")
        tensor = self._graph.tensors[index]
        if not matches_declared(value, onnx_shape(tensor.shape)):
            made = onnx_shape(tensor.shape)
            raise GraphError(
                f"model output '{shown(value.name)}' is declared with another shape than its operators make: {made}"
            )
        self._graph.tensors[index] = replace(tensor, name=shown(value.name))
        return index


def _refuse_unsupported(model: ModelProto) -> None:
    """Refuses a whole model by what is in it, each with its own sentence."""
    opsets = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    if not opsets or max(opsets) < MIN_OPSET:
        raise GraphError(f"opset {max(opsets, default=0)}; supported: {MIN_OPSET} and above (QuantizeLinear)")
    if len(model.graph.node) > MAX_NODES:
        raise GraphError(f"{len(model.graph.node):,} nodes; supported: up to {MAX_NODES:,}")
    if model.graph.sparse_initializer:
        raise GraphError("the model has sparse initializers; supported: dense tensors")
    known = {*_operators_by_type(), *REARRANGING, *CLAMPS, "Constant", "QuantizeLinear", "DequantizeLinear"}
    for index, node in enumerate(model.graph.node):
        where = f"node {index} ({shown(node.op_type)})"
        if node.op_type.startswith("QLinear") and node.op_type not in known:
            raise GraphError(f"{where} is of the QOperator form; supported: the QDQ form (quant_format=QuantFormat.QDQ)")
        if node.domain not in ("", "ai.onnx"):
            raise GraphError(f"{where} is of the domain '{shown(node.domain)}'; supported: standard ONNX operators")
    if not {"QuantizeLinear", "DequantizeLinear"} & {node.op_type for node in model.graph.node}:
        raise GraphError("float model: no QuantizeLinear in it; quantize it to int8 first (onnxruntime's quantize_static, QDQ)")
    for index, node in enumerate(model.graph.node):
        if node.op_type not in known:
            raise GraphError(f"node {index} ({shown(node.op_type)}) is not supported; supported: {', '.join(sorted(known))}")
