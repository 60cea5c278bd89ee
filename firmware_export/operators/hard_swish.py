"""Hard swish, int8, bit-equal to TFLite's 16-bit fixed point (HARD_SWISH, HardSwish)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from firmware_export.activation import clamp_of
from firmware_export.graph import Graph, GraphError, Node, Quantization, Tensor
from firmware_export.operators import Example
from firmware_export.operators._checks import int8_input, int8_output
from firmware_export.operators._lookup import EVERY_INT8, EVERY_VALUE, Lookup, lookup_example, random_lookups
from firmware_export.requantize import Int64, quantize_multiplier, rounding_divide_by_pot, to_int8

if TYPE_CHECKING:
    from firmware_export.read_onnx import OnnxMatch
    from firmware_export.read_tflite import TfliteOperator
    from firmware_export.write_tflite import TfliteWriter

HEADROOM_BITS = 7
"""Inputs are raised by this much: 9 bits of difference fill 16."""
INT16_MIN, INT16_MAX = -(1 << 15), (1 << 15) - 1
EXPONENTS = range(-15, 32)
"""What the reference can shift 16-bit values by."""


class HardSwish(Lookup):
    """y = x * min(max(x + 3, 0), 6) / 6, in 16-bit fixed point.

    Inputs: x int8, any shape, at a scale above 2e-07 that is 1/512 to 128 times the output's. Attributes: none.
    Output: int8 of that shape.
    Source: tensorflow/lite/kernels/internal/reference/hard_swish.h and HardSwishPrepare.
    In float32 the same: XNNPACK leaves it to this kernel of LiteRT.
    """

    name = "hard_swish"
    tflite = ("HARD_SWISH",)
    onnx = ("HardSwish", "HardSigmoid")

    def results(self, graph: Graph, node: Node) -> npt.NDArray[np.int8]:
        x, y = int8_input(graph, node), int8_output(graph, node)
        output, output_exponent, gate, gate_exponent = _factors(x, y)
        raised = (EVERY_INT8 - x.zero_point) << HEADROOM_BITS
        opened = _open(raised, gate, gate_exponent)
        product = opened * _high_mul16(raised, output)
        halved = np.where(product < 0, -(-product >> 15), product >> 15)  # rounds towards zero, as the reference does
        values = rounding_divide_by_pot(halved, -output_exponent)
        return to_int8(values, y.zero_point, (-128, 127))

    def examples(self, rng: np.random.Generator) -> Iterator[Example]:
        pairs = [(0.05, 0.05), (0.05, 0.03), (0.0625, 0.0625), (6 / 255, 4 / 255), (1e-3, 1e-3), (1e-3, 1e-5), (1.0, 0.25)]
        pairs += [(100.0, 50.0), (0.05, 25.0), (2e-7, 2e-7), (3.0, 3.0)]
        for place, (before, after) in enumerate(pairs):
            x, y = (
                Quantization.per_tensor(float(np.float32(s)), z) for s, z in ((before, 3 - place), (after, 5 * place - 100))
            )
            yield lookup_example(self.name, EVERY_VALUE, x, y, f"scales {before:g} and {after:g}")
        for zero_point in (-128, 127):
            x = Quantization.per_tensor(0.0234375, zero_point)
            yield lookup_example(self.name, EVERY_VALUE, x, x, f"zero points {zero_point}")
        outputs = tuple(Quantization.per_tensor(float(np.float32(s)), z) for s, z in ((0.02, -110), (0.05, 0), (0.3, -128)))
        yield from random_lookups(self.name, rng, outputs)

    def read_tflite(self, op: TfliteOperator) -> Node:
        return Node(self.name, op.inputs, op.outputs)

    def read_onnx(self, match: OnnxMatch) -> Node:
        """HardSwish; HardSigmoid becomes a sum with a clamp and a product, for TFLite has no such operator."""
        return Node(self.name, match.inputs, match.outputs) if match.op_type == "HardSwish" else _hard_sigmoid(match)

    def write_tflite(self, graph: Graph, node: Node, writer: TfliteWriter) -> None:
        writer.add("HARD_SWISH", node.inputs, node.outputs, None, 1)


def _hard_sigmoid(match: OnnxMatch) -> Node:
    """clip(alpha * x + beta, 0, 1) as alpha * clip(x + beta / alpha, 0, 1 / alpha): the sum is stored as the result is, its
    scale divided by alpha, so that the product changes no stored value."""
    alpha, beta = float(match.attributes.get("alpha", 0.2)), float(match.attributes.get("beta", 0.5))
    y = match.output()
    if not alpha > 0 or not math.isfinite(beta / alpha) or y.quantization is None:
        raise GraphError(f"HardSigmoid with alpha {alpha:g}, beta {beta:g}; supported: alpha above 0")
    wide = Quantization.per_tensor(y.scale / alpha, y.zero_point)
    clamp = clamp_of((0.0, 1 / alpha), replace(y, quantization=wide))
    total = match.ahead("add", (match.inputs[0], _number(match, beta / alpha)), wide, {"clamp": clamp})
    return Node("mul", (total, _number(match, alpha)), match.outputs, {"clamp": match.int8_clamp()})


def _number(match: OnnxMatch, value: float) -> int:
    """A constant whose one stored value is the sign, and whose scale is the size."""
    scale = float(np.float32(abs(value))) or 1.0
    return match.add_constant("number", np.full((1,), np.sign(value), np.int8), Quantization.per_tensor(scale, 0))


def _factors(x: Tensor, y: Tensor) -> tuple[int, int, int, int]:
    """16-bit multiplier and exponent of the raised input to the output, and to steps of 3 / 2^15. float32, as there.

    Raises:
        GraphError: a factor that the reference does not take.
    """
    raised = np.float32(1 / 128) * np.float32(x.scale)
    with np.errstate(over="ignore", under="ignore"):
        real = np.array([raised / np.float32(y.scale), raised / np.float32(3 / 32768)], np.float64)
    multipliers, exponents = quantize_multiplier(np.where(np.isfinite(real), real, 0))
    if exponents[0] > 0 or any(exponent not in EXPONENTS for exponent in exponents.tolist()) or not multipliers.all():
        raise GraphError(
            f"hard swish from scale {x.scale:g} to {y.scale:g}; "
            "supported: input scales above 2e-07 that are 1/512 to 128 times the output's"
        )
    rounded = np.minimum((multipliers + (1 << 15)) >> 16, INT16_MAX)
    return int(rounded[0]), int(exponents[0]), int(rounded[1]), int(exponents[1])


def _open(raised: Int64, multiplier: int, exponent: int) -> Int64:
    """(x + 3) / 6 in Q0.15, between 0 and 1; the last bit of a left shift goes behind the multiplication."""
    value = raised
    if exponent > 0:
        value = _saturated(value << (exponent - 1))
    value = _high_mul16(value, multiplier)
    if exponent > 0:
        value = _saturated(value << 1)
    if exponent < 0:
        value = rounding_divide_by_pot(value, -exponent)
    return (value + (1 << 15)) >> 1


def _saturated(x: Int64) -> Int64:
    return np.clip(x, INT16_MIN, INT16_MAX)


def _high_mul16(x: Int64, multiplier: int) -> Int64:
    """gemmlowp's SaturatingRoundingDoublingHighMul of 16 bits: round(x * multiplier / 2^15), halves up."""
    return (x * multiplier + (1 << 14)) >> 15


OPERATOR = HardSwish()
