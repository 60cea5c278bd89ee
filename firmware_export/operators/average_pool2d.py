"""Average pool over int8 images (AVERAGE_POOL_2D, AveragePool)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from firmware_export.graph import Array, Attribute, Graph, GraphError, Node
from firmware_export.operators import Example, LayerCode, Operator, OutputSpec
from firmware_export.operators._checks import clamp_attribute
from firmware_export.operators._pool import (
    infer_pool,
    pool_code,
    pool_examples,
    pool_parts,
    read_onnx_pool,
    read_tflite_pool,
    write_pool_options,
)  # fmt: skip

if TYPE_CHECKING:
    from firmware_export.read_onnx import OnnxMatch
    from firmware_export.read_tflite import TfliteOperator
    from firmware_export.write_tflite import TfliteWriter


class AveragePool2d(Operator):
    """y = clamp(sum of x / number of pixels, rounded half away from zero), over the part of each window on the image.

    Inputs: x int8 [1, h, w, c].
    Attributes: kernel (h, w), stride (h, w), padding (top, bottom, left, right), clamp (lowest, highest stored value).
    Output: int8 [1, oh, ow, c] with the scale and zero point of x.
    In float32 the same: LiteRT's default rounds so too.
    """

    name = "average_pool2d"
    tflite = ("AVERAGE_POOL_2D",)
    onnx = ("AveragePool",)

    def infer(self, graph: Graph, node: Node) -> list[OutputSpec]:
        return infer_pool(graph, node)

    def simulate(self, graph: Graph, node: Node, inputs: Sequence[Array | None]) -> list[Array]:
        _, window = pool_parts(graph, node)
        x = inputs[0]
        assert x is not None
        sums = window.patches(x.astype(np.int64), 0).sum((2, 3))
        counts = window.patches(np.ones(x.shape, np.int64), 0).sum((2, 3))
        quotients = np.sign(sums) * ((np.abs(sums) + counts // 2) // counts)
        return [np.clip(quotients, *clamp_attribute(node)).astype(np.int8)[np.newaxis]]

    def emit(self, graph: Graph, node: Node) -> LayerCode:
        return pool_code(graph, node, self.name)

    def examples(self, rng: np.random.Generator) -> Iterator[Example]:
        yield from pool_examples(rng, self.name, explicit_padding=False)

    def read_tflite(self, op: TfliteOperator) -> Node:
        return read_tflite_pool(op, self.name)

    def read_onnx(self, match: OnnxMatch) -> Node:
        """AveragePool; over the whole image with another scale a mean, else the average takes on another scale behind it."""
        node = read_onnx_pool(match, self.name)
        padding, x, y = node.integers("padding"), match.input(0), match.output()
        if match.attributes.get("count_include_pad", 0) and any(padding):
            node = _on_padded_image(match, node)
        if x.quantization == y.quantization:
            return node
        if not any(padding) and node.integers("kernel") == x.shape[1:3]:
            return Node("mean", node.inputs, node.outputs, {"axes": (1, 2), "keep_dims": 1, "clamp": match.int8_clamp()})
        average = match.ahead(self.name, node.inputs, x.quantization, {**node.attributes, "clamp": (-128, 127)})
        return match.restored(average)

    def write_tflite(self, graph: Graph, node: Node, writer: TfliteWriter) -> None:
        _, window = pool_parts(graph, node)
        if window.padding_name() not in ("same", "valid"):  # a PAD before it would count into the average
            raise GraphError(
                f"average pool with padding {window.padding}; supported: SAME, VALID, or padding that counts "
                "(count_include_pad=1)"
            )
        padding = schema.Padding.SAME if window.padding_name() == "same" else schema.Padding.VALID
        activation = writer.fused_activation(clamp_attribute(node), node.outputs[0])
        writer.add("AVERAGE_POOL_2D", node.inputs, node.outputs, write_pool_options(window, padding, activation), 2)


def _on_padded_image(match: OnnxMatch, node: Node) -> Node:
    """The pool that counts its padding: on an image with a border of zeros. Raises GraphError with ceil_mode."""
    if match.attributes.get("ceil_mode", 0):
        raise GraphError("AveragePool with count_include_pad and ceil_mode over padding; supported: one of them")
    x = match.input(0)
    border: dict[str, Attribute] = {"paddings": (0, 0, *node.integers("padding"), 0, 0), "value": x.zero_point}
    padded = match.ahead("pad", node.inputs, x.quantization, border)
    return Node(node.op, (padded,), node.outputs, {**node.attributes, "padding": (0, 0, 0, 0)})


OPERATOR = AveragePool2d()
