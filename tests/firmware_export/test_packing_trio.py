"""Packed data of the trio kernels: forms against gemmlowp's two roundings, records, readings, distances."""

from __future__ import annotations

import numpy as np
import pytest
from overlap_model import Step, groups, outputs_of, pixels_under, spoils

from firmware_export.geometry import same_padding
from firmware_export.operators._window import Window
from firmware_export.packing import Unpackable
from firmware_export.packing.conv2d_trio import Reading, choose_reading, distance
from firmware_export.packing.requantize_forms import STEPS, Stage
from firmware_export.packing.trio import LINEAR, RAW, SIGNED, as_words, even, fits, form_code, form_constants, pack_records
from firmware_export.packing.trio_forms import MAX_FACTOR, NARROW, WIDE, Form, Scale, find_form
from firmware_export.requantize import quantize_multiplier


def gemmlowp(x: int, multiplier: int, shift: int) -> int:
    """MultiplyByQuantizedMultiplier: rounded to the nearest, halves up, then to the nearest, halves away from zero."""
    product = (x << max(shift, 0)) * multiplier
    high = (product + (1 << 30)) >> 31
    exponent = max(-shift, 0)
    magnitude = (abs(high) + ((1 << exponent) >> 1)) >> exponent
    return magnitude if high >= 0 else -magnitude


def stage_of(real: list[float], zero_point: int, low: list[int], high: list[int]) -> Stage:
    multiplier, shift = quantize_multiplier(np.array(real))
    return Stage(multiplier, shift, zero_point, np.array(low, np.int64), np.array(high, np.int64))


def random_stage(rng: np.random.Generator, zero_point: int, exponents: tuple[float, float], channels: int = 16) -> Stage:
    """Factors 2^-exponent; each channel reaches a little more than what 255 steps need, as trained ones do."""
    exponent = rng.uniform(*exponents, channels)
    reach = np.minimum(np.exp2(exponent + rng.uniform(6.5, 9, channels)), (1 << 20) - 4)
    low, high = -(reach * rng.uniform(0.3, 1, channels)), reach * rng.uniform(0.3, 1, channels)
    multiplier, shift = quantize_multiplier(np.exp2(-exponent))
    return Stage(multiplier, shift, zero_point, low.astype(np.int64), high.astype(np.int64))


def found(stage: Stage, scale: Scale) -> Form:
    form = find_form(stage, scale)
    assert form is not None
    return form


def assert_same(stage: Stage, form: Form, every: int = 1) -> None:
    """At every accumulator within reach, or some and all around the steps, against gemmlowp in Python integers."""
    for channel in range(stage.low.size):
        low, high = int(stage.low[channel]), int(stage.high[channel])
        accumulators = np.arange(low, high + 1, every)
        if every > 1:
            steps = stage.thresholds[channel]
            accumulators = np.unique(np.concatenate([accumulators, steps - 1, steps, [low, high]]))
            accumulators = accumulators[(accumulators >= low) & (accumulators <= high)]
        multiplier, shift = int(stage.multiplier[channel]), int(stage.shift[channel])
        expected = [min(127, max(-128, gemmlowp(int(x), multiplier, shift) + stage.zero_point)) for x in accumulators]
        sums = np.zeros_like(accumulators) if form.constant[channel] else accumulators
        np.testing.assert_array_equal(form.apply(sums, channel), expected)


def assert_within_the_kernel(stage: Stage, form: Form) -> None:
    """32 bits hold the scaled sums; factors and negatives are what the short products can take."""
    for edge in (stage.low, stage.high):
        scaled = np.where(form.constant, 0, edge) * form.scale.unit + form.start
        assert np.abs(scaled).max() < 1 << 31
    assert form.factor.min() > 0 and form.factor.max() <= MAX_FACTOR
    assert form.negative.min() >= 0 and 0 < form.shift <= 20
    assert form.is_signed or (form.rounding == 0 and not form.negative.any())


@pytest.mark.parametrize("scale", [NARROW, WIDE], ids=["narrow", "wide"])
@pytest.mark.parametrize("exponents", [(1.2, 4), (3.2, 8), (6.2, 11), (9.2, 11.5)])
def test_behind_a_relu_every_channel_is_linear(scale: Scale, exponents: tuple[float, float]) -> None:
    stage = random_stage(np.random.default_rng(int(exponents[0])), -128, exponents)
    form = found(stage, scale)
    assert scale is WIDE or exponents[0] > 9 or not form.is_signed
    assert_same(stage, form, 97)
    assert_within_the_kernel(stage, form)


