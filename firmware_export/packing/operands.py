"""What every packer takes from a checked node: window, weights, bias, zero point of the input, output stage."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

from firmware_export.graph import Array, Graph, Node
from firmware_export.operators._accumulator import OutputStage, int8_weights, int32_bias
from firmware_export.operators._checks import int8_image
from firmware_export.operators._window import Window
from firmware_export.requantize import Int64

Operands: TypeAlias = tuple[Window, Array, Int64, int, OutputStage]


def conv2d_operands(graph: Graph, node: Node) -> Operands:
    """Window; int8 weights [outputs, kernel h, kernel w, channels]; bias as `sums_of`; zero point; stage."""
    return _operands(graph, node, axis=0)


def depthwise_operands(graph: Graph, node: Node) -> Operands:
    """Window; int8 weights [1, kernel h, kernel w, outputs]; bias as `sums_of`; zero point; stage."""
    return _operands(graph, node, axis=3)


def _operands(graph: Graph, node: Node, axis: int) -> Operands:
    x, weights = int8_image(graph, node), int8_weights(graph, node, rank=4, axis=axis)
    assert weights.data is not None
    outputs = weights.shape[axis]
    window = Window.of(node, x, (weights.shape[1], weights.shape[2]))
    return window, weights.data, sums_of(graph, node, outputs), x.zero_point, OutputStage.of(graph, node, outputs)


def sums_of(graph: Graph, node: Node, outputs: int) -> Int64:
    """The bias int64 [outputs], at the scale of the sums, without the zero point; 0 where there is none."""
    bias = int32_bias(graph, node, outputs)
    return np.zeros(outputs, np.int64) if bias is None else bias.reshape(-1).astype(np.int64)
