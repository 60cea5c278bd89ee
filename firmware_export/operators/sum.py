"""Sum of int8 over any axes (SUM, ReduceSum)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from firmware_export.graph import Graph, Node
from firmware_export.operators._reduced_sum import Factor, ReducedSum

if TYPE_CHECKING:
    from firmware_export.write_tflite import TfliteWriter


class Sum(ReducedSum):
    """y = clamp(requantize(sum of (x - zero point))); the requantisation's factor is the ratio of the scales.

    Inputs: x int8, any shape.
    Attributes: axes (ascending), keep_dims 0 or 1, clamp (optional: lowest, highest stored value).
    Output: int8, x without the axes, or with size 1 there. Source: reference/reduce.h, QuantizedMeanOrSum.
    In float32 the same: XNNPACK's sums of rows and columns round as the machine's instructions do, fused or not.
    """

    name = "sum"
    tflite = ("SUM",)
    onnx = ("ReduceSum",)
    example_spread = 4.0

    def folded(self, factor: Factor) -> Factor:
        return factor

    def write_tflite(self, graph: Graph, node: Node, writer: TfliteWriter) -> None:
        self.write_without_clamp("SUM", graph, node, writer)


OPERATOR = Sum()
