"""Mean of int8 over any axes; global average pool is the mean over h and w (MEAN, GlobalAveragePool, ReduceMean)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from firmware_export.graph import Graph, Node
from firmware_export.operators._reduced_sum import Factor, ReducedSum

if TYPE_CHECKING:
    from firmware_export.write_tflite import TfliteWriter


class Mean(ReducedSum):
    """y = clamp(requantize(sum of (x - zero point))); the requantisation's factor is scale ratio / count.

    The factor is folded as TFLite does it (reference/reduce.h, QuantizedMeanOrSum): the Q31 multiplier of the ratio is
    shifted up by floor(log2 count) (at most 32, and so that the final shift is not below -31) and divided by count.

    Inputs: x int8, any shape.
    Attributes: axes (ascending), keep_dims 0 or 1, clamp (optional: lowest, highest stored value).
    Output: int8, x without the axes, or with size 1 there.
    In float32 the same: XNNPACK's sums of rows and columns round as the machine's instructions do, fused or not.
    """

    name = "mean"
    tflite = ("MEAN",)
    onnx = ("GlobalAveragePool", "ReduceMean")
    example_spread = 1.0

    def folded(self, factor: Factor) -> Factor:
        up = min(factor.count.bit_length() - 1, 32, 31 + factor.shift)
        return Factor((factor.multiplier << up) // factor.count, factor.shift - up, factor.count, factor.zero_point)

    def write_tflite(self, graph: Graph, node: Node, writer: TfliteWriter) -> None:
        self.write_without_clamp("MEAN", graph, node, writer)


OPERATOR = Mean()