@pytest.mark.parametrize("scale", [NARROW, WIDE], ids=["narrow", "wide"])
@pytest.mark.parametrize("zero_point", [-17, 0, 4, 38, 101])
def test_around_zero_every_channel_has_a_form(scale: Scale, zero_point: int) -> None:
    stage = random_stage(np.random.default_rng(zero_point & 255), zero_point, (4, 7.5 if scale is NARROW else 6.5))
    form = found(stage, scale)
    assert form.is_signed
    assert_same(stage, form, 97)
    assert_within_the_kernel(stage, form)


@pytest.mark.parametrize("zero_point", [-128, 4, 127])
def test_every_accumulator(zero_point: int) -> None:
    stage = random_stage(np.random.default_rng(3), zero_point, (1.2, 4), 6)
    for scale in (NARROW, WIDE):
        assert_same(stage, found(stage, scale))


def test_ties_round_away_from_zero() -> None:
    """A factor of 2^-5: the first rounding takes 15 to 8 of 16 and -15 to -7, the second takes 8 up and -8 down."""
    stage = stage_of([2.0**-5], 0, [-5000], [5000])
    form = found(stage, NARROW)
    at = np.array([14, 15, 46, 47, -15, -16, -47, -48])
    assert form.apply(at, 0).tolist() == [0, 1, 1, 2, 0, -1, -1, -2]
    assert_same(stage, form)


@pytest.mark.parametrize("zero_point", [-128, -5, 127])
def test_constant_channels(zero_point: int) -> None:
    """Channels that reach one value only: in the middle, saturated high, saturated low, exactly one accumulator."""
    stage = stage_of([1e-3] * 4, zero_point, [-100, 10**6, -(10**6) - 9, 77], [100, 10**6 + 9, -(10**6), 77])
    form = found(stage, NARROW)
    assert form.constant.all()
    assert_same(stage, form)
    assert_within_the_kernel(stage, form)


def test_no_form_where_the_reference_may_wrap() -> None:
    assert find_form(stage_of([3.0], -128, [-(1 << 29)], [1 << 29]), WIDE) is None


def test_no_narrow_form_beyond_21_bits() -> None:
    """Wide forms take three bits more."""
    stage = stage_of([2.0**-14, 2.0**-14], 0, [-(1 << 21)] * 2, [1 << 21] * 2)
    assert find_form(stage, NARROW) is None
    assert_same(stage, found(stage, WIDE), 9973)
    assert find_form(stage_of([2.0**-16], 0, [-(1 << 23)], [1 << 23]), WIDE) is None


def test_one_step_at_the_edge_of_the_reach() -> None:
    """A channel that hardly moves: the factor with which all of it lies within one step."""
    stage = stage_of([1e-6, 1e-6], -128, [400_000, -3], [600_000, 2])
    assert_same(stage, found(stage, NARROW), 1009)


def test_forms_fall_nowhere() -> None:
    """Proof at the steps is proof everywhere only because of this."""
    rng = np.random.default_rng(9)
    stage = random_stage(rng, 4, (2, 6), 8)
    form = found(stage, NARROW)
    for channel in range(8):
        values = form.apply(np.arange(stage.low[channel], stage.high[channel] + 1), channel)
        assert np.all(np.diff(values) >= 0)
    assert STEPS.size == 255


def unpack(data: np.ndarray, channels: int, depth: int, constants: int, flipped: bool) -> tuple[np.ndarray, np.ndarray]:
    """The weights and constants of records, byte by byte as step_trio.h says."""
    weights, words, at = [], [], 0
    for pair in range(0, channels, 2):
        block = (data[at : at + 2 * depth] ^ (0x80 if flipped else 0)).astype(np.uint8).view(np.int8).reshape(depth, 2)
        at += 2 * depth
        for channel in range(pair, min(pair + 2, channels)):
            weights.append(block[:, channel - pair])
            words.append(data[at : at + 4 * constants].copy().view("<i4"))
            at += 4 * constants
    assert at == data.size
    return np.array(weights), np.array(words)


@pytest.mark.parametrize("flipped", [False, True])
@pytest.mark.parametrize("channels, depth, columns", [(1, 1, 2), (2, 5, 3), (3, 4, 2), (6, 9, 3), (7, 2, 3)])
def test_records(channels: int, depth: int, columns: int, flipped: bool) -> None:
    rng = np.random.default_rng(channels)
    weights = rng.integers(-128, 128, (channels, depth))
    constants = rng.integers(-(1 << 31), 1 << 31, (channels, columns))
    records = pack_records(weights, constants, flipped=flipped)
    found_weights, found_words = unpack(records.data, channels, even(depth), columns, flipped)
    np.testing.assert_array_equal(found_weights[:, :depth], weights)
    assert not found_weights[:, depth:].any()
    np.testing.assert_array_equal(found_words, constants)
    assert records.limit == records.data.size - (0 if channels % 2 else 1)


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_raw_records(channels: int) -> None:
    """Weights only; a missing second channel is there as zeros."""
    weights = np.random.default_rng(channels).integers(-128, 128, (channels, 3))
    records = pack_records(weights, None, flipped=False)
    padded = channels + channels % 2
    assert records.data.size == padded * 4 and records.limit == records.data.size - 1
    np.testing.assert_array_equal(unpack(records.data, padded, 4, 0, False)[0][:channels, :3], weights)


