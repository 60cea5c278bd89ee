"""Leaky ReLU, int8, bit-equal to TFLite (LEAKY_RELU, LeakyRelu)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema

from firmware_export.graph import Graph, GraphError, Node, Quantization
from firmware_export.operators import Example
from firmware_export.operators import _examples as make
from firmware_export.operators._accumulator import check_shift
from firmware_export.operators._checks import int8_input, int8_output
from firmware_export.operators._lookup import EVERY_INT8, EVERY_VALUE, Lookup, lookup_example
from firmware_export.operators._xnnpack import CONVERSION_RANGE, conversion_factor
from firmware_export.requantize import Float64, quantize_multiplier, requantize, to_int8

if TYPE_CHECKING:
    from firmware_export.read_onnx import OnnxMatch
    from firmware_export.read_tflite import TfliteOperator
    from firmware_export.write_tflite import TfliteWriter

FLOAT32_MAX = float(np.finfo(np.float32).max)
ONNX_ALPHA = 0.01
"""ONNX's default slope."""


class LeakyRelu(Lookup):
    """y = x where x >= 0, else alpha * x.

    Inputs: x int8, any shape. Attributes: alpha, finite, may be negative. Output: int8 of that shape.
    Source: QuantizeLeakyRelu in tensorflow/lite/kernels/internal/reference/leaky_relu.h; both factors are float32 there.
    In float32: both factors in steps of 1/256 as XNNPACK, LiteRT's default, has them; the rule of double where it refuses them.
    """

    name = "leaky_relu"
    tflite = ("LEAKY_RELU",)
    onnx = ("LeakyRelu",)

    def results(self, graph: Graph, node: Node) -> npt.NDArray[np.int8]:
        x, y, alpha = int8_input(graph, node), int8_output(graph, node), _alpha(node)
        with np.errstate(over="ignore", under="ignore"):
            ratio = np.float32(x.scale) / np.float32(y.scale)
            sloped = np.float32(x.scale) * np.float32(alpha) / np.float32(y.scale)
        real = np.array([ratio, abs(sloped)], np.float64)
        if not np.all(np.isfinite(real)):
            raise GraphError(f"leaky relu from scale {x.scale:g} to {y.scale:g}; supported: ratios below 2^30")
        (above, above_shift), (below, below_shift) = _factors(graph.arithmetic, real, float(sloped))
        centred = EVERY_INT8 - x.zero_point
        negative = requantize(centred, below, below_shift)
        scaled = np.where(centred >= 0, requantize(centred, above, above_shift), negative)
        return to_int8(scaled, y.zero_point, make.NO_CLAMP)

    def examples(self, rng: np.random.Generator) -> Iterator[Example]:
        x = Quantization.per_tensor(0.0625, 3)
        for alpha in (0.0, 0.01, 0.1, 0.25, 0.5, 1.0, 1.5, -0.3, -1.0, 1e-12, 40.0):
            yield _example(EVERY_VALUE, x, x, alpha, f"alpha {alpha:g}")
        for zero_point in (-128, 127):
            y = Quantization.per_tensor(0.0625, zero_point)
            yield _example(EVERY_VALUE, y, y, 0.2, f"zero points {zero_point}")
        for before, after in ((0.5, 1e-4), (1e-4, 0.5), (0.25, 0.5), (1.0, 1.0)):
            x, y = Quantization.per_tensor(before, -5), Quantization.per_tensor(after, -5)
            yield _example(EVERY_VALUE, x, y, 0.3, f"to scale {after:g}")
        for index in range(45):
            x, y = make.random_quantization(rng), make.random_quantization(rng)
            if index % 3:
                ratio = float(x.scale[0]) * 2.0 ** rng.uniform(-1, 2)
                y = Quantization.per_tensor(float(np.float32(ratio)), int(y.zero_point[0]))
            shape = EVERY_VALUE if index % 8 else (1, *(make.pick(rng, 1, 6) for _ in range(make.pick(rng, 1, 4))))
            yield _example(shape, x, y, float(np.float32(rng.uniform(-0.2, 1))), f"random {index}")

    def read_tflite(self, op: TfliteOperator) -> Node:
        return Node(self.name, op.inputs, op.outputs, {"alpha": float(op.options_as(schema.LeakyReluOptionsT).alpha)})

    def read_onnx(self, match: OnnxMatch) -> Node:
        return Node(self.name, match.inputs, match.outputs, {"alpha": float(match.attributes.get("alpha", ONNX_ALPHA))})

    def write_tflite(self, graph: Graph, node: Node, writer: TfliteWriter) -> None:
        options = schema.LeakyReluOptionsT()
        options.alpha = _alpha(node)
        writer.add("LEAKY_RELU", node.inputs, node.outputs, options, 2)


def _factors(arithmetic: str, real: Float64, sloped: float) -> tuple[tuple[int, int], tuple[int, int]]:
    """Multiplier and shift above zero and below it. Raises GraphError for factors that are too large."""
    if arithmetic == "float32":
        above, below = conversion_factor(float(real[0])), conversion_factor(sloped)
        if above is not None and below is not None and sloped > -CONVERSION_RANGE[1]:
            return above, below
    multipliers, shifts = quantize_multiplier(real)
    check_shift(shifts, real)
    slope = int(multipliers[1]) * (-1 if sloped < 0 else 1)
    return (int(multipliers[0]), int(shifts[0])), (slope, int(shifts[1]))


def _alpha(node: Node) -> float:
    """The slope as the float32 that files hold. Raises GraphError for none, NaN and infinity."""
    alpha = node.attributes.get("alpha")
    if not isinstance(alpha, float | int) or not abs(alpha) <= FLOAT32_MAX:
        raise GraphError(f"leaky relu with alpha {alpha}; supported: finite numbers")
    return float(np.float32(alpha))


def _example(shape: tuple[int, ...], x: Quantization, y: Quantization, alpha: float, label: str) -> Example:
    return lookup_example("leaky_relu", shape, x, y, label, {"alpha": float(np.float32(alpha))})


OPERATOR = LeakyRelu()
