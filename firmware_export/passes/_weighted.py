"""Layers of weights as the analysis of channels sees them: conv2d, fully_connected, depthwise_conv2d.

The first two are one matrix [outputs, columns]; column k reads channel k % c of the input's c channels, whatever tap it is of.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from firmware_export.check import ARITHMETICS
from firmware_export.graph import Array, Graph, GraphError, Node, Tensor
from firmware_export.operators._accumulator import OutputStage, int32_bias
from firmware_export.operators._checks import clamp_attribute
from firmware_export.operators._window import Window
from firmware_export.requantize import Int64

T = TypeVar("T")
Mask = npt.NDArray[np.bool_]

DENSE = ("conv2d", "fully_connected")
DEPTHWISE = "depthwise_conv2d"
WEIGHTED = (*DENSE, DEPTHWISE)
SAFE_SUM = 2**31 - 2**9
"""Sums up to here, times what the requantisation shifts them left, and with a zero point, stay in int32."""


@dataclass(frozen=True)
class Interval:
    """Lowest and highest value that each element can have: two arrays of the tensor's shape, low <= high."""

    low: Array
    high: Array

    @property
    def constant(self) -> Mask:
        """Which elements have one value whatever the model's inputs are."""
        found: Mask = self.low == self.high
        return found


@dataclass(frozen=True)
class SumFacts:
    """What is known of a weighted layer's products and sums before they are made.

    fixed: bool [columns]: columns (of a depthwise layer: none) that see one value in every window, the padding's included.
    values: int64 [columns]: that value less the zero point, 0 where not fixed.
    constant: bool [outputs]: outputs that are one number at every place. sums: int64 [outputs]: a sum that gives it.
    """

    fixed: Mask
    values: Int64
    constant: Mask
    sums: Int64


def in_every_arithmetic(graph: Graph, compute: Callable[[Graph], T]) -> list[T]:
    """The results under every arithmetic: what holds must hold in all. One that does not take the model's scales is left out,
    unless it is the graph's own: nobody can export the model with it."""
    found = [compute(graph)]
    for name in ARITHMETICS:
        if name != graph.arithmetic:
            with suppress(GraphError):
                found.append(compute(graph.with_arithmetic(name)))
    return found


def weights_of(graph: Graph, node: Node) -> Array:
    """int8 [outputs, columns]; of a depthwise layer [taps, outputs]."""
    data = graph.tensors[node.inputs[1]].data
    assert data is not None  # operators take constant weights only
    return data.reshape(-1, data.shape[-1]) if node.op == DEPTHWISE else data.reshape(data.shape[0], -1)


def bias_of(graph: Graph, node: Node, outputs: int) -> Int64:
    """int64 [outputs]; zeros where there is none."""
    bias = int32_bias(graph, node, outputs)
    return np.zeros(outputs, np.int64) if bias is None else bias.reshape(-1).astype(np.int64)


def weighted_layer(graph: Graph, node: Node, x: Interval) -> tuple[Interval, SumFacts]:
    """The reachable outputs of a weighted layer, and what is known of its sums.

    Interval arithmetic: each product at its lowest and at its highest, exact where the elements of x are independent. The
    requantisation is monotone, so the ends of a sum give the ends of the output, in every arithmetic that there is.
    """
    view = [_seen(graph, node, values) for values in (x.low, x.high)]
    low, high = _sum_ends(graph, node, view[0], view[1])
    outputs = low.shape[1]
    safe = _safe(graph, node, low, high)
    interval = _stored(graph, node, low, high, safe)
    same = (interval.low == interval.low[:1]).all(0) & interval.constant.all(0)
    fixed = np.zeros(weights_of(graph, node).shape[1], np.bool_)
    if node.op != DEPTHWISE and bool(safe.all()):
        fixed = (view[0] == view[1]).all(0) & (view[0] == view[0][:1]).all(0)
    facts = SumFacts(fixed, np.where(fixed, view[0][0] if fixed.any() else 0, 0).astype(np.int64), same & safe, low[0])
    shape = graph.tensors[node.outputs[0]].shape
    assert outputs == shape[-1]
    shaped = Interval(interval.low.reshape(shape), interval.high.reshape(shape))
    return shaped, facts if _folds(graph, node, facts) else _nothing_fixed(facts)