def test_bytes_as_words() -> None:
    assert as_words(np.array([1, 2, 3, 4, 5], np.uint8)).tolist() == [0x04030201, 5]


def test_what_fits_one_pass() -> None:
    """The largest sum of either sign, bias aside, stays within 21 bits."""
    assert fits(np.full((1, 64), 127)) and fits(np.full((1, 64), -127))
    assert not fits(np.full((1, 64), -128)) and not fits(np.full((1, 66), 127))
    assert fits(np.array([[1 << 13], [0]]) * 0) and not fits(np.array([[0] * 70, [127] * 70]))


def test_codes_and_constants_of_forms() -> None:
    stage = stage_of([0.01, 0.02], -128, [-3000, -3000], [30_000, 30_000])
    form = found(stage, NARROW)
    assert form_code(form) == LINEAR and form_code(None) == RAW
    constants = form_constants(form, np.array([5, -7]), columns=2)
    np.testing.assert_array_equal(constants[:, 0], 2048 * np.array([5, -7]) + form.start)
    np.testing.assert_array_equal(constants[:, 1], form.factor)
    assert form_code(found(stage_of([0.01], 0, [-30_000], [30_000]), NARROW)) == SIGNED


def window(
    size: tuple[int, int], channels: int, kernel: tuple[int, int] = (3, 3), stride: tuple[int, int] = (1, 1),
    dilation: tuple[int, int] = (1, 1),
) -> Window:  # fmt: skip
    padding = same_padding(size, tuple(1 + (kernel[i] - 1) * dilation[i] for i in (0, 1)), stride)
    reach = [1 + (kernel[i] - 1) * dilation[i] for i in (0, 1)]
    output = [(size[i] + padding[2 * i] + padding[2 * i + 1] - reach[i]) // stride[i] + 1 for i in (0, 1)]
    return Window(size, channels, kernel, stride, dilation, padding, (output[0], output[1]))


@pytest.mark.parametrize(
    "shape, weight, expected",
    [
        (window((9, 9), 16), 30, Reading(1, 3, 48, False)),
        (window((9, 9), 32), 30, Reading(3, 1, 96, False)),
        (window((9, 9), 96), 30, Reading(4, 1, 216, True)),
        (window((9, 9), 600, (1, 1)), 30, Reading(3, 1, 200, False)),
        (window((9, 9), 9, (3, 3), dilation=(1, 2)), 30, Reading(1, 1, 81, True)),
        (window((9, 9), 9, (3, 3), dilation=(2, 1)), 30, Reading(1, 3, 27, False)),
    ],
)
def test_reading(shape: Window, weight: int, expected: Reading) -> None:
    """In rows of the image where that is enough; else copied, in as many passes as are needed."""
    weights = np.full((2, shape.taps * shape.channels), weight)
    assert choose_reading(shape, weights) == expected
    assert expected.passes * expected.depth == weights.shape[1]


def test_no_reading() -> None:
    with pytest.raises(Unpackable, match="64 passes"):
        choose_reading(window((1, 1), 6007, (1, 1)), np.full((1, 6007), 9))


WINDOWS = [
    window((6, 7), 2), window((5, 5), 3, (1, 1)), window((8, 6), 2, stride=(2, 2)), window((4, 9), 1, (1, 5)),
    window((9, 4), 2, (5, 1)), window((7, 7), 2, (1, 1), (2, 3)), window((3, 8), 2, (3, 3), (1, 2)), window((6, 5), 2, (2, 2)),
]  # fmt: skip


@pytest.mark.parametrize("place", range(len(WINDOWS)))
@pytest.mark.parametrize("outputs", [1, 2, 5])
def test_distance_is_exact(place: int, outputs: int) -> None:
    """Safe at the distance and beyond it, spoilt one byte below it unless six pixels are all."""
    shape = WINDOWS[place]
    steps = [
        Step(frozenset(p for output in six for p in pixels_under(shape, output)), frozenset(six))
        for six in groups(outputs_of(shape), 6)
    ]
    ahead = distance(shape, outputs)
    assert not any(spoils(shape, outputs, steps, ahead + more) for more in (0, 1, 7, 30))
    assert len(steps) == 1 or spoils(shape, outputs, steps, ahead - 1)


def test_six_pixels_or_fewer_may_lie_anywhere() -> None:
    for size in ((1, 1), (1, 6), (3, 2)):
        assert distance(window(size, 4), 9) == -size[0] * size[1] * 4
