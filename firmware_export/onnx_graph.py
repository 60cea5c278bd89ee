"""The walk over an ONNX file's nodes that makes the graph: QuantizeLinear and DequantizeLinear become quantization.

A value of the file is one of: a constant; stored, the integers behind a QuantizeLinear; dequantized, the real numbers that a
stored tensor stands for; or pending: computed in float until a QuantizeLinear says how it is stored. There the chain back
to the last operator is matched, its Relu or Clip becomes the operator's clamp, and the node is made. Operators that only
move values, or choose among them, keep the scale of what they read and are made at once, on stored integers too.

uint8 activations and constants become int8 by taking 128 from the values and the zero point, which changes nothing else.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
from onnx import ModelProto, NodeProto, ValueInfoProto, helper

from firmware_export.activation import UNBOUNDED, Bounds, clamp_of
from firmware_export.graph import ABSENT, Graph, GraphError, Node, Quantization, Tensor
from firmware_export.model_file import MAX_OPERATORS, damage, shown
from firmware_export.onnx_constants import (
    bare_constant,
    dequantized_constant,
    divisor_constant,
    integer_bounds,
    moved_constant,
    real_constant,
    stored_zero,
    unsigned,
)
from firmware_export.onnx_fold import FOLDED, folded, shape_values
from firmware_export.onnx_layout import REARRANGING, onnx_shape, rearranged
from firmware_export.onnx_patterns import CLAMPS, clamp_on, hard_swish_input
from firmware_export.onnx_qoperator import QOPERATORS, first_reader
from firmware_export.onnx_quantization import (
    activation_quantization,
    constant_input,
    constant_value,
    matches_declared,
    narrowed,
    quantized_constant,
)
from firmware_export.onnx_rearrange import Rearrangements
from firmware_export.onnx_refusals import refuse_unsupported
from firmware_export.onnx_tensors import array_of, attributes_of
from firmware_export.onnx_values import FileValues
from firmware_export.operators import Operator, registry
from firmware_export.read_onnx import OnnxMatch

MAX_CHAIN = 64
"""Clamps and rearrangements between an operator and its QuantizeLinear."""
MAX_COPIED = 2**28
"""Bytes of constants and orders that one model may make: shared weights are copied for each operator that reads them."""
KEEPS_QUANTIZATION = ("MaxPool", "GlobalMaxPool", "ReduceMax", "Slice", "Split", "Tile", "Transpose")
"""Operators whose output is stored like their input, so that they need no QuantizeLinear behind them."""
ON_INTEGERS = (*KEEPS_QUANTIZATION, *REARRANGING, *CLAMPS, "Concat", "Gather", "Pad", "Resize")
"""Operators that may read stored integers themselves."""
MOVES_CONSTANTS = (*REARRANGING, "Transpose")
SEVERAL_OUTPUTS = ("Split",)
"""Operators of which each output becomes a node of its own."""
FUSES_CLAMP = ("Conv", "ConvTranspose", "Gemm", "MatMul", "Add", "Sub", "Mul", "Div", "AveragePool", "MaxPool")
"""Operators of which a Relu or Clip behind them becomes a part, as in TFLite; behind others it is a node of its own."""
NATURAL = {
    **dict.fromkeys(("Sigmoid", "Softmax"), Quantization.per_tensor(1 / 256, -128)),
    "HardSigmoid": Quantization.per_tensor(1 / 255, -128),
    "Tanh": Quantization.per_tensor(1 / 128, 0),
}
"""How functions with a bounded range are stored where the file leaves their result in float32, as TFLite stores them."""
MAX_NESTED = 4
"""Such functions of each other."""
EVERY_INT8 = (-128, 127)


@cache
def _operators_by_type() -> dict[str, Operator]:
    """A division by a number, the only one that is read, is a product."""
    return {op_type: operator for operator in registry().values() for op_type in operator.onnx} | {"Div": registry()["mul"]}


class OnnxReader(FileValues):
    """Reads one model."""

    def __init__(self, model: ModelProto, folder: Path | None) -> None:
        super().__init__()
        self._opset = refuse_unsupported(model, _known())
        self._file, self._folder = model.graph, folder
        self._readers.update(name for node in self._file.node for name in node.input)
        self._readers.update(value.name for value in self._file.output)
        self._budget, self._depth = MAX_COPIED, 0
        self._moves = Rearrangements(self._graph, self._spend)

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
            if len(self._graph.nodes) > MAX_OPERATORS:
                raise GraphError(f"the model makes more than {MAX_OPERATORS:,} operators; supported: 1 to {MAX_OPERATORS:,}")
        self._graph.inputs = tuple(self._used_input(name) for name in self._file_inputs)
        self._graph.outputs = tuple(self._output(value) for value in self._file.output)
        return self._graph

    def _spend(self, size: int) -> None:
        self._budget -= size
        if self._budget < 0:
            raise GraphError(
                f"the model's operators need more than {MAX_COPIED:,} bytes of constants; supported: smaller models"
            )

    def _visit(self, node: NodeProto) -> None:
        """Defines what a node makes; an operator that stands for several is taken apart."""
        for name in node.output:
            if name:
                self._define(name)
        if not node.output or not node.output[0]:
            raise GraphError("has no output; the file is damaged")
        output, first = node.output[0], node.input[0] if node.input else ""
        parts = self._parts(node)
        if parts is not None:
            for part in parts:
                self._visit(part)
        elif node.op_type == "Constant":
            self._constants[output] = constant_value(node, self._folder)
        elif node.op_type == "QuantizeLinear" and first in self._constants:
            self._constants[output] = quantized_constant(node, self._constants)
        elif node.op_type == "QuantizeLinear":
            self._stored[output] = self._quantize(node)
        elif node.op_type == "DequantizeLinear":
            self._dequantized[output] = self._dequantize(node)
        elif node.op_type == "Shape":
            self._constants[output] = shape_values(self._known_shape(first), attributes_of(node))
        elif node.op_type in FOLDED and node.input and all(name in self._constants for name in node.input):
            inputs = [self._constants[name] for name in node.input]
            self._spend(sum(array.nbytes for array in inputs))
            self._constants[output] = folded(node.op_type, inputs, attributes_of(node))
            self._spend(self._constants[output].nbytes)
        else:
            self._visit_computed(node, first)

    def _visit_computed(self, node: NodeProto, first: str) -> None:
        """An operator on values that are not all constant: made at once where its output's scale is known."""
        values = self._stored if first in self._stored else self._dequantized
        source = values.get(first)
        if source is None:
            self._postpone(node)
            return
        if values is self._stored and self._graph.tensors[source].quantization is None:
            for reader in first_reader(first, self._file.node, ON_INTEGERS):
                self._dequantize(reader)
        tensor = self._graph.tensors[source]
        if tensor.is_constant and node.op_type in MOVES_CONSTANTS:
            values[node.output[0]] = self._add_tensor(moved_constant(tensor, node, self._arguments(node)))
        elif values is self._stored and node.op_type in CLAMPS and tensor.quantization is not None:
            bounds = integer_bounds(node, self._constants, tensor.quantization, first in self._unsigned)
            values[node.output[0]] = self._restored(source, tensor.quantization, bounds)
        elif values is self._stored and (node.op_type not in ON_INTEGERS or tensor.quantization is None):
            what = f"{tensor.dtype} '{shown(first)}'"
            raise GraphError(f"{node.op_type} reads the stored {what}; expected a DequantizeLinear before it")
        elif self._is_nhwc_input(source, node):
            values[node.output[0]] = source
        elif node.op_type in REARRANGING:
            values[node.output[0]] = self._rearrange(source, node)
        elif values is self._stored or node.op_type in KEEPS_QUANTIZATION:
            for name in node.output:
                values[name] = self._make_node(node, tensor.quantization, None, name)
        else:
            self._postpone(node)
        self._unsigned |= {*node.output} if first in self._unsigned else set()

    def _dequantize(self, node: NodeProto) -> int:
        name = node.input[0] if node.input else ""
        if name in self._constants:
            return self._add_tensor(dequantized_constant(node, self._constants))
        if name not in self._stored:
            raise GraphError(f"dequantizes '{shown(name)}', which nothing before it has quantized")
        index, dtype = self._stored[name], "uint8" if name in self._unsigned else "int8"
        tensor = self._graph.tensors[index]
        quantization, _ = activation_quantization(node, self._constants, dtype)
        if tensor.quantization is None:
            self._graph.tensors[index] = replace(tensor, quantization=quantization)
            self._give_input(name, quantization)
        elif tensor.quantization != quantization:
            raise GraphError(f"'{shown(name)}' is dequantized with another scale than it was quantized with; export again")
        return index

    def _quantize(self, node: NodeProto) -> int:
        name = node.input[0] if node.input else ""
        quantization, dtype = activation_quantization(node, self._constants)
        if dtype == "uint8":
            self._unsigned.add(node.output[0])
        if name in self._file_inputs and name not in self._stored:
            index = self._quantized_input(name, quantization)
        else:
            index = self._made[name] if name in self._made else self._match(name, quantization)
            self._made[name] = index
        if self._graph.tensors[index].quantization != quantization:
            raise GraphError(f"'{shown(name)}' is quantized in two ways; supported: one scale and zero point for each value")
        return index

    def _match(self, name: str, quantization: Quantization) -> int:
        """The stored tensor of a float value: what computes it, its clamps and rearrangements behind it."""
        whole = name
        name, bounds, moves = self._origin(name)
        node = self._pending.get(name)
        swish = hard_swish_input(name, self._pending, self._constants)
        if name in self._dequantized:
            index = self._restored(self._dequantized[name], quantization, bounds)
        elif name in self._file_inputs and name not in self._stored:
            index = self._restored(self._quantized_input(name, quantization), quantization, bounds)
        elif swish in self._dequantized:
            made = helper.make_node("HardSwish", [swish], [self._fresh(name)])
            index = self._restored(self._make_node(made, quantization, None), quantization, bounds)
        elif node is not None and node.op_type in _operators_by_type():
            fused = node.op_type in FUSES_CLAMP
            index = self._make_node(node, quantization, bounds if fused else None, name)
            index = index if fused else self._restored(index, quantization, bounds)
        else:
            maker = "no supported operator before it computes" if node is None else f"{node.op_type} computes: not supported"
            raise GraphError(f"quantizes '{shown(whole)}', which {maker}")
        for move, output in reversed(moves):
            if move.op_type in REARRANGING:
                index = self._rearrange(index, move)
            elif not self._is_nhwc_input(index, move):
                index = self._make_node(move, quantization, None, output, index)
        return index

    def _origin(self, name: str) -> tuple[str, Bounds | None, list[tuple[NodeProto, str]]]:
        """Walks back over clamps, and over what moves or chooses values and so lets a clamp through: where they start, the
        bounds that the clamps set, and the moves with what they make."""
        bounds: Bounds | None = None
        moves: list[tuple[NodeProto, str]] = []
        for _ in range(MAX_CHAIN):
            node = self._pending.get(name)
            clamp = None if node is None else clamp_on(node, self._constants)
            if clamp is not None:
                bounds, name = narrowed(bounds or UNBOUNDED, clamp[0]), clamp[1]
            elif node is not None and node.op_type in (*REARRANGING, *KEEPS_QUANTIZATION):
                moves.append((node, name))
                name = node.input[0] if node.input else ""
            else:
                break
        return name, bounds, moves

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
        self._moves.pass_on(index, output)
        return output

    def _make_node(
        self,
        file_node: NodeProto,
        quantization: Quantization | None,
        clamp: Bounds | None,
        name: str = "",
        source: int | None = None,
    ) -> int:
        """Adds the node of an operator's output `name` (default: the only one), stored with `quantization`.

        source: the tensor of its first input, where the file's name for that stands for no stored one.
        """
        if len(file_node.output) != 1 and file_node.op_type not in SEVERAL_OUTPUTS:
            raise GraphError(f"{file_node.op_type} has {len(file_node.output)} outputs; supported: 1")
        attributes = attributes_of(file_node)
        with damage(f"'{shown(file_node.name or file_node.output[0])}' ({file_node.op_type})", named=True):
            given = {} if source is None else {0: source}
            operands = tuple(
                given[place] if place in given else self._operand(file_node, name) for place, name in enumerate(file_node.input)
            )
            inputs = self._moves.readable(file_node.op_type, attributes, operands)
            names = list(file_node.output)
            place = names.index(name) if name else 0
            output = self._add_tensor(Tensor(shown(names[place]), (), "int8", quantization))
            if file_node.op_type == "Pad" and file_node.input[0] in self._stored:
                attributes["value"] = stored_zero(quantization, file_node.input[0] in self._unsigned)
            match = OnnxMatch(
                file_node.op_type, attributes, inputs, (output,), clamp, self._graph, place, len(names), self._opset
            )
            self._append(file_node.op_type, match)
            self._moves.pass_through(file_node.op_type, inputs, output)
            self._note_turned(file_node, inputs[0] if inputs else ABSENT, output)
        return output

    def _append(self, op_type: str, match: OnnxMatch) -> None:
        """Adds the operator's node and gives its outputs the shapes that it infers."""
        before = len(self._graph.tensors)
        if op_type not in _operators_by_type():
            raise GraphError(f"{op_type} on its own is not supported; supported: behind an operator")
        node = _operators_by_type()[op_type].read_onnx(match)
        self._spend(sum(tensor.nbytes for tensor in self._graph.tensors[before:]))
        match.add(node)

    def _operand(self, reader: NodeProto, name: str) -> int:
        """The tensor that a node reads under a name."""
        if not name:
            return ABSENT
        if name in self._dequantized:
            index = self._dequantized[name]
            if reader.op_type == "Div" and name == reader.input[-1]:
                return self._add_tensor(divisor_constant(reader, self._graph.tensors[index]))
            return index
        if reader.input[0] in self._stored and reader.op_type in ON_INTEGERS:
            return self._stored_operand(reader, name)
        if name in self._constants:
            array = self._constants[name]
            real = array.dtype == np.float32
            return self._add_tensor(real_constant(reader, name, array) if real else bare_constant(name, array, None))
        if (made := self._stored_by_itself(name)) is not None:
            return made
        if name in self._pending or name in self._file_inputs:
            raise GraphError(
                f"{reader.op_type} reads '{shown(name)}' in float32; expected QuantizeLinear and DequantizeLinear before it"
            )
        raise GraphError(f"{reader.op_type} reads '{shown(name)}', which nothing before it computes")

    def _stored_operand(self, reader: NodeProto, name: str) -> int:
        """An input of an operator on stored integers; all of them are stored alike, for it moves them without looking."""
        quantization = self._graph.tensors[self._stored[reader.input[0]]].quantization
        if name in self._constants:
            return self._add_tensor(bare_constant(name, self._constants[name], quantization))
        if name not in self._stored:
            raise GraphError(f"{reader.op_type} reads '{shown(name)}', which is not stored as its first input is")
        if self._graph.tensors[self._stored[name]].quantization != quantization:
            raise GraphError(
                f"{reader.op_type} reads integers of different scales; expected the same, or QLinear{reader.op_type}"
            )
        return self._stored[name]

    def _stored_by_itself(self, name: str) -> int | None:
        """A pending value whose scale needs no QuantizeLinear: that of a dequantized value behind which only clamps and moves
        stand, or the natural scale of a function with a bounded range. None for other values."""
        origin, quantization = self._origin(name)[0], None
        if origin in self._dequantized:
            quantization = self._graph.tensors[self._dequantized[origin]].quantization
        elif origin in self._pending:
            quantization = NATURAL.get(self._pending[origin].op_type)
        if name not in self._pending or quantization is None or self._depth == MAX_NESTED:
            return None
        if name not in self._made:
            self._depth += 1
            self._made[name] = self._match(name, quantization)
            self._depth -= 1
        return self._made[name]

    def _rearrange(self, index: int, file_node: NodeProto) -> int:
        """A Flatten, Reshape, ... of a computed value."""
        tensor = self._graph.tensors[index]
        if tensor.is_constant:
            raise GraphError(f"{file_node.op_type} of the constant '{tensor.name}'; store it in its final shape")
        argument = None
        if len(file_node.input) > 1 and file_node.input[1] and file_node.op_type != "Dropout":
            argument = tuple(int(v) for v in constant_input(file_node, 1, "shape", self._constants).reshape(-1)[:16])
        after = rearranged(file_node.op_type, attributes_of(file_node), argument, onnx_shape(tensor.shape))
        return self._moves.reshape(index, after, shown(file_node.output[0]))

    def _output(self, value: ValueInfoProto) -> int:
        """The tensor of a model output; uint8 where the file declares its stored values."""
        index = self._dequantized.get(value.name, self._stored.get(value.name))
        if index is None:
            index = self._stored_by_itself(value.name)
        if index is None:
            maker = (
                f"computed in float32 by {self._pending[value.name].op_type}" if value.name in self._pending else "never made"
            )
            raise GraphError(f"model output '{shown(value.name)}' is {maker}; expected QuantizeLinear (and DequantizeLinear)")
        index = self._turned.get(index, self._moves.in_file_order(index))
        tensor = self._graph.tensors[index]
        made = tensor.shape if index in self._turned.values() else onnx_shape(tensor.shape)
        if not matches_declared(value, made):
            raise GraphError(
                f"model output '{shown(value.name)}' is declared with another shape than its operators make: {made}"
            )
        if value.name in self._unsigned and value.name not in self._dequantized and tensor.quantization is not None:
            result = replace(tensor, name=shown(value.name), dtype="uint8", quantization=unsigned(tensor.quantization))
            self._graph.nodes.append(Node("quantize", (index,), (self._add_tensor(result),)))
            return len(self._graph.tensors) - 1
        self._graph.tensors[index] = replace(tensor, name=shown(value.name))
        return index


def _known() -> set[str]:
    """Every operator type that can be read."""
    own = {"Constant", "Shape", "Gather", "QuantizeLinear", "DequantizeLinear"}
    return {*_operators_by_type(), *REARRANGING, *CLAMPS, *FOLDED, *QOPERATORS, *own}
