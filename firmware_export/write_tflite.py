"""Graph -> .tflite, through the schema's object API. The same graph gives the same bytes.

The file is the graph's twin: it runs in TFLite Micro and LiteRT and must answer with the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from firmware_export.activation import Clamp, fused_activation
from firmware_export.geometry import same_padding
from firmware_export.graph import ABSENT, DTYPES, Array, Graph, GraphError, Quantization, Tensor
from firmware_export.operators import operator_of

SCHEMA_VERSION = 3
BUFFER_ALIGNMENT = 16
LAST_BYTE_CODE = 127
"""Older readers look for the operator in a byte; codes above it have this placeholder there."""
TENSOR_TYPES = {
    "float32": schema.TensorType.FLOAT32,
    "int32": schema.TensorType.INT32,
    "uint8": schema.TensorType.UINT8,
    "int64": schema.TensorType.INT64,
    "bool": schema.TensorType.BOOL,
    "int16": schema.TensorType.INT16,
    "int8": schema.TensorType.INT8,
}


def write_tflite(graph: Graph) -> bytes:
    """The graph as a .tflite file.

    Raises:
        GraphError: an operator, or an option of it, that TFLite does not have.
    """
    writer = TfliteWriter(graph)
    for node in graph.nodes:
        operator_of(node).write_tflite(graph, node, writer)
    return writer.finish()


@dataclass(frozen=True)
class _Operator:
    builtin: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Any
    version: int
    intermediates: tuple[int, ...] = ()


class TfliteWriter:
    """Collects operators and tensors. Tensor indexes are the graph's; tensors added here come behind them."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._tensors: list[Tensor] = list(graph.tensors)
        self._operators: list[_Operator] = []
        self._variables: set[int] = set()

    def tensor(self, index: int) -> Tensor:
        """A tensor of the graph, or one added to the file."""
        return self._tensors[index]

    def add(
        self,
        builtin: str,
        inputs: Sequence[int],
        outputs: Sequence[int],
        options: Any,
        version: int,
        intermediates: Sequence[int] = (),
    ) -> None:
        """Adds an operator.

        Args:
            builtin: a name of schema.BuiltinOperator, e.g. "CONV_2D".
            inputs, outputs: tensor indexes; ABSENT for an optional input that is not there.
            options: a schema object such as schema.Conv2DOptionsT, or None.
            version: the operator's version in TFLite's numbering (CONV_2D int8: 3).
            intermediates: tensors that tell how an LSTM stores what lies between its steps.
        """
        self._operators.append(_Operator(builtin, tuple(inputs), tuple(outputs), options, version, tuple(intermediates)))

    def add_constant(self, name: str, array: Array, quantization: Quantization | None = None) -> int:
        """Adds a constant tensor to the file and returns its index."""
        self._tensors.append(Tensor(name, array.shape, str(array.dtype), quantization, array))
        return len(self._tensors) - 1

    def add_activation(self, name: str, shape: tuple[int, ...], dtype: str, quantization: Quantization | None) -> int:
        """Adds a computed tensor to the file and returns its index."""
        self._tensors.append(Tensor(name, shape, dtype, quantization))
        return len(self._tensors) - 1

    def add_variable(self, name: str, shape: tuple[int, ...], dtype: str, quantization: Quantization | None) -> int:
        """Adds a tensor that keeps its value between inferences (the state of an LSTM) and returns its index."""
        index = self.add_activation(name, shape, dtype, quantization)
        self._variables.add(index)
        return index

    def fused_activation(self, clamp: Clamp, output: int) -> int:
        """The schema.ActivationFunctionType of an int8 clamp on a tensor. Raises GraphError if there is none."""
        return int(getattr(schema.ActivationFunctionType, fused_activation(clamp, self._tensors[output])))

    def padded_input(
        self,
        index: int,
        padding: tuple[int, ...],
        kernel: tuple[int, ...],
        stride: tuple[int, ...],
        dilation: tuple[int, ...] = (1, 1),
        fill: int | None = None,
    ) -> tuple[int, int]:
        """The input to use and its schema.Padding; a PAD is added where the padding is neither VALID nor SAME.

        Args:
            index: int8 [1, h, w, c].
            padding: (top, bottom, left, right). kernel, stride, dilation: (h, w).
            fill: the stored value of the padding; default: the zero point. Another one gives a PADV2.
        """
        _, height, width, _ = self._tensors[index].shape
        if not any(padding):
            return index, schema.Padding.VALID
        if same_padding((height, width), kernel, stride, dilation) == tuple(padding):
            return index, schema.Padding.SAME
        return self._pad(index, padding, fill), schema.Padding.VALID

    def _pad(self, index: int, padding: tuple[int, ...], fill: int | None) -> int:
        source = self._tensors[index]
        top, bottom, left, right = padding
        batch, height, width, channels = source.shape
        shape = (batch, height + top + bottom, width + left + right, channels)
        pads = np.array([[0, 0], [top, bottom], [left, right], [0, 0]], np.int32)
        inputs = [index, self.add_constant(f"{source.name}/paddings", pads)]
        output = self.add_activation(f"{source.name}/padded", shape, source.dtype, source.quantization)
        if fill is None or fill == source.zero_point:
            self.add("PAD", inputs, [output], schema.PadOptionsT(), 2)
        else:
            value = np.array([fill], DTYPES[source.dtype])
            inputs.append(self.add_constant(f"{source.name}/fill", value, source.quantization))
            self.add("PADV2", inputs, [output], schema.PadV2OptionsT(), 2)
        return output

    def finish(self) -> bytes:
        """The file. Only tensors that an operator, input or output names are in it."""
        places = {index: place for place, index in enumerate(sorted(self._used()))}
        buffers = [schema.BufferT()]
        tensors = [_pack_tensor(self._tensors[index], buffers) for index in places]
        for index in self._variables:
            tensors[places[index]].isVariable = True
        codes: dict[tuple[str, int], int] = {}
        operators = [_pack_operator(operator, places, codes) for operator in self._operators]
        subgraph = schema.SubGraphT(
            tensors=tensors,
            inputs=[places[index] for index in self.graph.inputs],
            outputs=[places[index] for index in self.graph.outputs],
            operators=operators,
            name="main",
        )
        model = schema.ModelT(
            version=SCHEMA_VERSION,
            operatorCodes=[_pack_code(builtin, version) for builtin, version in codes],
            subgraphs=[subgraph],
            description="firmware_export",
            buffers=buffers,
        )
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
        return bytes(builder.Output())

    def _used(self) -> set[int]:
        named = [*self.graph.inputs, *self.graph.outputs]
        for operator in self._operators:
            named += [*operator.inputs, *operator.outputs, *operator.intermediates]
        return {index for index in named if index != ABSENT}


