"""Operators: one file each here, one C file of the same name in runtime/. Dropping both in is the whole change.

Every module of this folder (names starting with "_" aside) holds one `OPERATOR`. What an operator answers for:
reading its TFLite and ONNX form, checking and inferring shapes, exact simulation, its C call, and example graphs
on which all of that is compared bit for bit.
"""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from firmware_export.graph import Array, Graph, GraphError, Node

if TYPE_CHECKING:
    from firmware_export.read_onnx import OnnxMatch
    from firmware_export.read_tflite import TfliteOperator
    from firmware_export.write_tflite import TfliteWriter


@dataclass(frozen=True)
class Constant:
    """An array for network_data.c.

    suffix: end of the C identifier, `<network>_<layer index>_<suffix>`, e.g. "weights".
    data: int8, uint8, int16, uint16, int32, uint32 or float32; its dtype gives the C type. Flattened in C order.
    """

    suffix: str
    data: Array


@dataclass(frozen=True)
class LayerCode:
    """What the emitter needs for one node.

    function: the C function, `nn_<operator>`; it is called as function(&params, activation inputs in node order...,
        outputs in order..., scratch); scratch only when scratch_bytes > 0; all pointers are void or int8_t pointers.
        "" where the memory plan has left nothing to do.
    params_type: its parameter struct.
    fields: C field name -> initializer text; the name of a Constant's suffix in {braces} is replaced by its identifier.
    sources: the C files of runtime/ that must be compiled for it.
    distances: for each activation input, bytes by which output 0 must begin before it at least where the two overlap;
        negative: it may begin behind; None or missing: they must not overlap this way.
    in_place: for each activation input, whether output 0 may lie exactly where it lies.
    scratch_distances: as distances, for the scratch in place of the output; the input is lost then.
    instructions: about how many one call executes, to choose between kernels; 0: not known.
    """

    function: str
    params_type: str
    fields: dict[str, str]
    constants: tuple[Constant, ...] = ()
    sources: tuple[str, ...] = ()
    scratch_bytes: int = 0
    summary: str = ""
    """For the layer's comment: e.g. "3x3 s1 same, 16x16x8 -> 16x16x16"."""
    distances: tuple[int | None, ...] = ()
    in_place: tuple[bool, ...] = ()
    scratch_distances: tuple[int | None, ...] = ()
    instructions: int = 0


@dataclass(frozen=True)
class OutputSpec:
    """What `infer` says of one output."""

    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Example:
    """A graph on which an operator is compared, and why it is there ("stride 2, zero point -128")."""

    graph: Graph
    label: str
    inputs: tuple[Array, ...] = field(default=())
    """Inputs worth running (saturation, ties); random ones are added by the tests."""


class Operator(ABC):
    """The interface of one operator. Attributes and tensor order are documented in the operator's class docstring."""

    name: ClassVar[str]
    """Same as the module and the C file."""
    tflite: ClassVar[tuple[str, ...]] = ()
    """Builtin operator names that this operator reads, e.g. ("CONV_2D",)."""
    onnx: ClassVar[tuple[str, ...]] = ()
    """ONNX operator types that this operator reads between DequantizeLinear and QuantizeLinear."""

    @abstractmethod
    def infer(self, graph: Graph, node: Node) -> list[OutputSpec]:
        """Shapes and types of the outputs from the inputs and attributes.

        Raises:
            GraphError: inputs, types or attributes are not what the operator takes: "got X, supported Y".
        """

    @abstractmethod
    def simulate(self, graph: Graph, node: Node, inputs: Sequence[Array | None]) -> list[Array]:
        """The outputs for one image, exactly as the board computes them. `inputs` in node order, constants included."""

    @abstractmethod
    def emit(self, graph: Graph, node: Node) -> LayerCode:
        """The C call, its parameters and constants."""

    @abstractmethod
    def examples(self, rng: np.random.Generator) -> Iterator[Example]:
        """Small graphs that show every option; at least 50, the seed decides the random ones."""

    def macs(self, graph: Graph, node: Node) -> int:
        """Multiply-accumulates of one inference."""
        return 0

    def litert_default(self, graph: Graph, node: Node) -> bool:
        """Whether LiteRT's default kernels compute this node as the arithmetic float32 does; else TFLite Micro does."""
        return True

    def read_tflite(self, op: TfliteOperator) -> Node:
        """A node from a TFLite operator (see read_tflite.TfliteOperator). Raises GraphError for what is not supported."""
        raise GraphError(f"{op.builtin} cannot be read from a TFLite file")

    def read_onnx(self, match: OnnxMatch) -> Node:
        """A node from a matched ONNX pattern (see read_onnx.OnnxMatch). Raises GraphError for what is not supported."""
        raise GraphError(f"{match.op_type} cannot be read from an ONNX file")

    def write_tflite(self, graph: Graph, node: Node, writer: TfliteWriter) -> None:
        """Adds the node to a TFLite file (see write_tflite.TfliteWriter)."""
        raise GraphError(f"{self.name} cannot be written to a TFLite file")


@cache
def registry() -> dict[str, Operator]:
    """Every operator by name, found by looking into this folder."""
    found: dict[str, Operator] = {}
    for module in sorted(m.name for m in pkgutil.iter_modules(__path__)):
        if not module.startswith("_"):
            operator = importlib.import_module(f"{__name__}.{module}").OPERATOR
            assert isinstance(operator, Operator) and operator.name == module, module
            found[module] = operator
    return found


def operator_of(node: Node) -> Operator:
    """The operator of a node. Raises GraphError when there is none of that name."""
    try:
        return registry()[node.op]
    except KeyError:
        raise GraphError(f"unknown operator '{node.op}'; supported: {', '.join(sorted(registry()))}") from None
