"""The rule of the arithmetic float32 in exact fractions, as IEEE 754 and XNNPACK's header define it."""

from __future__ import annotations

import math
from fractions import Fraction

INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1


def to_float32(value: Fraction) -> Fraction:
    """The nearest float32, halves to even; exponents without limits."""
    if value == 0:
        return value
    exponent = math.floor(math.log2(abs(value)))
    while Fraction(2) ** exponent > abs(value):
        exponent -= 1
    while Fraction(2) ** (exponent + 1) <= abs(value):
        exponent += 1
    unit = Fraction(2) ** (exponent - 23)
    return round(value / unit) * unit  # Python rounds fractions to even


def by_definition(x: int, scale: float) -> int:
    """float32(x) * float32(scale), rounded to float32, to an integer, saturated."""
    return max(INT32_MIN, min(INT32_MAX, round(to_float32(to_float32(Fraction(x)) * Fraction(scale)))))
