"""Integer arithmetic of the second implementation, on Python integers: gemmlowp's and TFLite's functions as defined."""

from __future__ import annotations

import math

from firmware_export.graph import Tensor

INT32_MAX, INT32_MIN = 2**31 - 1, -(2**31)


def wrapped(x: int) -> int:
    """Two's complement of 32 bits."""
    return (x - INT32_MIN) % 2**32 + INT32_MIN


def doubling_high_mul(a: int, b: int) -> int:
    """SaturatingRoundingDoublingHighMul: a division that truncates, with a nudge of the product's sign."""
    if a == b == INT32_MIN:
        return INT32_MAX
    product = a * b
    nudged = product + (2**30 if product >= 0 else 1 - 2**30)
    return nudged // 2**31 if nudged >= 0 else -(-nudged // 2**31)


def divide_by_power(x: int, exponent: int) -> int:
    """RoundingDivideByPOT: remainder against threshold."""
    if exponent > 31:
        return 0
    mask = 2**exponent - 1
    threshold = (mask >> 1) + (1 if x < 0 else 0)
    return (x >> exponent) + (1 if x & mask > threshold else 0)


def multiplier_of(real: float) -> tuple[int, int]:
    """QuantizeMultiplier."""
    if real == 0:
        return 0, 0
    fraction, shift = math.frexp(real)
    mantissa = math.floor(fraction * 2**31 + 0.5)
    if mantissa == 2**31:
        mantissa, shift = mantissa // 2, shift + 1
    return (0, 0) if shift < -31 else (mantissa, shift)


def scaled(x: int, multiplier: int, shift: int) -> int:
    """MultiplyByQuantizedMultiplier."""
    left, right = max(shift, 0), max(-shift, 0)
    return divide_by_power(doubling_high_mul(wrapped(x << left), multiplier), right)


def stored(x: int, zero_point: int, clamp: tuple[int, ...]) -> int:
    """The last step of every operator."""
    return max(clamp[0], min(clamp[1], wrapped(x + zero_point)))


def scale_of(tensor: Tensor, channel: int = 0) -> float:
    """A tensor's scale as the double of its float32."""
    assert tensor.quantization is not None
    scale = tensor.quantization.scale
    return float(scale[channel if scale.size > 1 else 0])


EXP_FACTORS = (1672461947, 1302514674, 790015084, 290630308, 39332535, 720401, 242)
"""exp(-2^e) in Q0.31 for e = -2 .. 4, as in gemmlowp's fixedpoint.h."""


def shift_saturated(x: int, bits: int) -> int:
    """SaturatingRoundingMultiplyByPOT of a positive exponent."""
    return max(INT32_MIN, min(INT32_MAX, x << bits))


def exp_on_negative(x: int, integer_bits: int = 5) -> int:
    """exp of a number <= 0 with 4 or 5 integer bits, in Q0.31."""
    if x == 0:
        return INT32_MAX
    first = 29 - integer_bits
    quarter = 1 << first
    fraction = (x & (quarter - 1)) - quarter
    a = shift_saturated(fraction, integer_bits) + (1 << 28)
    square = doubling_high_mul(a, a)
    cube, fourth = doubling_high_mul(square, a), doubling_high_mul(square, square)
    inner = doubling_high_mul(divide_by_power(fourth, 2) + cube, 715827883) + square
    result = 1895147668 + doubling_high_mul(1895147668, a + divide_by_power(inner, 1))
    remainder = fraction - x
    for bit, factor in enumerate(EXP_FACTORS[: integer_bits + 2], first):
        if remainder & (1 << bit):
            result = doubling_high_mul(result, factor)
    return result


def newton(x: int) -> int:
    """2 / (1 + x) of a Q0.31 number in [0, 1), in Q2.29."""
    half = (x + INT32_MAX + 1) // 2
    estimate = 1515870810 + doubling_high_mul(half, -1010580540)
    for _ in range(3):
        rest = (1 << 29) - doubling_high_mul(half, estimate)
        estimate += shift_saturated(doubling_high_mul(estimate, rest), 2)
    return estimate


def reciprocal(x: int) -> int:
    """1 / (1 + x) of a Q0.31 number in [0, 1), in Q0.31."""
    return shift_saturated(newton(x), 1)


def logistic_q31(x: int) -> int:
    """1 / (1 + exp(-x)) of a Q4.27 number, in Q0.31."""
    if x == 0:
        return 1 << 30
    above = reciprocal(exp_on_negative(-abs(x), 4))
    return above if x > 0 else INT32_MAX - above


def tanh_q31(x: int) -> int:
    """tanh of a Q4.27 number, in Q0.31: the same bits are 2x in Q5.26."""
    if x == 0:
        return 0
    above = shift_saturated(newton(exp_on_negative(-abs(x), 5)) - (1 << 29), 2)
    return above if x > 0 else -above
