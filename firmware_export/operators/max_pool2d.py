"""Max pool over int8 images (MAX_POOL_2D, MaxPool, GlobalMaxPool)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from firmware_export.graph import Array, Graph, Node
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
from firmware_export.requantize import INT8_MIN

if TYPE_CHECKING:
    from firmware_export.read_onnx import OnnxMatch
    from firmware_export.read_tflite import TfliteOperator
    from firmware_export.write_tflite import TfliteWriter


class MaxPool2d(Operator):
    """y = clamp(largest x in the part of each window that lies on the image).

    Inputs: x int8 [1, h, w, c].
    Attributes: kernel (h, w), stride (h, w), padding (top, bottom, left, right), clamp (lowest, highest stored value).
    Output: int8 [1, oh, ow, c] with the scale and zero point of x.
    Chooses bytes only, the same in every arithmetic.
    """

    name = "max_pool2d"
    tflite = ("MAX_POOL_2D",)
    onnx = ("MaxPool", "GlobalMaxPool")

    def infer(self, graph: Graph, node: Node) -> list[OutputSpec]:
        return infer_pool(graph, node)

    def simulate(self, graph: Graph, node: Node, inputs: Sequence[Array | None]) -> list[Array]:
        _, window = pool_parts(graph, node)
        x = inputs[0]
        assert x is not None
        largest = window.patches(x.astype(np.int8), INT8_MIN).max((2, 3))
        return [np.clip(largest, *clamp_attribute(node)).astype(np.int8)[np.newaxis]]

    def emit(self, graph: Graph, node: Node) -> LayerCode:
        return pool_code(graph, node, self.name)

    def examples(self, rng: np.random.Generator) -> Iterator[Example]:
        yield from pool_examples(rng, self.name, explicit_padding=True)

    def read_tflite(self, op: TfliteOperator) -> Node:
        return read_tflite_pool(op, self.name)

    def read_onnx(self, match: OnnxMatch) -> Node:
        return read_onnx_pool(match, self.name)

    def write_tflite(self, graph: Graph, node: Node, writer: TfliteWriter) -> None:
        _, window = pool_parts(graph, node)
        x, padding = writer.padded_input(node.inputs[0], window.padding, window.kernel, window.stride, fill=INT8_MIN)
        activation = writer.fused_activation(clamp_attribute(node), node.outputs[0])
        writer.add("MAX_POOL_2D", (x,), node.outputs, write_pool_options(window, padding, activation), 2)


OPERATOR = MaxPool2d()
