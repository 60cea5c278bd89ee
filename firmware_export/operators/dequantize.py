"""Stored bytes as real numbers (DEQUANTIZE): float32 outputs of a model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from firmware_export.c_text import c_float
from firmware_export.graph import Array, Graph, Node, Quantization, Tensor
from firmware_export.operators import Example, LayerCode, Operator, OutputSpec
from firmware_export.operators import _examples as make
from firmware_export.operators._checks import check_counts, shape_text
from firmware_export.operators._edges import BYTES, edge_tensor, signed_zero_point

if TYPE_CHECKING:
    from firmware_export.read_tflite import TfliteOperator
    from firmware_export.write_tflite import TfliteWriter


class Dequantize(Operator):
    """y = scale of x * (x - zero point of x), rounded once to float32.

    Inputs: x int8 or uint8, any shape. Attributes: none. Output: float32, the shape of x, no scale.
    Source: tensorflow/lite/kernels/internal/reference/dequantize.h; its product in double is exact before it is rounded.
    In float32 the same.
    """

    name = "dequantize"
    tflite = ("DEQUANTIZE",)

    def infer(self, graph: Graph, node: Node) -> list[OutputSpec]:
        check_counts(node, (1,))
        edge_tensor(graph, node.outputs[0], "output", ("float32",))
        return [OutputSpec(_input(graph, node).shape, "float32")]

    def simulate(self, graph: Graph, node: Node, inputs: Sequence[Array | None]) -> list[Array]:
        x, values = _input(graph, node), inputs[0]
        assert values is not None
        return [(np.float64(x.scale) * (values.astype(np.float64) - x.zero_point)).astype(np.float32)]

    def emit(self, graph: Graph, node: Node) -> LayerCode:
        x = _input(graph, node)
        flip = "0x80u" if x.dtype == "uint8" else "0u"
        fields = {"size": str(x.elements), "scale": c_float(x.scale), "zero_point": str(signed_zero_point(x)), "flip": flip}
        summary = f"{x.dtype} -> float32, {shape_text(x)}"
        return LayerCode("nn_dequantize", "nn_dequantize_params", fields, (), ("dequantize.c",), summary=summary)

    def examples(self, rng: np.random.Generator) -> Iterator[Example]:
        for index in range(50):
            dtype = BYTES[index % 2]
            shape = (1, *(make.pick(rng, 1, 9) for _ in range(make.pick(rng, 1, 3))))
            x = Tensor("x", shape, dtype, make.as_type(make.random_quantization(rng), dtype))
            yield Example(_graph(x), f"{dtype} {index}")
        for index, scale in enumerate((1e-38, 3e-41, 1e36, 1 / 3, 1 / 256)):
            every = np.arange(256).astype(np.uint8).reshape(1, 256)
            x = Tensor("x", every.shape, "uint8", Quantization.per_tensor(scale, (0, 255, 128, 3, 0)[index]))
            yield Example(_graph(x), f"every value, scale {scale}", (every,))

    def read_tflite(self, op: TfliteOperator) -> Node:
        return Node(self.name, op.inputs, op.outputs)

    def write_tflite(self, graph: Graph, node: Node, writer: TfliteWriter) -> None:
        writer.add("DEQUANTIZE", node.inputs, node.outputs, schema.DequantizeOptionsT(), 2)


def _input(graph: Graph, node: Node) -> Tensor:
    return edge_tensor(graph, node.inputs[0], "input 0", BYTES)


def _graph(x: Tensor) -> Graph:
    return Graph([x, Tensor("y", x.shape, "float32")], [Node("dequantize", (0,), (1,))], (0,), (1,))


OPERATOR = Dequantize()
