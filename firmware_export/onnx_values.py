"""What the names of an ONNX file stand for while it is read, and its inputs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from onnx import NodeProto, ValueInfoProto

from firmware_export.graph import Array, Graph, GraphError, Node, Quantization, Tensor
from firmware_export.model_file import shown
from firmware_export.onnx_constants import unsigned
from firmware_export.onnx_layout import onnx_shape, our_shape
from firmware_export.onnx_patterns import REDUCING, WINDOWED, dropped_later, slices_of_gather, two_dimensional
from firmware_export.onnx_qoperator import QOPERATORS, expanded
from firmware_export.onnx_quantization import constant_input, declared_shape
from firmware_export.onnx_shapes import shape_behind
from firmware_export.onnx_tensors import attributes_of, dtype_of

TO_NCHW, TO_NHWC = (0, 3, 1, 2), (0, 2, 3, 1)


class FileValues:
    """The graph in the making, and for each name of the file what it means; tensors by their index in the graph.

    Constants; shapes of the file's inputs and the tensors that they are; stored integers, and which of them are uint8 in the
    file; dequantized values by the tensor that they stand for; pending nodes by what they compute, shapes of that where they
    are known, and tensors made of it. Tensors that a Transpose to [n, h, w, c] made, with what it reads; how many nodes read
    each name.
    """

    def __init__(self) -> None:
        self._graph = Graph([], [], (), ())
        self._constants: dict[str, Array] = {}
        self._file_inputs: dict[str, tuple[int, ...]] = {}
        self._inputs: dict[str, int] = {}
        self._stored: dict[str, int] = {}
        self._unsigned: set[str] = set()
        self._dequantized: dict[str, int] = {}
        self._pending: dict[str, NodeProto] = {}
        self._made: dict[str, int] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._turned: dict[int, int] = {}
        self._readers: Counter[str] = Counter()
        self._count = 0

    def _is_defined(self, name: str) -> bool:
        places = (self._constants, self._file_inputs, self._stored, self._dequantized, self._pending)
        return any(name in place for place in places)

    def _define(self, name: str) -> None:
        """Holds that a name gets one value."""
        if not isinstance(name, str):
            raise GraphError(f"the name '{shown(name)}' is no UTF-8 text; the file is damaged")
        if not name or self._is_defined(name):
            raise GraphError(f"the value '{shown(name)}' is made twice; the file is damaged")

    def _fresh(self, word: str) -> str:
        """A name that nothing has, for a value that the file does not name."""
        self._count += 1
        name = f"{word}/{self._count}"
        return self._fresh(word) if self._is_defined(name) else name

    def _add_tensor(self, tensor: Tensor) -> int:
        self._graph.tensors.append(tensor)
        return len(self._graph.tensors) - 1

    def _add_input(self, value: ValueInfoProto) -> None:
        """A uint8 input is what the model is fed; behind it the graph is int8."""
        self._define(value.name)
        shape = declared_shape(value)
        dtype = dtype_of(value.type.tensor_type.elem_type, value.name)
        if dtype not in ("float32", "int8", "uint8"):
            raise GraphError(f"model input '{shown(value.name)}' is {dtype}; supported: float32, int8 and uint8")
        self._file_inputs[value.name] = shape
        if dtype == "float32":
            return
        fed = self._add_tensor(Tensor(shown(value.name), our_shape(shape), dtype))
        self._inputs[value.name] = self._stored[value.name] = fed
        if dtype == "uint8":
            self._unsigned.add(value.name)
            self._stored[value.name] = self._add_tensor(Tensor(f"{shown(value.name)}/int8", our_shape(shape), "int8"))
            self._graph.nodes.append(Node("quantize", (fed,), (self._stored[value.name],)))

    def _parts(self, node: NodeProto) -> Iterator[NodeProto] | None:
        """The nodes that a node stands for; None for one that is read as it is."""
        first = node.input[0] if node.input else ""
        if node.op_type in QOPERATORS:
            return expanded(node, self._constants, self._fresh)
        if node.op_type == "Gather" and first not in self._constants:
            return slices_of_gather(node, self._constants, self._fresh)
        if node.op_type in WINDOWED and len(self._shape(first) or ()) == 3:
            return two_dimensional(node, self._fresh)
        if node.op_type in REDUCING and (shape := self._shape(first)) is not None and len(shape) >= 4:
            return dropped_later(node, len(shape), self._constants, self._fresh)
        return None

    def _known_shape(self, name: str) -> tuple[int, ...]:
        """The ONNX shape of a value. Raises GraphError where only a QuantizeLinear behind it will tell."""
        shape = self._shape(name)
        if shape is None:
            raise GraphError(f"the shape of '{shown(name)}' is not known before it is quantized; export with fixed shapes")
        return shape

    def _shape(self, name: str) -> tuple[int, ...] | None:
        """The ONNX shape of a value, None if it is not known."""
        if name in self._constants:
            return self._constants[name].shape
        index = self._dequantized.get(name, self._stored.get(name))
        if index is None:
            return self._shapes.get(name, self._file_inputs.get(name))
        tensor = self._graph.tensors[index]
        return tensor.shape if tensor.is_constant else onnx_shape(tensor.shape)

    def _postpone(self, node: NodeProto) -> None:
        """A node that is computed in float until a QuantizeLinear says how it is stored."""
        self._pending |= {name: node for name in node.output if name}
        shape = shape_behind(node, self._shape, self._constants)
        if shape is not None:
            self._shapes[node.output[0]] = shape

    def _give_input(self, name: str, quantization: Quantization) -> None:
        """The scale of an uint8 input, once its int8 values have one."""
        if name in self._inputs and name in self._unsigned:
            fed = self._inputs[name]
            self._graph.tensors[fed] = replace(self._graph.tensors[fed], quantization=unsigned(quantization))

    def _quantized_input(self, name: str, quantization: Quantization) -> int:
        """A float input behind its QuantizeLinear: the graph takes the stored values themselves."""
        if name not in self._inputs:
            tensor = Tensor(shown(name), our_shape(self._file_inputs[name]), "int8", quantization)
            self._inputs[name] = self._add_tensor(tensor)
        return self._inputs[name]

    def _is_nhwc_input(self, index: int, node: NodeProto) -> bool:
        """Whether a tensor is a model input that nothing but this Transpose from [n, h, w, c] reads.

        Then it has our layout in the file already; its shape becomes that of the file, and the Transpose does nothing.
        """
        fed = {name for name, place in self._inputs.items() if index in (place, self._stored.get(name))}
        names = {name for values in (self._stored, self._dequantized) for name, place in values.items() if place == index}
        if not fed or node.op_type != "Transpose" or attributes_of(node).get("perm") != TO_NCHW:
            return False
        if any(self._readers[name] != 1 for name in names | fed):
            return False
        for name in fed:
            for place in {index, self._inputs[name]}:
                self._graph.tensors[place] = replace(self._graph.tensors[place], shape=self._file_inputs[name])
        return True

    def _note_turned(self, node: NodeProto, source: int, output: int) -> None:
        """Remembers an image that a Transpose brings into the order [n, h, w, c] of the file: ours, before it."""
        turns = node.op_type == "Transpose" and attributes_of(node).get("perm") == TO_NHWC
        if turns and source not in self._inputs.values():
            self._turned[output] = source

    def _arguments(self, node: NodeProto) -> list[Array]:
        """The inputs behind the first, which must be constants."""
        return [constant_input(node, place, "argument", self._constants) for place in range(1, len(node.input))]

    def _used_input(self, name: str) -> int:
        if name not in self._inputs or self._graph.tensors[self._inputs[name]].quantization is None:
            raise GraphError(f"model input '{shown(name)}' is never quantized; expected a QuantizeLinear behind it")
        return self._inputs[name]