def _seen(graph: Graph, node: Node, values: Array) -> npt.NDArray[np.float64]:
    """x less its zero point, 0 outside the image, as the windows see it: [windows, columns], depthwise [windows, taps, c]."""
    x = graph.tensors[node.inputs[0]]
    centred = values.astype(np.float64) - x.zero_point
    if node.op == "fully_connected":
        return centred.reshape(-1, weights_of(graph, node).shape[1])
    patches = window_of(graph, node).patches(centred, 0)
    shape = (-1, patches.shape[2] * patches.shape[3], patches.shape[4])
    return patches.reshape(shape) if node.op == DEPTHWISE else patches.reshape(-1, shape[1] * shape[2])


def window_of(graph: Graph, node: Node) -> Window:
    """The window of a convolution."""
    weights = graph.tensors[node.inputs[1]]
    return Window.of(node, graph.tensors[node.inputs[0]], (weights.shape[1], weights.shape[2]))


def _sum_ends(graph: Graph, node: Node, low: npt.NDArray[np.float64], high: npt.NDArray[np.float64]) -> tuple[Int64, Int64]:
    """Lowest and highest sums [windows, outputs]: half the sum of the products' ends, and half their distance around it."""
    weights = weights_of(graph, node).astype(np.float64)
    if node.op == DEPTHWISE:
        taps = weights.reshape(weights.shape[0], low.shape[2], -1)
        middle = np.einsum("ptc,tcm->pcm", low + high, taps).reshape(low.shape[0], -1)
        reach = np.einsum("ptc,tcm->pcm", high - low, np.abs(taps)).reshape(low.shape[0], -1)
    else:
        middle, reach = (low + high) @ weights.T, (high - low) @ np.abs(weights).T
    bias = bias_of(graph, node, middle.shape[1])
    # float64 holds every sum exactly; both are even together
    return ((middle - reach) / 2).astype(np.int64) + bias, ((middle + reach) / 2).astype(np.int64) + bias


def _safe(graph: Graph, node: Node, low: Int64, high: Int64) -> Mask:
    """bool [outputs]: whether nothing can wrap around, neither the sums nor what the requantisation shifts left."""
    x, y, weights = (graph.tensors[index] for index in (node.inputs[0], node.outputs[0], node.inputs[1]))
    largest = np.maximum(np.abs(low), np.abs(high)).max(0).astype(np.float64)
    shifted = largest * np.maximum(1.0, 2.0 * x.scale * _weight_scales(weights) / y.scale)
    safe: Mask = shifted < SAFE_SUM
    return safe


def _weight_scales(weights: Tensor) -> npt.NDArray[np.float64]:
    assert weights.quantization is not None  # operators take quantized weights only
    return weights.quantization.scale.astype(np.float64)


def _stored(graph: Graph, node: Node, low: Int64, high: Int64, safe: Mask) -> Interval:
    """The stored values of the sums' ends [windows, outputs] in every arithmetic; any value in the clamp where not safe."""
    stages = in_every_arithmetic(graph, lambda view: OutputStage.of(view, node, low.shape[1]))
    clamp = clamp_attribute(node)
    lowest = np.minimum.reduce([stage.apply(low) for stage in stages])
    highest = np.maximum.reduce([stage.apply(high) for stage in stages])
    return Interval(
        np.where(safe, lowest, np.int8(clamp[0])).astype(np.int8), np.where(safe, highest, np.int8(clamp[1])).astype(np.int8)
    )


def _folds(graph: Graph, node: Node, facts: SumFacts) -> bool:
    """Whether every bias that is not replaced by a constant sum stays in int32 whichever fixed columns are added to it."""
    if not facts.fixed.any():
        return True
    weights = weights_of(graph, node).astype(np.int64)
    most = np.abs(bias_of(graph, node, weights.shape[0])) + np.abs(weights * facts.values).sum(1)
    return int(most[~facts.constant].max(initial=0)) < SAFE_SUM


def _nothing_fixed(facts: SumFacts) -> SumFacts:
    return SumFacts(np.zeros_like(facts.fixed), np.zeros_like(facts.values), facts.constant, facts.sums)
