"""Int8 .onnx (QDQ or QOperator form) -> Graph. NCHW becomes NHWC with no transpose left. The file is untrusted."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import ModelProto

from firmware_export.activation import UNBOUNDED, Bounds, Clamp, clamp_of
from firmware_export.check import check
from firmware_export.geometry import MAX_WINDOW, same_padding
from firmware_export.graph import ABSENT, Array, Attribute, Graph, GraphError, Node, Quantization, Tensor
from firmware_export.model_file import damage, read_model_bytes
from firmware_export.operators import operator_of

Padding = tuple[int, int, int, int]
MAX_ARGUMENTS = 64
"""Integers of a constant that tells an operator what to do."""
NOT_A_MODEL = "not an ONNX file: {}, nor a .tflite file: no TFL3 at byte 4; export the model again as .tflite or .onnx"
NHWC_FROM_NCHW = (0, 3, 1, 2)
"""ONNX axis -> our axis, of a rank-4 activation."""


@dataclass(frozen=True)
class OnnxMatch:
    """One ONNX operator between DequantizeLinears and a QuantizeLinear, as an operator's `read_onnx` gets it.

    attributes: the ONNX attributes as int, float, str or tuples of them; absent ones are not in it.
    inputs: indexes of the int8/int32 tensors behind the DequantizeLinears (and of constants that are not quantized,
        such as axes); constants have ONNX's layout (OIHW), activations of rank 4 their NHWC shape.
    outputs: indexes of the int8 tensors behind the QuantizeLinear. Their shape is not known yet (it is ()); it is
        filled in with what the node infers.
    place, output_count: which of the operator's outputs this is, and how many it has (Split).
    clamp: real bounds of a Relu or Clip between the operator and the QuantizeLinear; None if there is none.
    opset: the version of ONNX's operators that the file means.
    """

    op_type: str
    attributes: dict[str, Any]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    clamp: Bounds | None
    graph: Graph
    place: int = 0
    output_count: int = 1
    opset: int = 20

    def input(self, place: int) -> Tensor:
        """The tensor at a place of the inputs. Raises GraphError if there is none."""
        if place >= len(self.inputs) or self.inputs[place] == ABSENT:
            raise GraphError(f"input {place} is missing")
        return self.graph.tensors[self.inputs[place]]

    def output(self, place: int = 0) -> Tensor:
        """The tensor at a place of the outputs; its quantization is known, its shape is not."""
        return self.graph.tensors[self.outputs[place]]

    def constant(self, place: int) -> Array:
        """The data of an input that must be a constant. Raises GraphError if it is missing or computed."""
        tensor = self.input(place)
        if tensor.data is None:
            raise GraphError(f"input {place} '{tensor.name}' is computed; expected a constant")
        return tensor.data

    def has(self, place: int) -> bool:
        """Whether there is an input at a place."""
        return place < len(self.inputs) and self.inputs[place] != ABSENT

    def integers(self, place: int) -> tuple[int, ...]:
        """The numbers of an input that must be a constant (axes, sizes). Raises GraphError if it is computed or no numbers."""
        data = self.constant(place)
        if data.dtype.kind != "i" or data.size > MAX_ARGUMENTS:
            raise GraphError(f"input {place} is {data.dtype} {data.shape}; supported: up to {MAX_ARGUMENTS} integers")
        return tuple(int(value) for value in data.reshape(-1).tolist())

    def add_constant(self, name: str, array: Array, quantization: Quantization | None = None) -> int:
        """Adds a constant (weights in our layout) to the graph and returns its index."""
        self.graph.tensors.append(Tensor(name, array.shape, str(array.dtype), quantization, array))
        return len(self.graph.tensors) - 1

    def weights(self) -> Tensor:
        """Input 1 as weights. Raises GraphError unless their zero points are 0: other ones have no exact form here."""
        tensor = self.input(1)
        if tensor.quantization is not None and tensor.quantization.zero_point.any():
            raise GraphError(
                f"the zero points of the weights '{tensor.name}' are not in the middle (0 for int8, 128 for uint8); quantize "
                "weights symmetrically: weight_type=QuantType.QInt8"
            )
        return tensor

    def add(self, node: Node) -> None:
        """Adds a node to the graph and gives its outputs the shapes that it infers. Raises GraphError as its operator does."""
        self.graph.nodes.append(node)
        for index, spec in zip(node.outputs, operator_of(node).infer(self.graph, node), strict=True):
            self.graph.tensors[index] = replace(self.graph.tensors[index], shape=spec.shape, dtype=spec.dtype)

    def ahead(
        self, op: str, inputs: tuple[int, ...], quantization: Quantization | None, attributes: dict[str, Attribute]
    ) -> int:
        """Adds a node before the one that the operator returns; the index of its output, which is stored as given."""
        name = f"{self.output().name}/{op}"
        self.graph.tensors.append(Tensor(name, (), "int8", quantization))
        index = len(self.graph.tensors) - 1
        self.add(Node(op, inputs, (index,), attributes))
        return index

    def restored(self, index: int) -> Node:
        """The node that makes the output of a tensor with another scale, clamped as the operator is."""
        if self.int8_clamp() == (-128, 127):
            return Node("quantize", (index,), self.outputs)
        return Node("relu", (index,), self.outputs, {"clamp": self.int8_clamp()})

    def int8_clamp(self) -> Clamp:
        """The clamp as stored int8 values of the first output; (-128, 127) if there is none."""
        return clamp_of(UNBOUNDED if self.clamp is None else self.clamp, self.output())

    def axis(self, onnx_axis: int, rank: int) -> int:
        """Our axis for an axis of an ONNX activation (negative ones count from the end). Raises GraphError if out of range."""
        if not -rank <= onnx_axis < rank:
            raise GraphError(f"axis {onnx_axis} of a tensor with {rank} dimensions")
        return NHWC_FROM_NCHW[onnx_axis % rank] if rank == 4 else onnx_axis % rank

    def onnx_axes(self, rank: int) -> tuple[int, ...]:
        """The ONNX axis of each of our axes."""
        return (0, 2, 3, 1) if rank == 4 else tuple(range(rank))

    def requantized(self, place: int) -> int:
        """The tensor at a place of the inputs, stored as the output is: itself, or a quantize node's result.

        Operators that move values compute nothing, so their inputs take on the output's scale before.
        """
        x, y = self.input(place), self.output()
        if x.quantization == y.quantization or x.is_constant:
            return self.inputs[place]
        return self.ahead("quantize", (self.inputs[place],), y.quantization, {})

    def window(self, key: str, default: int = 1) -> tuple[int, int]:
        """An attribute with one value for each of h and w, e.g. "strides". Raises GraphError for another count."""
        values = tuple(self.attributes.get(key, (default, default)))
        if len(values) != 2 or min(values) < 1 or max(values) > MAX_WINDOW:
            raise GraphError(f"{key} is {values}; supported: two values (2-D) of 1 to {MAX_WINDOW}")
        return int(values[0]), int(values[1])

    def padding(self, kernel: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int] = (1, 1)) -> Padding:
        """(top, bottom, left, right) from the attributes `pads` or `auto_pad`; the first input is int8 [1, h, w, c].

        Raises:
            GraphError: not two spatial dimensions, negative, an unknown auto_pad, or a kernel_shape that is not `kernel`.
        """
        if tuple(self.attributes.get("kernel_shape", kernel)) != tuple(kernel):
            raise GraphError(
                f"kernel_shape is {self.attributes['kernel_shape']}, the weights have {kernel}; the model is damaged"
            )
        shape, mode = self.input(0).shape, self.attributes.get("auto_pad", "NOTSET")
        pads = tuple(self.attributes.get("pads", (0, 0, 0, 0)))
        if len(shape) != 4 or len(pads) != 4 or min(pads) < 0:
            raise GraphError(f"input {shape}, pads {pads}; supported: 4 dimensions and 4 pads of 0 or more")
        if mode == "VALID":
            return 0, 0, 0, 0
        if mode == "NOTSET":
            return pads[0], pads[2], pads[1], pads[3]
        top, bottom, left, right = same_padding(shape[1:3], kernel, stride, dilation)
        if mode == "SAME_UPPER":
            return top, bottom, left, right
        if mode == "SAME_LOWER":
            return bottom, top, right, left
        raise GraphError(f"auto_pad {mode}; supported: NOTSET, VALID, SAME_UPPER, SAME_LOWER")


def read_onnx(path: Path) -> Graph:
    """Reads an int8 .onnx file in QDQ or QOperator form.

    Raises:
        GraphError: damaged, or something in it is not supported; says what and what to do.
    """
    return read_onnx_bytes(read_model_bytes(path), path.parent)


def read_onnx_bytes(data: bytes, folder: Path | None = None) -> Graph:
    """As read_onnx, from bytes; external data is looked for inside `folder`, None refuses it."""
    from firmware_export.onnx_graph import OnnxReader

    with damage("the file"):
        graph = OnnxReader(parse(data), folder).read()
    check(graph)
    return graph


def parse(data: bytes) -> ModelProto:
    """The protobuf message. Raises GraphError if the bytes are none, or hold no graph."""
    model = ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError:
        raise GraphError(NOT_A_MODEL.format("no protobuf message of ONNX")) from None
    if not model.HasField("graph") or not model.opset_import:
        raise GraphError(NOT_A_MODEL.format("a protobuf message without a graph"))
    return model
