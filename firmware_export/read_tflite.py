"""Int8 .tflite -> Graph. The file is untrusted: whatever is in it, a Graph or a GraphError comes out.

The generated schema classes read a flatbuffer without checks, so this reader only uses their single accessors, bounds
every count before it loops, keeps a budget over all bytes it reads (tables that point at the same bytes many times
make a small file expensive), and turns every low-level error into one sentence.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from firmware_export.activation import FUSED_ACTIVATIONS, Clamp, clamp_of
from firmware_export.check import check
from firmware_export.geometry import MAX_WINDOW, same_padding
from firmware_export.graph import ABSENT, DTYPES, Array, Graph, GraphError, Node, Quantization, Tensor
from firmware_export.model_file import MAX_ELEMENTS, MAX_OPERATORS, MAX_RANK, damage, read_model_bytes, shown
from firmware_export.operators import Operator, registry
from firmware_export.passes.fold_constants import Folder
from firmware_export.tflite_refusals import (
    FLOAT_EDGES,
    dtype_of,
    refuse_builtin,
    refuse_kind,
    refuse_layout,
    refuse_subgraphs,
)

SCHEMA_VERSION = 3
BUDGET_FACTOR = 16
MAX_ARGUMENTS = 64
"""Integers of a constant that tells an operator what to do: two for each dimension, or the sizes of a split."""
STATEFUL = ("UNIDIRECTIONAL_SEQUENCE_LSTM",)
"""Operators with tensors that keep their value between inferences."""
ACTIVATION_NAMES: dict[int, str] = {
    code: name for name, code in vars(schema.ActivationFunctionType).items() if not name.startswith("_")
}


@dataclass(frozen=True)
class TfliteOperator:
    """One operator of a .tflite file, as an operator's `read_tflite` gets it.

    builtin: name in schema.BuiltinOperator, e.g. "CONV_2D".
    inputs, outputs: indexes into graph.tensors; ABSENT for an optional input that is not there.
    options: a schema object, e.g. schema.Conv2DOptionsT, or None where the file gives none.
    """

    builtin: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Any
    graph: Graph

    def options_as(self, kind: Any) -> Any:
        """The options, or the schema's defaults where the file gives none.

        Raises:
            GraphError: the file gives the options of another operator.
        """
        if self.options is None:
            return kind()
        if not isinstance(self.options, kind):
            found = type(self.options).__name__.removesuffix("T")
            raise GraphError(f"the options are {found}, expected {kind.__name__.removesuffix('T')}; the file is damaged")
        return self.options

    def input(self, place: int) -> Tensor:
        """The tensor at a place of the inputs. Raises GraphError if there is none."""
        if place >= len(self.inputs) or self.inputs[place] == ABSENT:
            raise GraphError(f"input {place} is missing")
        return self.graph.tensors[self.inputs[place]]

    def output(self, place: int = 0) -> Tensor:
        """The tensor at a place of the outputs. Raises GraphError if there is none."""
        if place >= len(self.outputs):
            raise GraphError(f"output {place} is missing")
        return self.graph.tensors[self.outputs[place]]

    def integers(self, place: int) -> tuple[int, ...]:
        """The numbers of an input that must be a constant (axes, sizes). Raises GraphError if it is computed or no numbers."""
        tensor = self.input(place)
        if tensor.data is None or tensor.dtype not in ("int32", "int64") or tensor.elements > MAX_ARGUMENTS:
            found = "computed" if tensor.data is None else f"{tensor.dtype} {tensor.shape}"
            raise GraphError(
                f"input {place} '{tensor.name}' is {found}; supported: a constant of up to {MAX_ARGUMENTS} integers "
                "(export with fixed shapes)"
            )
        return tuple(int(value) for value in tensor.data.reshape(-1).tolist())

    def clamp(self, activation: int) -> Clamp:
        """The int8 clamp that a schema.ActivationFunctionType means on the first output."""
        name = ACTIVATION_NAMES.get(activation, str(activation))
        if name not in FUSED_ACTIVATIONS:
            raise GraphError(f"fused activation {name}; supported: {', '.join(FUSED_ACTIVATIONS)}")
        return clamp_of(FUSED_ACTIVATIONS[name], self.output())

    def padding(
        self, padding: int, kernel: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...] = (1, 1)
    ) -> tuple[int, int, int, int]:
        """(top, bottom, left, right) that a schema.Padding means for the first input, int8 [1, h, w, c].

        Raises:
            GraphError: not a rank-4 input, a stride, kernel or dilation below 1 or too large, or an unknown padding.
        """
        shape = self.input(0).shape
        if len(shape) != 4 or min(*kernel, *stride, *dilation) < 1 or max(*stride, *dilation) > MAX_WINDOW:
            found = f"input {shape}, kernel {kernel}, stride {stride}, dilation {dilation}"
            raise GraphError(f"{found}; supported: 4 dimensions, all of it 1 or more, strides and dilations up to {MAX_WINDOW}")
        if padding == schema.Padding.VALID:
            return 0, 0, 0, 0
        if padding == schema.Padding.SAME:
            return same_padding(shape[1:3], kernel, stride, dilation)
        raise GraphError(f"padding {padding}; supported: 0 (SAME), 1 (VALID)")


def read_tflite(path: Path) -> Graph:
    """Reads an int8 .tflite file.

    Raises:
        GraphError: damaged, or something in it is not supported; says what and what to do.
    """
    return read_tflite_bytes(read_model_bytes(path))


def read_tflite_bytes(data: bytes) -> Graph:
    """As read_tflite, from bytes."""
    if len(data) < 8 or data[4:8] != b"TFL3":
        raise GraphError("not a TFLite file: the identifier TFL3 is missing")
    with damage("the file"):
        graph = _Reader(data).graph()
    check(graph)
    return graph


@cache
def _operators_by_builtin() -> dict[str, Operator]:
    return {builtin: operator for operator in registry().values() for builtin in operator.tflite}


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._budget = BUDGET_FACTOR * len(data)
        self._model = schema.Model.GetRootAs(data, 0)
        if self._model.Version() != SCHEMA_VERSION:
            raise GraphError(f"TFLite schema version {self._model.Version()}; supported: {SCHEMA_VERSION}")
        refuse_subgraphs(self._model, self._model.SubgraphsLength())
        self._subgraph = self._model.Subgraphs(0)
        self._tensors: list[Tensor] = []
        self._folder = Folder()
        self._places: dict[int, int] = {ABSENT: ABSENT}
        self._variables: set[int] = set()

    def graph(self) -> Graph:
        """The whole model; only tensors that are used, in the file's order."""
        count = self._count(self._subgraph.OperatorsLength(), "operators", MAX_OPERATORS)
        operators = [self._subgraph.Operators(index) for index in range(count)]
        builtins = [self._builtin(index, operator) for index, operator in enumerate(operators)]
        inputs = self._indexes(self._subgraph.InputsAsNumpy(), "inputs")
        outputs = self._indexes(self._subgraph.OutputsAsNumpy(), "outputs")
        wires = [(self._indexes(o.InputsAsNumpy(), "inputs"), self._indexes(o.OutputsAsNumpy(), "outputs")) for o in operators]
        self._read_tensors({*inputs, *outputs, *(index for wire in wires for side in wire for index in side)} - {ABSENT})
        graph = Graph(self._tensors, [], self._placed(inputs), self._placed(outputs))
        for index, (operator, builtin, wire) in enumerate(zip(operators, builtins, wires, strict=True)):
            with damage(f"operator {index} ({builtin})", named=True):
                self._add_node(graph, builtin, operator, wire)
        return graph

    def _count(self, count: int, what: str, limit: int) -> int:
        """A vector's length, if that many 4-byte entries can be in the file."""
        if count > len(self._data) // 4:
            raise GraphError(f"the file is damaged: it claims {count:,} {what} in {len(self._data):,} bytes")
        if count > limit:
            raise GraphError(f"{count:,} {what}; supported: up to {limit:,}")
        return int(count)

    def _spend(self, size: int) -> None:
        self._budget -= size
        if self._budget < 0:
            raise GraphError("the file is damaged: its tables overlap; export the model again")

    def _vector(self, array: Any) -> Array:
        """What an ...AsNumpy accessor gave; it gives the number 0 for a vector that is not there."""
        if isinstance(array, int):
            return np.zeros(0, np.int32)
        self._spend(array.nbytes)
        found: Array = array
        return found

    def _indexes(self, array: Any, what: str) -> tuple[int, ...]:
        vector = self._vector(array)
        self._count(vector.size, what, MAX_OPERATORS)
        return tuple(int(value) for value in vector)

    def _placed(self, indexes: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(self._places[index] for index in indexes)

    def _builtin(self, index: int, operator: Any) -> str:
        """The operator's name. Raises GraphError for custom and unknown ones."""
        place = operator.OpcodeIndex()
        if place >= self._count(self._model.OperatorCodesLength(), "operator codes", MAX_OPERATORS):
            raise GraphError(f"operator {index} names operator code {place}, which the file does not have; it is damaged")
        code = self._model.OperatorCodes(place)
        number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
        return refuse_builtin(index, number, code.CustomCode() or b"", {"SHAPE", *_operators_by_builtin()})

    def _read_tensors(self, used: set[int]) -> None:
        limit = self._count(self._subgraph.TensorsLength(), "tensors", 10 * MAX_OPERATORS)
        for index in sorted(used):
            if not 0 <= index < limit:
                raise GraphError(f"tensor index {index} is out of range 0..{limit - 1}; the file is damaged")
            with damage(f"tensor {index}"):
                self._places[index] = len(self._tensors)
                if self._subgraph.Tensors(index).IsVariable():
                    self._variables.add(len(self._tensors))
                self._tensors.append(self._tensor(self._subgraph.Tensors(index)))

    def _tensor(self, tensor: Any) -> Tensor:
        raw_name = tensor.Name() or b""
        self._spend(len(raw_name))
        name = shown(raw_name)
        dtype = dtype_of(tensor, name)
        shape = self._shape(tensor, name)
        refuse_layout(tensor, name)
        quantization = self._quantization(tensor.Quantization(), name, shape)
        return Tensor(name, shape, dtype, quantization, self._constant(tensor, name, shape, dtype))

    def _shape(self, tensor: Any, name: str) -> tuple[int, ...]:
        if tensor.ShapeLength() > MAX_RANK or tensor.ShapeSignatureLength() > MAX_RANK:
            raise GraphError(f"tensor '{name}' has {tensor.ShapeLength():,} dimensions; supported: up to {MAX_RANK}")
        shape = tuple(int(size) for size in self._vector(tensor.ShapeAsNumpy()))
        signature = tuple(int(size) for size in self._vector(tensor.ShapeSignatureAsNumpy()))
        if any(size < 0 for size in (*shape, *signature[1:])):  # a signature of -1 for the batch alone is common and harmless
            raise GraphError(f"tensor '{name}' has the dynamic shape {signature or shape}; export with a fixed input shape")
        if 0 in shape or math.prod(shape) > MAX_ELEMENTS:
            raise GraphError(f"tensor '{name}' has the shape {shape}; supported: 1 to {MAX_ELEMENTS:,} elements")
        return shape

    def _quantization(self, quantization: Any, name: str, shape: tuple[int, ...]) -> Quantization | None:
        if quantization is None or quantization.ScaleLength() == 0:
            return None
        if quantization.DetailsType() != schema.QuantizationDetails.NONE:
            raise GraphError(f"tensor '{name}' has a custom quantization; supported: scale and zero point")
        scale = self._vector(quantization.ScaleAsNumpy()).astype(np.float32)
        zero_point = self._vector(quantization.ZeroPointAsNumpy()).astype(np.int64)
        if zero_point.size == 0:
            zero_point = np.zeros(scale.size, np.int64)
        axis = None if scale.size == 1 else int(quantization.QuantizedDimension())
        return Quantization(scale, zero_point, axis)

    def _constant(self, tensor: Any, name: str, shape: tuple[int, ...], dtype: str) -> Array | None:
        """The bytes of a constant, or None for a tensor that is computed."""
        count = self._count(self._model.BuffersLength(), "buffers", 10 * MAX_OPERATORS)
        if tensor.ExternalBuffer() or not 0 <= tensor.Buffer() < max(count, 1):
            raise GraphError(f"tensor '{name}' names buffer {tensor.Buffer()}, which the file does not have; it is damaged")
        if count == 0:
            return None
        buffer = self._model.Buffers(tensor.Buffer())
        if buffer.Offset() > 1 or buffer.Size() > 1:
            raise GraphError(f"the data of tensor '{name}' lies outside the flatbuffer; supported: files below 2 GB")
        if buffer.DataLength() == 0:
            return None
        data = self._vector(buffer.DataAsNumpy())
        expected = math.prod(shape) * DTYPES[dtype].itemsize
        if data.size != expected:
            raise GraphError(f"tensor '{name}' {shape} {dtype} has {data.size:,} bytes of data, expected {expected:,}")
        return np.frombuffer(data.tobytes(), DTYPES[dtype].newbyteorder("<")).astype(DTYPES[dtype]).reshape(shape)

    def _add_node(self, graph: Graph, builtin: str, operator: Any, wire: tuple[tuple[int, ...], ...]) -> None:
        table, options = operator.BuiltinOptions(), None
        if table is not None and operator.BuiltinOptionsType() != schema.BuiltinOptions.NONE:
            options = schema.BuiltinOptionsCreator(operator.BuiltinOptionsType(), table)
        inputs, outputs = (self._placed(side) for side in wire)
        found = TfliteOperator(builtin, inputs, outputs, options, graph)
        if builtin == "SHAPE":
            _set_constants(graph, outputs, [_shape_of(found)])
            return
        self._refuse_variables(found)
        _refuse_kind(found, self._variables)
        node: Node = _operators_by_builtin()[builtin].read_tflite(found)
        constants = self._folder.fold(graph, node)
        if constants is None:
            graph.nodes.append(node)
        else:
            _set_constants(graph, node.outputs, constants)

    def _refuse_variables(self, op: TfliteOperator) -> None:
        """State is an LSTM's own; every inference starts without it."""
        for index in (*op.inputs, *op.outputs):
            if index in self._variables and op.builtin not in STATEFUL:
                name = op.graph.tensors[index].name
                raise GraphError(f"tensor '{name}' keeps its value between inferences; supported: the states of an LSTM")


def _shape_of(op: TfliteOperator) -> Tensor:
    """What a SHAPE makes: shapes are fixed here, so it is a constant."""
    shape, output = op.input(0).shape, op.output()
    if output.dtype not in ("int32", "int64") or output.shape != (len(shape),):
        raise GraphError(f"writes {output.dtype} {output.shape}; the shape of {shape} is int32 or int64 ({len(shape)},)")
    return replace(output, data=np.array(shape, DTYPES[output.dtype]))


def _set_constants(graph: Graph, indexes: tuple[int, ...], constants: list[Tensor]) -> None:
    """Puts constants in the place of tensors that were to be computed. Raises GraphError if one has a value already."""
    for index, constant in zip(indexes, constants, strict=True):
        if graph.tensors[index].is_constant or index in graph.inputs:
            raise GraphError(f"writes tensor '{constant.name}', which already has a value")
        graph.tensors[index] = constant


def _refuse_kind(operator: TfliteOperator, variables: set[int]) -> None:
    """Refuses operators of float, hybrid, int16x8 and uint8 models; those of constants alone and of the edges may be float."""
    places = [index for index in (*operator.inputs, *operator.outputs) if index != ABSENT]
    tensors = [operator.graph.tensors[index] for index in places]
    activations = [
        operator.graph.tensors[i] for i in places if i not in variables and not operator.graph.tensors[i].is_constant
    ]
    computed = [index for index in operator.inputs if index != ABSENT and not operator.graph.tensors[index].is_constant]
    if operator.builtin not in FLOAT_EDGES and computed:
        refuse_kind(operator.builtin, tensors, activations)
