"""Short forms of the output stage against gemmlowp's two roundings, accumulator by accumulator."""

from __future__ import annotations

import numpy as np
import pytest

from firmware_export.packing import Unpackable
from firmware_export.packing.requantize_forms import STEPS, LinearForm, SignedForm, Stage, linear_form, reachable, signed_form
from firmware_export.requantize import quantize_multiplier


def gemmlowp(x: int, multiplier: int, shift: int) -> int:
    """MultiplyByQuantizedMultiplier word by word as gemmlowp's fixedpoint.h has it, with C's truncating division."""
    product = (x << max(shift, 0)) * multiplier
    nudged = product + (1 << 30 if product >= 0 else 1 - (1 << 30))
    high = abs(nudged) >> 31
    high = high if nudged >= 0 else -high
    exponent = max(-shift, 0)
    remainder, threshold = high & ((1 << exponent) - 1), (((1 << exponent) - 1) >> 1) + (high < 0)
    return (high >> exponent) + (remainder > threshold)


def stage_of(real: list[float], zero_point: int, low: list[int], high: list[int]) -> Stage:
    multiplier, shift = quantize_multiplier(np.array(real))
    return Stage(multiplier, shift, zero_point, np.array(low, np.int64), np.array(high, np.int64))


def random_stage(rng: np.random.Generator, zero_point: int, exponents: tuple[float, float], channels: int = 24) -> Stage:
    """Factors 2^-exponent; each channel reaches a little more than what 255 steps need, as trained ones do."""
    exponent = rng.uniform(*exponents, channels)
    reach = np.exp2(exponent + rng.uniform(6.5, 9, channels))
    low, high = -(reach * rng.uniform(0.3, 1, channels)), reach * rng.uniform(0.3, 1, channels)
    multiplier, shift = quantize_multiplier(np.exp2(-exponent))
    return Stage(multiplier, shift, zero_point, low.astype(np.int64), high.astype(np.int64))


def assert_same_steps(stage: Stage, form: LinearForm | SignedForm) -> None:
    """At every accumulator where the reference steps, at the one before it, and at both ends of the reach."""
    for channel in range(stage.low.size):
        steps = stage.thresholds[channel]
        near = np.unique(np.concatenate([steps, steps - 1, [stage.low[channel], stage.high[channel]]]))
        near = near[(near >= stage.low[channel]) & (near <= stage.high[channel])]
        expected = np.clip(stage.apply(near, channel), -128, 127)
        sums = np.zeros_like(near) if form.constant[channel] else near
        np.testing.assert_array_equal(form.apply(sums, channel), expected)


def assert_same_everywhere(stage: Stage, form: LinearForm | SignedForm) -> None:
    """At every accumulator within reach, against gemmlowp in Python integers."""
    for channel in range(stage.low.size):
        accumulators = np.arange(stage.low[channel], stage.high[channel] + 1)
        multiplier, shift = int(stage.multiplier[channel]), int(stage.shift[channel])
        expected = [min(127, max(-128, gemmlowp(int(x), multiplier, shift) + stage.zero_point)) for x in accumulators]
        sums = np.zeros_like(accumulators) if form.constant[channel] else accumulators
        np.testing.assert_array_equal(form.apply(sums, channel), expected)


@pytest.mark.parametrize("shift, exponents", [(7, (0.2, 4)), (10, (3.2, 9)), (13, (6.2, 11)), (16, (9.2, 12.5))])
def test_behind_a_relu_every_channel_is_linear(shift: int, exponents: tuple[float, float]) -> None:
    stage = random_stage(np.random.default_rng(shift), -128, exponents)
    assert_same_steps(stage, linear_form(stage, shift))


@pytest.mark.parametrize("zero_point", [-128, 127])
def test_linear_everywhere(zero_point: int) -> None:
    rng = np.random.default_rng(5)
    stage = random_stage(rng, zero_point, (3.2, 5), 6) if zero_point < 0 else stage_of([0.03], 127, [-9000], [40])
    assert_same_everywhere(stage, linear_form(stage, 10))


