"""The linear form of a sum against TFLite's arithmetic in Python integers, for every pair of values."""

from __future__ import annotations

import math

import numpy as np
import pytest

from firmware_export.graph import Graph, Quantization
from firmware_export.operators import _examples as make
from firmware_export.packing import Unpackable
from firmware_export.packing.add_linear import SHIFT, LinearSum, add_layer, linear_sum

VALUES = np.arange(-128, 128)


def quantized(real: float) -> tuple[int, int]:
    """QuantizeMultiplier in Python: mantissa in Q31 and exponent."""
    fraction, exponent = math.frexp(real)
    multiplier = math.floor(fraction * 2.0**31 + 0.5)
    return (multiplier // 2, exponent + 1) if multiplier == 1 << 31 else (multiplier, exponent)


def multiplied(x: int, multiplier: int, shift: int) -> int:
    """MultiplyByQuantizedMultiplier, both roundings as gemmlowp does them."""
    product = (x << max(shift, 0)) * multiplier
    nudged = product + (1 << 30 if product >= 0 else 1 - (1 << 30))
    high = (abs(nudged) >> 31) * (1 if nudged >= 0 else -1)
    exponent = max(-shift, 0)
    remainder = high & ((1 << exponent) - 1)
    return (high >> exponent) + (remainder > ((1 << exponent) - 1 >> 1) + (high < 0))


def tflite_sum(scales: tuple[float, float, float], zero_points: tuple[int, int, int]) -> np.ndarray:
    """reference_ops::Add for int8, [256, 256]; only the sum's last scaling depends on both values."""
    a, b, y = (float(np.float32(scale)) for scale in scales)
    common = 2 * max(a, b)
    sides = []
    for scale, zero_point in zip((a, b), zero_points, strict=False):
        factor = quantized(scale / common)
        sides.append([multiplied((int(value) - zero_point) << 20, *factor) for value in VALUES])
    factor = quantized(common / (2.0**20 * y))
    rows = [[multiplied(first + second, *factor) + zero_points[2] for second in sides[1]] for first in sides[0]]
    return np.clip(np.array(rows), -128, 127)


def form_of(scales: tuple[float, float, float], zero_points: tuple[int, int, int], exact: np.ndarray) -> LinearSum:
    a, b, y = (float(np.float32(scale)) for scale in scales)
    return linear_sum(exact, (a / y, b / y), (zero_points[0], zero_points[1]))


def apply(form: LinearSum) -> np.ndarray:
    first, second = np.meshgrid(VALUES, VALUES, indexing="ij")
    return form.apply(first, second)


CASES = [
    ((0.0311, 0.0473, 0.0391), (-128, 4, -128)),
    ((0.0235, 0.0235, 0.0312), (-128, -17, -128)),
    ((0.007, 0.11, 0.0931), (38, -2, -128)),
    ((0.051, 0.0422, 0.0611), (3, -7, 12)),
]


@pytest.mark.parametrize("scales, zero_points", CASES)
def test_scales_of_trained_networks_are_linear(scales: tuple[float, float, float], zero_points: tuple[int, int, int]) -> None:
    exact = tflite_sum(scales, zero_points)
    form = form_of(scales, zero_points, exact)
    assert not form.signed
    np.testing.assert_array_equal(apply(form), exact)


@pytest.mark.parametrize("seed", range(6))
def test_random_scales(seed: int) -> None:
    """Nearly all random scales have a form; where there is one it gives every pair's sum."""
    rng = np.random.default_rng(seed)
    a, b, ratio = np.exp2(rng.uniform((-7, -7, -1), (-3, -3, 1)))
    scales = (float(a), float(b), float(max(a, b) * ratio))
    zero_points = tuple(int(point) for point in rng.integers(-128, 128, 3))
    exact = tflite_sum(scales, zero_points)  # type: ignore[arg-type]
    form = form_of(scales, zero_points, exact)  # type: ignore[arg-type]
    np.testing.assert_array_equal(apply(form), exact)


@pytest.mark.parametrize("scales", [(0.5, 0.5, 1.0), (0.25, 0.5, 1.0), (0.125, 0.125, 0.25)])
@pytest.mark.parametrize("zero_points", [(0, 0, 0), (3, -4, 5)])
def test_powers_of_two_need_the_sign(scales: tuple[float, float, float], zero_points: tuple[int, int, int]) -> None:
    """Their sums lie halfway between two outputs on both sides of zero."""
    exact = tflite_sum(scales, zero_points)
    form = form_of(scales, zero_points, exact)
    assert form.signed
    np.testing.assert_array_equal(apply(form), exact)


def test_behind_a_relu_powers_of_two_are_linear() -> None:
    """At the zero point -128 no output lies below zero: the sign does not matter."""
    exact = tflite_sum((0.5, 0.5, 1.0), (0, 0, -128))
    assert not form_of((0.5, 0.5, 1.0), (0, 0, -128), exact).signed


def test_sums_stay_in_int32() -> None:
    """Large ratios: the form's own sums must not wrap around, or there is none."""
    for ratio in (1.5, 3.0):
        scales = (0.0313 * ratio, 0.0297 * ratio, 0.0301)
        exact = tflite_sum(scales, (-128, 5, 9))
        form = form_of(scales, (-128, 5, 9), exact)
        totals = form.start + (form.factor_0 * VALUES >> 8)[:, None] + (form.factor_1 * VALUES >> 8)[None]
        assert np.abs(totals).max() < 1 << 31
        np.testing.assert_array_equal(apply(form), exact)


def test_large_ratios_have_no_form() -> None:
    """Sums 12 times as large as the output's range do not fit beside 20 bits of fraction."""
    scales = (0.19, 0.18, 0.0301)
    with pytest.raises(Unpackable, match="no linear form"):
        form_of(scales, (-128, 5, 9), tflite_sum(scales, (-128, 5, 9)))


@pytest.mark.parametrize("scales", [(1e-12, 1.0, 1.0), (9.0, 0.1, 1.0)])
def test_ratios_out_of_range(scales: tuple[float, float, float]) -> None:
    with pytest.raises(Unpackable, match="scale ratios"):
        form_of(scales, (0, 0, 0), np.zeros((256, 256), np.int64))


def test_what_is_not_linear_has_no_form() -> None:
    with pytest.raises(Unpackable, match="no linear form"):
        linear_sum((VALUES[:, None] * VALUES[None] >> 7).astype(np.int64), (0.5, 0.5), (0, 0))


def add_graph(clamp: tuple[int, int]) -> Graph:
    inputs = tuple(
        make.activation((1, 4), Quantization.per_tensor(scale, 3), name) for scale, name in ((0.03, "a"), (0.05, "b"))
    )
    return make.single_node("add", inputs, Quantization.per_tensor(0.061, -5), {"clamp": clamp})


def test_a_clamp_does_not_change_the_form() -> None:
    """The kernel clamps behind it; the form is that of the sum itself."""
    codes = [add_layer(graph, graph.nodes[0]) for graph in (add_graph((-128, 127)), add_graph((-5, 90)))]
    different = {name for name in codes[0].fields if codes[0].fields[name] != codes[1].fields[name]}
    assert different == {"min", "max"}
    assert codes[0].sources == ("add_linear.c",) and codes[0].constants == ()


def test_a_form_by_hand() -> None:
    """(a + b) / 2 with half a step added: 3 + 4 is 3.5 and becomes 4, -3 - 4 becomes -3."""
    half = 1 << (SHIFT + 7)
    form = LinearSum(1 << (SHIFT - 1), half, half, 0, False)
    assert form.apply(np.array([3, -3, 127]), np.array([4, -4, 127])).tolist() == [4, -3, 127]
    away = LinearSum(0, half, half, 1 << (SHIFT - 1), True)
    assert away.apply(np.array([3, -3, -128]), np.array([4, -4, -128])).tolist() == [4, -4, -128]
