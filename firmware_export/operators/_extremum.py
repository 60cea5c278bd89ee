"""What minimum and maximum share: stored values are compared as they are, so that all have one scale and zero point."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema

from firmware_export.graph import Attribute, Graph, GraphError, Node, Quantization, Tensor
from firmware_export.operators import Example
from firmware_export.operators import _examples as make
from firmware_export.operators._broadcast import Elementwise, broadcast_examples, elementwise_example
from firmware_export.operators._checks import int8_operand, int8_output, same_quantization
from firmware_export.requantize import Int64

if TYPE_CHECKING:
    from firmware_export.read_onnx import OnnxMatch
    from firmware_export.read_tflite import TfliteOperator
    from firmware_export.write_tflite import TfliteWriter


class Extremum(Elementwise):
    """One of two stored values."""

    @abstractmethod
    def choose(self, a: Int64, b: Int64) -> npt.NDArray[np.int8]:
        """The results of broadcast stored values."""

    def combine(self, graph: Graph, node: Node, a: Int64, b: Int64) -> npt.NDArray[np.int8]:
        for place in range(2):
            same_quantization(int8_operand(graph, node, place), int8_output(graph, node))
        return self.choose(a, b)

    def fields(self, graph: Graph, node: Node) -> dict[str, str]:
        return {}

    def examples(self, rng: np.random.Generator) -> Iterator[Example]:
        def _build(a: Tensor, b: Tensor, label: str) -> Example:
            assert a.quantization is not None
            return elementwise_example(self.name, a, b, a.quantization, label)

        def _quantizations() -> tuple[Quantization, Quantization]:
            quantization = make.random_quantization(rng)
            return quantization, quantization

        yield from broadcast_examples(rng, _quantizations, _build)

    def read_tflite(self, op: TfliteOperator) -> Node:
        return Node(self.name, op.inputs, op.outputs)

    def onnx_attributes(self, match: OnnxMatch) -> dict[str, Attribute]:
        if len(match.inputs) != 2:
            raise GraphError(f"{match.op_type} of {len(match.inputs)} inputs; supported: 2")
        return {}

    def write_tflite(self, graph: Graph, node: Node, writer: TfliteWriter) -> None:
        writer.add(self.tflite[0], node.inputs, node.outputs, schema.MaximumMinimumOptionsT(), 2)