@pytest.mark.parametrize("shift, exponents", [(7, (1.2, 7)), (10, (4, 9.3))])
@pytest.mark.parametrize("zero_point", [-17, 0, 4, 38, 101])
def test_around_zero_every_channel_is_signed(shift: int, exponents: tuple[float, float], zero_point: int) -> None:
    stage = random_stage(np.random.default_rng(zero_point & 255), zero_point, exponents)
    assert_same_steps(stage, signed_form(stage, shift))


def test_signed_everywhere() -> None:
    stage = random_stage(np.random.default_rng(3), 4, (1.2, 5), 8)
    assert_same_everywhere(stage, signed_form(stage, 7))


def test_ties_round_away_from_zero() -> None:
    """A factor of 2^-5: the first rounding takes 15 to 8 of 16 and -15 to -7, the second takes 8 up and -8 down."""
    stage = stage_of([2.0**-5], 0, [-5000], [5000])
    form = signed_form(stage, 7)
    at = np.array([14, 15, 46, 47, -15, -16, -47, -48])
    assert form.apply(at, 0).tolist() == [0, 1, 1, 2, 0, -1, -1, -2]
    assert_same_everywhere(stage, form)


def test_no_linear_form_where_the_sign_matters() -> None:
    with pytest.raises(Unpackable, match="channel 0 has no linear form with shift 10"):
        linear_form(stage_of([2.0**-5], 0, [-5000], [5000]), 10)


def test_thresholds_are_the_first_accumulators_of_each_step() -> None:
    stage = random_stage(np.random.default_rng(8), 3, (2, 4), 3)
    found = stage.thresholds
    for channel in range(3):
        accumulators = np.arange(stage.low[channel], stage.high[channel] + 1)
        values = stage.apply(accumulators, channel)
        for step, threshold in zip(STEPS, found[channel], strict=True):
            reached = accumulators[values >= step]
            assert threshold == (reached[0] if reached.size else stage.high[channel] + 1)


@pytest.mark.parametrize("find", [linear_form, signed_form])
@pytest.mark.parametrize("zero_point", [-128, -5, 127])
def test_constant_channels(find: object, zero_point: int) -> None:
    """Channels that reach one value only: in the middle, saturated high, saturated low, exactly one accumulator."""
    stage = stage_of([1e-3] * 4, zero_point, [-100, 10**6, -(10**6) - 9, 77], [100, 10**6 + 9, -(10**6), 77])
    form = find(stage, 10)  # type: ignore[operator]
    assert form.constant.all()
    assert_same_everywhere(stage, form)


def test_a_factor_too_large_for_the_shift() -> None:
    with pytest.raises(Unpackable):
        linear_form(stage_of([0.4], -128, [-1000], [1000]), 10)


def test_a_sum_that_may_leave_24_bits_has_no_signed_form() -> None:
    with pytest.raises(Unpackable, match="may reach 2\\^23"):
        signed_form(stage_of([2.0**-15], 0, [-(1 << 23)], [1 << 23]), 10)


def test_a_factor_above_one_that_may_wrap() -> None:
    with pytest.raises(Unpackable, match="may leave int32"):
        linear_form(stage_of([3.0], -128, [-(1 << 29)], [1 << 29]), 7)


def test_reachable_is_tight() -> None:
    rng = np.random.default_rng(1)
    weights, bias = rng.integers(-128, 128, (3, 2)), rng.integers(-500, 500, 3)
    inputs = np.stack(np.meshgrid(np.arange(-128, 128), np.arange(-128, 128)), -1).reshape(-1, 2)
    sums = (inputs + 20) @ weights.T + bias
    low, high = reachable(weights, bias, -20)
    np.testing.assert_array_equal(low, sums.min(0))
    np.testing.assert_array_equal(high, sums.max(0))


def test_reachable_refuses_what_wraps() -> None:
    with pytest.raises(Unpackable, match="int32"):
        reachable(np.full((1, 4), 127), np.array([(1 << 31) - 5]), 0)