class _AlignedBuffer(schema.BufferT):  # type: ignore[misc]
    """Bytes at a multiple of 16, which the schema asks for and the generated Python packer does not do."""

    def Pack(self, builder: flatbuffers.Builder) -> int:
        """Writes the buffer's table; called by the schema's own packing. Returns its offset."""
        builder.StartVector(1, len(self.data), BUFFER_ALIGNMENT)
        builder.head -= len(self.data)
        builder.Bytes[builder.head : builder.head + len(self.data)] = self.data
        data = builder.EndVector()
        schema.BufferStart(builder)
        schema.BufferAddData(builder, data)
        return int(schema.BufferEnd(builder))


def _pack_tensor(tensor: Tensor, buffers: list[Any]) -> Any:
    """The schema's tensor; a constant's bytes go behind `buffers`, everything else has the empty buffer 0."""
    if tensor.dtype not in TENSOR_TYPES:
        raise GraphError(f"tensor '{tensor.name}' is {tensor.dtype}, which cannot be written to a TFLite file")
    buffer = 0
    if tensor.data is not None:
        little_endian = tensor.data.astype(tensor.data.dtype.newbyteorder("<"))
        buffers.append(_AlignedBuffer(data=little_endian.tobytes()))
        buffer = len(buffers) - 1
    return schema.TensorT(
        shape=np.array(tensor.shape, np.int32),
        type=TENSOR_TYPES[tensor.dtype],
        buffer=buffer,
        name=tensor.name,
        quantization=_pack_quantization(tensor.quantization),
        hasRank=True,
    )


def _pack_quantization(quantization: Quantization | None) -> Any:
    if quantization is None:
        return None
    return schema.QuantizationParametersT(
        scale=quantization.scale.astype(np.float32),
        zeroPoint=quantization.zero_point.astype(np.int64),
        quantizedDimension=quantization.axis or 0,
    )


def _pack_operator(operator: _Operator, places: dict[int, int], codes: dict[tuple[str, int], int]) -> Any:
    packed = schema.OperatorT(
        opcodeIndex=codes.setdefault((operator.builtin, operator.version), len(codes)),
        inputs=[ABSENT if index == ABSENT else places[index] for index in operator.inputs],
        outputs=[places[index] for index in operator.outputs],
    )
    if operator.intermediates:
        packed.intermediates = [places[index] for index in operator.intermediates]
    if operator.options is not None:
        packed.builtinOptions = operator.options
        packed.builtinOptionsType = getattr(schema.BuiltinOptions, type(operator.options).__name__.removesuffix("T"))
    return packed


def _pack_code(builtin: str, version: int) -> Any:
    code = getattr(schema.BuiltinOperator, builtin)
    return schema.OperatorCodeT(deprecatedBuiltinCode=min(code, LAST_BYTE_CODE), builtinCode=code, version=version)
