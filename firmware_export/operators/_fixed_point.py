"""gemmlowp's fixed-point functions (fixedpoint.h) on numpy int64: exp, 1 / (1 + x), logistic, tanh.

Qi.f: i integer and f fraction bits, i + f = 31. The constants are the rounded real values, computed here.
"""

from __future__ import annotations

import math

import numpy as np

from firmware_export.requantize import Int64, high_mul, rounding_divide_by_pot

INT32_MAX = (1 << 31) - 1


def _q31(real: float) -> int:
    return round(real * 2**31)


def saturating_shift(x: Int64, bits: int) -> Int64:
    """x * 2^bits, saturated to int32 as SaturatingRoundingMultiplyByPOT does."""
    limit = INT32_MAX >> bits
    return np.where(x > limit, INT32_MAX, np.where(x < -limit, -INT32_MAX - 1, x << bits))


def exp_of_negative(x: Int64, integer_bits: int) -> Int64:
    """exp(x) in Q0.31 for x <= 0 in Q(integer_bits); exp(0) is 2^31 - 1.

    x is split into a part in [-1/4, 0), by a polynomial, and multiples of 1/4, whose binary digits each multiply the
    result by exp(-2^e).
    """
    fraction_bits = 31 - integer_bits
    quarter = 1 << (fraction_bits - 2)
    small = (x & (quarter - 1)) - quarter
    result = _exp_of_small(saturating_shift(small, integer_bits))
    rest = small - x
    for exponent in range(-2, integer_bits):
        factor = high_mul(result, _q31(math.exp(-(2.0**exponent))))
        result = np.where(rest & (1 << (fraction_bits + exponent)), factor, result)
    return np.where(x == 0, INT32_MAX, result)


def _exp_of_small(x: Int64) -> Int64:
    """exp(x) in Q0.31 for x in [-1/4, 0) in Q0.31: the Taylor polynomial of degree 4 around -1/8."""
    centred = x + (1 << 28)
    square = high_mul(centred, centred)
    cube = high_mul(square, centred)
    fourth = rounding_divide_by_pot(high_mul(square, square), 2)
    tail = high_mul(fourth + cube, _q31(1 / 3)) + square
    series = centred + rounding_divide_by_pot(tail, 1)
    at_eighth = _q31(math.exp(-1 / 8))
    return at_eighth + high_mul(series, at_eighth)


def reciprocal_of_one_plus(x: Int64) -> Int64:
    """1 / (1 + x) in Q0.31 for x in [0, 1) in Q0.31."""
    return saturating_shift(_reciprocal_of_half_sum(x), 1)


def one_minus_over_one_plus(x: Int64) -> Int64:
    """(1 - x) / (1 + x) in Q0.31 for x in [0, 1) in Q0.31: 2 / (1 + x) - 1."""
    return saturating_shift(_reciprocal_of_half_sum(x) - (1 << 29), 2)


def _reciprocal_of_half_sum(x: Int64) -> Int64:
    """2 / (1 + x) in Q2.29: three Newton steps from 48/17 - 32/17 * (1 + x) / 2."""
    half_denominator = (x + INT32_MAX + 1) // 2
    estimate = round(48 / 17 * 2**29) + high_mul(half_denominator, round(-32 / 17 * 2**29))
    for _ in range(3):
        error = (1 << 29) - high_mul(half_denominator, estimate)
        estimate = estimate + saturating_shift(high_mul(estimate, error), 2)
    return estimate


def logistic(x: Int64, integer_bits: int) -> Int64:
    """1 / (1 + exp(-x)) in Q0.31 for x in Q(integer_bits)."""
    positive = reciprocal_of_one_plus(exp_of_negative(-np.abs(x), integer_bits))
    return np.where(x == 0, 1 << 30, np.where(x > 0, positive, INT32_MAX - positive))


def tanh(x: Int64, integer_bits: int) -> Int64:
    """tanh(x) in Q0.31 for x in Q(integer_bits): (1 - e) / (1 + e) of e = exp(-2 |x|)."""
    positive = one_minus_over_one_plus(exp_of_negative(-np.abs(x), integer_bits + 1))
    return np.where(x == 0, 0, np.where(x > 0, positive, -positive))
