"""Fixed-point rules of XNNPACK's int8 kernels besides the accumulating ones: what LiteRT does by default, on every machine.

They belong to the arithmetic `float32`. Each rounds once, halves up, which requantize.requantize does too when the multiplier
is a power of two or the shift goes left; so the C kernels are the same in both arithmetics, with other numbers.
Where XNNPACK refuses the scales, LiteRT's own kernels compute, and these functions give None.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

CONVERSION_RANGE = (2.0**-8, 2.0**7)
"""Ratios of scales that XNNPACK's conversions take, both ends included."""
CONVERSION_BITS = 8
SUM_RANGE = (2.0**-10, 2.0**8)
"""Larger of the two ratios of scales that XNNPACK's sums take, the upper end excluded."""
SUM_BITS = 20
PRODUCT_RANGE = (2.0**-16, 2.0**8)
"""Factors that XNNPACK's products take, the upper end excluded."""
_ONE = 31
"""log2 of the multiplier that stands for 1."""


def conversion_factor(ratio: float) -> tuple[int, int] | None:
    """Multiplier and shift with which requantize gives round(x * round(256 * ratio) / 256), halves up, for |x| < 2^15.

    Source: xnn_init_qs8_cvt_scalar_params in XNNPACK's src/microparams-init.c.

    Args:
        ratio: of the scales; may be negative (the slope of a leaky relu).
    """
    size = np.float32(abs(ratio))
    if not CONVERSION_RANGE[0] <= size <= CONVERSION_RANGE[1]:
        return None
    steps = int(np.rint(np.float32(ratio) * np.float32(1 << CONVERSION_BITS)))
    return steps << (_ONE - 2 * CONVERSION_BITS), CONVERSION_BITS


@dataclass(frozen=True)
class SumFactors:
    """round((a * first + b * second) / 2^bits), halves up; first and second below 2^22."""

    first: int
    second: int
    bits: int


def sum_factors(scale_a: float, scale_b: float, scale_y: float) -> SumFactors | None:
    """The larger factor has 21 bits.

    Source: xnn_init_qs8_add_minmax_scalar_params in XNNPACK's src/microparams-init.c.
    """
    ratios = np.array([scale_a, scale_b], np.float32) / np.float32(scale_y)
    largest = float(ratios.max())
    if not SUM_RANGE[0] <= largest < SUM_RANGE[1]:
        return None
    bits = SUM_BITS + 1 - int(np.frexp(largest)[1])
    first, second = np.rint(np.ldexp(ratios.astype(np.float64), bits)).astype(np.int64).tolist()
    return SumFactors(first, second, bits)
