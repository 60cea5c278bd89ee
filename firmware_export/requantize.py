"""From int32 accumulators to int8, on numpy int64 arrays that hold int32 values: the arithmetics `double` and `float32`.

runtime/requantize.h and requantize_float32.h are the same in C, bit for bit. The rules of `double` are gemmlowp's
(fixedpoint.h) and TFLite's (quantization_util.cc, common.h), which TFLite Micro and CMSIS-NN follow. Where those overflow
int32, which C leaves undefined, both sides here wrap around, as the compiled reference does. `float32` is the rule of XNNPACK
(LiteRT's default) and of onnxruntime's QLinearConv: two roundings to float32, one to an integer, all half to even.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Integers = Int64 | int
"""One value for all, or an array that broadcasts."""

INT8_MIN, INT8_MAX = -128, 127
INT32_MIN, INT32_MAX = -(1 << 31), (1 << 31) - 1
MAX_SHIFT = 30
"""Largest left shift of a multiplier: a ratio of scales below 2^30."""


def quantize_multiplier(real: float | Float64) -> tuple[Int64, Int64]:
    """A real factor >= 0 as Q31 mantissa and exponent: real = multiplier * 2^(shift - 31), elementwise.

    Source: QuantizeMultiplier in tensorflow/lite/kernels/internal/quantization_util.cc. Factors below 2^-32 become 0.

    Returns:
        multiplier in [2^30, 2^31 - 1] or 0, shift in [-31, ...]; positive shifts go left.
    """
    fraction, exponent = np.frexp(np.atleast_1d(np.asarray(real, np.float64)))
    multiplier = np.floor(fraction * 2.0**31 + 0.5).astype(np.int64)
    shift = exponent.astype(np.int64)
    carried = multiplier == 1 << 31
    multiplier = np.where(carried, multiplier // 2, multiplier)
    shift = shift + carried
    lost = shift < -31
    return np.where(lost, 0, multiplier), np.where(lost, 0, shift)


def wrap_int32(x: Int64) -> Int64:
    """Modulo 2^32 into [-2^31, 2^31 - 1]."""
    return x.astype(np.int32).astype(np.int64)


def high_mul(x: Int64, multiplier: Integers) -> Int64:
    """gemmlowp's SaturatingRoundingDoublingHighMul: round(x * multiplier / 2^31), halves towards plus infinity.

    Its truncating division with the nudge 2^30 or 1 - 2^30 is this one shift. Only -2^31 * -2^31 saturates there.
    """
    product: Int64 = (x * multiplier + (1 << 30)) >> 31
    return np.minimum(product, (1 << 31) - 1)


def rounding_divide_by_pot(x: Int64, exponent: Integers) -> Int64:
    """gemmlowp's RoundingDivideByPOT: x / 2^exponent, halves away from zero; exponent in [0, 31]."""
    mask: Int64 = np.left_shift(1, np.asarray(exponent, np.int64)) - 1
    threshold = (mask >> 1) + (x < 0)
    rounded: Int64 = (x >> exponent) + ((x & mask) > threshold)
    return rounded


def requantize(x: Int64, multiplier: Integers, shift: Integers) -> Int64:
    """TFLite's MultiplyByQuantizedMultiplier: x * multiplier * 2^(shift - 31), rounded twice. int32 in and out."""
    shift = np.asarray(shift, np.int64)
    shifted = wrap_int32(x << np.maximum(shift, 0))
    return rounding_divide_by_pot(high_mul(shifted, multiplier), np.maximum(-shift, 0))


def to_int8(x: Int64, zero_point: int, clamp: tuple[int, int]) -> npt.NDArray[np.int8]:
    """Adds the zero point, clamps and narrows; the last step of every operator."""
    return np.clip(wrap_int32(x + zero_point), clamp[0], clamp[1]).astype(np.int8)


def requantize_float32(x: Int64, scale: Float32) -> Int64:
    """float32(x) * scale as float32, then the nearest integer, halves to even each time; saturated to int32.

    Source: xnn_qs8_requantize_fp32 in XNNPACK's src/xnnpack/requantization.h.

    Args:
        scale: finite, >= 0; broadcasts with x.
    """
    product = x.astype(np.float32) * scale
    return np.rint(product.astype(np.float64)).clip(INT32_MIN, INT32_MAX).astype(np.int64)
