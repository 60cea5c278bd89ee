"""Functions of one int8 value once more, value by value on Python integers: no table, no arrays."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from second_arithmetic import divide_by_power, logistic_q31, multiplier_of, scale_of, scaled, stored, tanh_q31

from firmware_export.graph import Graph, Node, Tensor

EVERY_INT8 = (-128, 127)


def elementwise(graph: Graph, node: Node, inputs: list[np.ndarray], function: Callable[[int], int]) -> np.ndarray:
    """One value after the other."""
    values = [function(int(value)) for value in inputs[0].reshape(-1)]
    return np.array(values, np.int8).reshape(graph.tensors[node.outputs[0]].shape)


def saturating(graph: Graph, node: Node, value: int, function: Callable[[int], int]) -> int | None:
    """A function of the Q4.27 number that a stored value means; its ends where that does not fit."""
    x = graph.tensors[node.inputs[0]]
    multiplier, shift = multiplier_of(scale_of(x) * 2.0**27)
    radius = math.floor(15 * 2**27 / 2**shift)
    if not -radius < value - x.zero_point < radius:
        return None
    return function(scaled(value - x.zero_point, multiplier, shift))


def requantized(value: int, scale: float, zero_point: int, y: Tensor) -> int:
    """TFLite's QUANTIZE of a value stored with scale and zero point."""
    return stored(scaled(value - zero_point, *multiplier_of(scale / scale_of(y))), y.zero_point, EVERY_INT8)


def logistic(graph: Graph, node: Node, inputs: list[np.ndarray]) -> np.ndarray:
    """In steps of 1/256, then at the output's scale."""
    x, y = graph.tensors[node.inputs[0]], graph.tensors[node.outputs[0]]

    def one(value: int) -> int:
        result = saturating(graph, node, value, logistic_q31)
        step = (0 if value <= x.zero_point else 255) if result is None else divide_by_power(result, 23)
        return requantized(min(step, 255) - 128, 1 / 256, -128, y)

    return elementwise(graph, node, inputs, one)


def tanh(graph: Graph, node: Node, inputs: list[np.ndarray]) -> np.ndarray:
    """In steps of 1/128, then at the output's scale."""
    x, y = graph.tensors[node.inputs[0]], graph.tensors[node.outputs[0]]

    def one(value: int) -> int:
        result = saturating(graph, node, value, tanh_q31)
        step = (-128 if value <= x.zero_point else 127) if result is None else divide_by_power(result, 24)
        return requantized(max(-128, min(127, step)), 1 / 128, 0, y)

    return elementwise(graph, node, inputs, one)


def limited16(x: int) -> int:
    """Saturated to 16 bits."""
    return max(-(2**15), min(2**15 - 1, x))


def doubling_high_mul16(a: int, b: int) -> int:
    """SaturatingRoundingDoublingHighMul of 16 bits; b is never -2^15."""
    product = a * b
    nudged = product + (2**14 if product >= 0 else 1 - 2**14)
    return nudged // 2**15 if nudged >= 0 else -(-nudged // 2**15)


def multiplier16_of(real: float) -> tuple[int, int]:
    """The upper half of a Q31 multiplier, rounded."""
    multiplier, shift = multiplier_of(real)
    return (2**15 - 1 if multiplier >= 2**31 - 1 - 2**15 else (multiplier + 2**15) >> 16), shift


def hard_swish(graph: Graph, node: Node, inputs: list[np.ndarray]) -> np.ndarray:
    """16-bit fixed point, the gate's left shift in two parts around its multiplication."""
    x, y = graph.tensors[node.inputs[0]], graph.tensors[node.outputs[0]]
    fine = np.float32(scale_of(x)) / np.float32(128)
    output, output_shift = multiplier16_of(float(fine / np.float32(scale_of(y))))
    gate, gate_shift = multiplier16_of(float(fine / (np.float32(3) / np.float32(32768))))

    def one(value: int) -> int:
        raised = (value - x.zero_point) * 128
        opened = limited16(raised << (gate_shift - 1)) if gate_shift > 0 else raised
        opened = doubling_high_mul16(opened, gate)
        opened = limited16(opened * 2) if gate_shift > 0 else divide_by_power(opened, -gate_shift)
        product = ((opened + 2**15) >> 1) * doubling_high_mul16(raised, output)
        product = int(math.copysign(abs(product) // 2**15, product))
        return max(-128, min(127, divide_by_power(product, -output_shift) + y.zero_point))

    return elementwise(graph, node, inputs, one)


def leaky_relu(graph: Graph, node: Node, inputs: list[np.ndarray]) -> np.ndarray:
    """Two factors."""
    x, y = graph.tensors[node.inputs[0]], graph.tensors[node.outputs[0]]
    before, after, alpha = (np.float32(v) for v in (scale_of(x), scale_of(y), node.number("alpha")))
    identity, slope = multiplier_of(float(before / after)), multiplier_of(abs(float(before * alpha / after)))
    sign = -1 if alpha < 0 else 1

    def one(value: int) -> int:
        centred = value - x.zero_point
        multiplier, shift = identity if centred >= 0 else (sign * slope[0], slope[1])
        return stored(scaled(centred, multiplier, shift), y.zero_point, EVERY_INT8)

    return elementwise(graph, node, inputs, one)


LOOKUPS: dict[str, Callable[[Graph, Node, list[np.ndarray]], np.ndarray]] = {
    implementation.__name__: implementation for implementation in (logistic, tanh, hard_swish, leaky_relu)
}
