"""Another shape for the same bytes (RESHAPE, SQUEEZE, EXPAND_DIMS)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from firmware_export.graph import Array, Graph, GraphError, Node
from firmware_export.operators import Example, LayerCode, Operator, OutputSpec
from firmware_export.operators import _examples as make
from firmware_export.operators._checks import check_counts, int8_input, int8_output, shape_text
from firmware_export.operators._movement import check_outputs, moved_input

if TYPE_CHECKING:
    from firmware_export.read_tflite import TfliteOperator
    from firmware_export.write_tflite import TfliteWriter


class Reshape(Operator):
    """y = x with another shape; no copy where the memory plan gives both the same place.

    Inputs: x int8, any shape. Attributes: shape (all dimensions given). Output: int8 of that shape, scale and zero point of x.
    Moves bytes only, the same in every arithmetic. ONNX's Flatten and Reshape come here through read_onnx.
    """

    name = "reshape"
    tflite = ("RESHAPE", "SQUEEZE", "EXPAND_DIMS")

    def infer(self, graph: Graph, node: Node) -> list[OutputSpec]:
        check_counts(node, (1,))
        x, shape = moved_input(graph, node), node.attributes.get("shape")
        if not isinstance(shape, tuple) or math.prod(shape) != x.elements or any(int(size) < 1 for size in shape):
            raise GraphError(f"shape {shape} for input '{x.name}' {x.shape}; supported: the same number of elements")
        check_outputs(graph, node, x)
        return [OutputSpec(tuple(int(size) for size in shape), x.dtype)]

    def simulate(self, graph: Graph, node: Node, inputs: Sequence[Array | None]) -> list[Array]:
        x = inputs[0]
        assert x is not None
        return [x.reshape(node.integers("shape"))]

    def emit(self, graph: Graph, node: Node) -> LayerCode:
        x, y = int8_input(graph, node), int8_output(graph, node)
        summary = f"{shape_text(x)} -> {shape_text(y)}"
        return LayerCode("nn_reshape", "nn_reshape_params", {"size": str(x.nbytes)}, sources=("reshape.c",), summary=summary)

    def examples(self, rng: np.random.Generator) -> Iterator[Example]:
        for index in range(50):
            sizes = [make.pick(rng, 1, 6) for _ in range(make.pick(rng, 1, 4))]
            joined = [sizes[0] * (sizes[1] if len(sizes) > 1 else 1), *sizes[2:]]
            source, target = ((1, *sizes), (1, *joined)) if index % 2 else ((1, *joined), (1, *sizes))
            quantization = make.random_quantization(rng)
            x = make.activation(source, quantization)
            graph = make.single_node("reshape", (x,), quantization, {"shape": target})
            yield Example(graph, f"{source} -> {target}", make.extreme_inputs(graph))

    def read_tflite(self, op: TfliteOperator) -> Node:
        """The output's shape is the one that counts; the second input and the options only repeat it."""
        return Node(self.name, op.inputs[:1], op.outputs, {"shape": op.output().shape})

    def write_tflite(self, graph: Graph, node: Node, writer: TfliteWriter) -> None:
        shape = np.array(node.integers("shape"), np.int32)
        options = schema.ReshapeOptionsT()
        options.newShape = shape
        writer.add("RESHAPE", (node.inputs[0], writer.add_constant("shape", shape)), node.outputs, options, 1)


OPERATOR = Reshape()
