"""Records for Helium's dense kernels: nothing is lost in packing; the forms are the reference wherever they are chosen."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
from kernel_harness.program import Case
from mve_checks import assert_right_on_host, needs_qemu, stage_of, wrong_on_m55
from overlap_model import Step, groups, pixels_under, spoils
from second_arithmetic import scaled, stored

from firmware_export.geometry import same_padding
from firmware_export.operators._window import Window
from firmware_export.packing import Unpackable
from firmware_export.packing.conv2d_mve import PIXELS, Reading, conv2d_code, distance
from firmware_export.packing.fully_connected_mve import fully_connected_code
from firmware_export.packing.mve import BLOCKS, GROUP, VECTOR, Records, clamp_fields, pack, requantization_form
from firmware_export.requantize import Int64


def unpack(records: Records, channels: int, depth: int) -> tuple[Int64, Int64, Int64, Int64]:
    """Weights [channels, depth], start, multiplier and shift [channels], read as runtime/step_mve.h describes a record."""
    groups = -(-channels // GROUP)
    weights = np.zeros((groups * GROUP, depth), np.int64)
    start, multiplier, shift = (np.zeros(groups * GROUP, np.int64) for _ in range(3))
    size, whole = 16 + 4 * depth, depth // VECTOR * VECTOR
    for group, record in enumerate(records.words.view(np.uint8).reshape(groups, -1)):
        for block in range(BLOCKS):
            rows = np.arange(GROUP * group + block, GROUP * (group + 1), BLOCKS)
            begin, stage = record[block * size :][:size], record[BLOCKS * size + 20 * block :][:20]
            start[rows], multiplier[rows] = begin[:16].view(np.int32), stage[:16].view(np.int32)
            shift[rows] = stage[16:].view(np.int8)
            packed = begin[16:].view(np.int8)
            weights[rows, :whole] = packed[: 4 * whole].reshape(-1, 4, VECTOR).swapaxes(0, 1).reshape(4, whole)
            weights[rows, whole:] = packed[4 * whole :].reshape(4, -1)
    return weights[:channels], start[:channels], multiplier[:channels], shift[:channels]


@pytest.mark.parametrize("channels, depth", [*itertools.product((1, 7, 8, 9, 24), (1, 15, 16, 17, 40))])
def test_unpacked_is_what_was_packed(channels: int, depth: int) -> None:
    rng = np.random.default_rng(depth)
    weights = rng.integers(-128, 128, (channels, depth))
    bias = rng.integers(-5000, 5000, channels)
    stage = stage_of(rng.integers(1 << 30, 1 << 31, channels), rng.integers(-12, 0, channels))
    found = pack(weights, bias, 7, stage)
    data = unpack(found, channels, depth)
    for got, expected in zip(data, (weights, bias - 7 * weights.sum(1), stage.multiplier, stage.shift), strict=True):
        assert np.array_equal(got, expected)


def test_a_weight_is_a_byte() -> None:
    """Nine bytes for each channel, and for the channels that fill the last eight."""
    stage = stage_of(np.full(20, 1 << 30), np.full(20, -5))
    found = pack(np.ones((20, 37), np.int64), np.zeros(20, np.int64), 0, stage)
    assert found.words.nbytes == 24 * (37 + 9)


def test_missing_channels_are_zero() -> None:
    stage = stage_of(np.full(3, 1 << 30), np.full(3, -5))
    found = pack(np.full((3, 5), 9), np.full(3, 77), 0, stage)
    for values in unpack(found, 8, 5):
        assert not values[3:].any()


BOUNDS = np.array([1000])


@pytest.mark.parametrize(
    "shift, zero_point, clamp, form",
    [
        (-3, -128, (-128, 127), "plain"), (0, -128, (-128, 127), "plain"), (-3, 5, (5, 127), "plain"),
        (-3, 5, (6, 100), "plain"), (-3, 5, (4, 127), "signed"), (-1, 0, (-128, 127), "signed"),
        (0, 0, (-128, 127), "general"), (1, -128, (-128, 127), "general"), (9, 3, (3, 127), "general"),
    ],
)  # fmt: skip
def test_form(shift: int, zero_point: int, clamp: tuple[int, int], form: str) -> None:
    stage = stage_of(np.array([1 << 30]), np.array([shift]), zero_point, clamp)
    assert requantization_form(stage, -BOUNDS, BOUNDS) == form


def test_the_slowest_channel_decides() -> None:
    stage = stage_of(np.full(3, 1 << 30), np.array([-4, 0, -7]))
    assert requantization_form(stage, -np.full(3, 9), np.full(3, 9)) == "general"


@pytest.mark.parametrize("shift, bound, refused", [(0, 2**31 - 256, True), (0, 2**31 - 257, False), (4, 2**27, True)])
def test_what_might_wrap_around_is_refused(shift: int, bound: int, refused: bool) -> None:
    stage = stage_of(np.array([1 << 30]), np.array([shift]))
    if refused:
        with pytest.raises(Unpackable, match="leave int32"):
            requantization_form(stage, -np.array([bound]), np.array([9]))
    else:
        assert requantization_form(stage, -np.array([bound]), np.array([9])) == "general"


def test_clamped_only_if_int8_is_not_enough() -> None:
    assert clamp_fields(stage_of(np.array([1]), np.array([0])))["clamped"] == "0"
    for clamp in ((-127, 127), (-128, 126)):
        fields = clamp_fields(stage_of(np.array([1]), np.array([0]), 3, clamp))
        assert (fields["clamped"], fields["min"], fields["max"]) == ("1", str(clamp[0]), str(clamp[1]))


MULTIPLIERS = (1 << 30, (1 << 30) + 1, 3 << 29, (1 << 31) - 1, 1518500250)
STAGES = [
    (shift, zero_point, clamp)
    for shift in (-31, -12, -8, -3, -1, 0, 1, 6)
    for zero_point, clamp in ((-128, (-128, 127)), (0, (-128, 127)), (127, (-128, 127)), (-3, (-3, 90)), (11, (-50, 60)))
]


def enumerated(shift: int, zero_point: int, clamp: tuple[int, int]) -> Case:
    """A fully connected layer of depth 1 whose channels have sums that round, and what the second implementation says."""
    sums = [ties(multiplier, shift) for multiplier in MULTIPLIERS]
    multipliers = np.repeat(MULTIPLIERS, [part.size for part in sums])
    every = np.concatenate(sums)
    weights = np.zeros((every.size, 1), np.int8)
    weights[::3] = 1
    stage = stage_of(multipliers, np.full(every.size, shift), zero_point, clamp)
    code = fully_connected_code(weights, every - weights[:, 0], 0, stage)
    pairs = zip(every.tolist(), multipliers.tolist(), strict=True)
    expected = [stored(scaled(x, multiplier, shift), zero_point, clamp) for x, multiplier in pairs]
    return Case(code, (np.ones((1, 1), np.int8),), np.array([expected], np.int8))


def ties(multiplier: int, shift: int) -> Int64:
    """Sums of both signs at and beside the places where either rounding is halfway, and others."""
    rng = np.random.default_rng(abs(shift))
    ratio = multiplier * 2.0 ** (shift - 31)
    halves = (np.arange(-140, 141, 7) + 0.5) / ratio
    near = np.concatenate([np.floor(halves) + offset for offset in (-1, 0, 1)])
    spread = rng.integers(-4000, 4000, 24) / max(ratio, 1e-3)
    limit = 2**30 >> max(shift, 0)
    found = np.concatenate([near, spread, [0, 1, -1, 2, -2, 3, -3]])
    return np.clip(found, -limit, limit).astype(np.int64)


def stage_cases() -> dict[str, Case]:
    return {str(stage): enumerated(*stage) for stage in STAGES}


def test_every_form_is_among_the_stages() -> None:
    functions = {case.code.function for case in stage_cases().values()}
    assert functions == {f"nn_fully_connected_mve_{form}" for form in ("plain", "signed", "general")}


@needs_qemu
def test_output_stages_on_a_cortex_m55() -> None:
    """Ties of both roundings, factors from 2^-32 to 64, saturation on both sides."""
    assert wrong_on_m55(stage_cases(), "zig") == []


def test_output_stages_on_the_host() -> None:
    assert_right_on_host(stage_cases())


def window(size: tuple[int, int], channels: int, kernel: tuple[int, int] = (3, 3), **options: tuple[int, ...]) -> Window:
    """SAME padding unless told otherwise."""
    stride = (options.get("stride") or (1, 1))[:2]
    dilation = options.get("dilation") or (1, 1)
    padding = options["padding"] if "padding" in options else same_padding(size, kernel, (stride[0], stride[1]))
    reach = [(kernel[i] - 1) * dilation[i] + 1 for i in (0, 1)]
    output = [(size[i] + padding[2 * i] + padding[2 * i + 1] - reach[i]) // stride[i] + 1 for i in (0, 1)]
    edges = (padding[0], padding[1], padding[2], padding[3])
    steps = (stride[0], stride[1]), (dilation[0], dilation[1])
    return Window(size, channels, kernel, *steps, edges, (output[0], output[1]))


@pytest.mark.parametrize(
    "shape, rows, vectors, tail, gathered",
    [
        (window((9, 9), 16), 3, 3, 0, False), (window((9, 9), 3), 1, 1, 11, True), (window((9, 9), 64, (1, 1)), 1, 4, 0, False),
        (window((9, 9), 57, (1, 1)), 1, 3, 9, False), (window((9, 9), 5, (1, 4)), 1, 1, 4, False),
        (window((9, 9), 16, (3, 3), dilation=(1, 2), padding=(0, 0, 0, 0)), 1, 9, 0, True),
        (window((9, 9), 16, (3, 1), dilation=(2, 1), padding=(0, 0, 0, 0)), 3, 1, 0, False),
        (window((9, 9), 1, (10, 4)), 1, 2, 8, True),
    ],
)  # fmt: skip
def test_reading(shape: Window, rows: int, vectors: int, tail: int, gathered: bool) -> None:
    assert Reading.of(shape) == Reading(rows, vectors, tail, gathered)


def test_scratch_is_two_windows_and_a_vector_behind_each() -> None:
    def _scratch(shape: Window) -> int:
        weights = np.ones((8, *shape.kernel, shape.channels), np.int8)
        stage = stage_of(np.full(8, 1 << 30), np.full(8, -5))
        return conv2d_code(shape, weights, np.zeros(8, np.int64), 0, stage).scratch_bytes

    assert _scratch(window((9, 9), 16)) == 2 * (144 + VECTOR)
    assert _scratch(window((9, 9), 3)) == 2 * (32 + VECTOR)
    assert _scratch(window((9, 9), 64, (1, 1))) == VECTOR
    assert _scratch(window((9, 9), 16, padding=(0, 0, 0, 0))) == VECTOR


def pair_steps(shape: Window) -> Iterator[Step]:
    """Two outputs of a row after the other; what they read is read again while they are written."""
    for row in range(shape.output[0]):
        for outputs in groups([(row, column) for column in range(shape.output[1])], PIXELS):
            reads = frozenset(pixel for output in outputs for pixel in pixels_under(shape, output))
            yield Step(reads, frozenset(outputs))
            yield Step(reads, frozenset())


SHAPES = [
    window((6, 7), 2), window((5, 5), 3, (1, 1)), window((4, 9), 1, (1, 5)), window((9, 4), 2, (5, 1)),
    window((6, 6), 2, padding=(0, 0, 0, 0)), window((5, 6), 1, padding=(2, 2, 2, 2)), window((6, 5), 2, (2, 2)),
]  # fmt: skip
STRIDED = [window((8, 6), 2, stride=(2, 2)), window((7, 7), 2, (1, 1), stride=(2, 3)), window((3, 8), 2, stride=(1, 2))]


@pytest.mark.parametrize("place", range(len(SHAPES)))
@pytest.mark.parametrize("outputs", [1, 2, 5])
def test_distance_is_exact(place: int, outputs: int) -> None:
    """Safe at the distance and beyond, spoilt one byte below it."""
    shape = SHAPES[place]
    ahead = distance(shape, outputs)
    assert not any(spoils(shape, outputs, pair_steps(shape), ahead + more) for more in (0, 1, 7))
    assert spoils(shape, outputs, pair_steps(shape), ahead - 1)


@pytest.mark.parametrize("place", range(len(STRIDED)))
@pytest.mark.parametrize("outputs", [1, 2, 5])
def test_distance_with_strides_is_safe(place: int, outputs: int) -> None:
    shape = STRIDED[place]
    assert not spoils(shape, outputs, pair_steps(shape), distance(shape, outputs))


def test_distances_of_the_reference_models() -> None:
    """ResNet-8's 3x3 layers: a row and three pixels; 1x1 layers: two pixels' outputs."""
    assert distance(window((32, 32), 16), 16) == (32 + 3) * 16
    assert distance(window((1, 125), 64, (1, 1)), 64) == 2 * 64
    assert distance(window((1, 2304), 8, (1, 1)), 16) == 2304 * 16 - 2302 * 8
