"""step_trio: six pixels times all channels, called directly, against numpy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from kernel_harness.shared_objects import ArmLibrary, Library
from trio_steps import BIAS, MASK, expanded, flips, fresh, on_every_build, signed32, value, words_of

DEPTHS = (2, 4, 8, 10, 12, 14, 16, 18, 24, 26, 32, 66)
"""Even numbers around the sixteen and the twelve unrolled elements."""
LINEAR, SIGNED, RAW = range(3)


def expand(library: Library, address: int, step: int, row_bytes: int, rows: int, gap: int) -> tuple[np.ndarray, np.ndarray]:
    """Calls the step; x [depth, 4] and the sums."""
    depth = rows * row_bytes
    x, sums = library.room(16 * depth), library.put(np.zeros(4, np.uint32))
    source = library.put_struct("PIIII", [address, step, row_bytes, rows, gap])
    end = library.call("nn_trio_expand", source, x, sums)
    assert (end - x) % (1 << 32) == 16 * depth
    found = library.get(x, "u4", 4 * depth).reshape(depth, 4)
    library.assert_untouched()
    return found, library.get(sums, "u4", 4)


@on_every_build
@pytest.mark.parametrize("row_bytes", [1, 2, 3, 4, 5, 7, 8, 9, 13])
def test_expand_one_row(kind: str, row_bytes: int) -> None:
    """Every remainder of the four unrolled bytes; pixels at any address, side by side or apart."""
    library, rng = fresh(kind), np.random.default_rng(row_bytes)
    for step in (row_bytes, row_bytes + 5):
        image = rng.integers(-128, 128, 6 * step).astype(np.int8)
        x, _ = expand(library, library.put(image, misaligned=3), step, row_bytes, 1, 0)
        pixels = image.reshape(6, step)[:, :row_bytes].astype(np.int64)
        np.testing.assert_array_equal(x, expanded(pixels))


@on_every_build
@pytest.mark.parametrize(
    "row_bytes, rows, gap, step", [(3, 3, 20, 1), (4, 2, 1, 4), (9, 3, 60, 3), (1, 10, 6, 2), (6, 5, 0, 30)]
)
def test_expand_rows(kind: str, row_bytes: int, rows: int, gap: int, step: int) -> None:
    """Rows with and without a gap, pixels that overlap as the windows of a convolution do."""
    library, rng = fresh(kind), np.random.default_rng(rows)
    pitch = row_bytes + gap
    image = rng.integers(-128, 128, rows * pitch + 6 * step).astype(np.int8)
    x, _ = expand(library, library.put(image), step, row_bytes, rows, gap)
    places = np.arange(6)[:, None, None] * step + np.arange(rows)[:, None] * pitch + np.arange(row_bytes)
    np.testing.assert_array_equal(x, expanded(image[places].reshape(6, -1).astype(np.int64)))


@on_every_build
def test_sums_of_the_words(kind: str) -> None:
    """They are what flipped weights add 128 times; an M3, which has none, leaves them alone."""
    library, rng = fresh(kind), np.random.default_rng(1)
    image = rng.integers(-128, 128, 6 * 11).astype(np.int8)
    x, sums = expand(library, library.put(image), 11, 11, 1, 0)
    expected = x.astype(np.int64).sum(0) & MASK
    np.testing.assert_array_equal(sums, 0 * expected if "m3" in kind else expected)


@on_every_build
def test_all_values_of_neighbours(kind: str) -> None:
    """Every pair of values in the first two pixels of a trio, so that no carry or sign is missed."""
    library = fresh(kind)
    first, second = np.divmod(np.arange(65536), 256)
    pairs = np.stack([first, second], 1).astype(np.uint8).view(np.int8)
    for part in np.array_split(pairs, 64)[::9]:
        library.reset()
        pixels = np.stack([part[:, 0], part[:, 1], part[:, 1], part[:, 0], part[:, 0], part[:, 1]])
        x, _ = expand(library, library.put(pixels), len(part), len(part), 1, 0)
        np.testing.assert_array_equal(x, expanded(pixels.astype(np.int64)))


@dataclass
class Channels:
    """A random call: weights [channels, depth], pixels [6, depth], constants of each channel."""

    weights: np.ndarray
    pixels: np.ndarray
    start: np.ndarray
    factor: np.ndarray
    negative: np.ndarray
    rounding: int
    shift: int

    @staticmethod
    def random(rng: np.random.Generator, channels: int, depth: int) -> Channels:
        """Sums and starts as large as may be; factors that spread the outputs or saturate them."""
        weights = rng.integers(-128, 128, (channels, depth))
        weights[np.abs(weights).sum(1) * 128 >= BIAS * 3 // 4] //= 4
        reach = np.abs(weights).sum(1) * 128
        start = rng.integers(-1, 2, channels) * ((BIAS - 8 - reach) << 11) + rng.integers(0, 2048, channels)
        factor = rng.integers(1 << 20, (1 << 30) - (1 << 20), channels)
        shift = int(rng.integers(1, 21))
        pixels = rng.integers(-128, 128, (6, depth))
        negative, rounding = rng.integers(0, 1 << shift, channels), int(rng.integers(-128, 128)) << shift
        return Channels(weights, pixels, start, factor, negative, rounding, shift)

    @property
    def count(self) -> int:
        return self.weights.shape[0]

    def values(self, form: int) -> np.ndarray:
        """int8 [6, channels]."""
        scaled = ((self.pixels @ self.weights.T) << 11) + self.start
        assert np.abs(scaled).max() < 1 << 31
        if form == LINEAR:
            return value(scaled, self.factor, self.shift)
        return value(scaled, self.factor, self.shift, self.negative, self.rounding)

    def records(self, form: int, flipped: bool) -> np.ndarray:
        """Bytes: weights of two channels side by side, constants of one and the other; none for a missing second one."""
        pad = self.count % 2
        weights = np.pad(self.weights, ((0, pad), (0, 0))).astype(np.int8).view(np.uint8) ^ (0x80 if flipped else 0)
        constants = [self.start, self.factor, self.negative][: {LINEAR: 2, SIGNED: 3, RAW: 0}[form]]
        rows = []
        for pair in range(0, self.count, 2):
            rows.append(weights[pair : pair + 2].T.reshape(-1).astype(np.uint8))
            for channel in range(pair, min(pair + 2, self.count)):
                words = np.array([int(c[channel]) & MASK for c in constants], "<u4")
                rows.append(words.view(np.uint8))
        return np.concatenate(rows)


def first_words(case: Channels, flipped: bool) -> list[int]:
    """2^20 in all sums, and what makes good the flip of the weights."""
    bias = words_of(np.full((1, 3), BIAS))[0].tolist() * 2
    sums = expanded(case.pixels).sum(0) * (128 if flipped else 0)
    return [int(word - part) & MASK for word, part in zip(bias, sums, strict=True)]


def call(library: Library, case: Channels, form: int, flipped: bool, output: int, step: int) -> None:
    depth = case.weights.shape[1]
    x, records = library.put(expanded(case.pixels).astype(np.uint32)), case.records(form, flipped)
    weights = library.put(records)
    is_odd = case.count % 2 == 1 and form != RAW
    limit = weights + records.size - (0 if is_odd else 1)
    unrolled = 12 if isinstance(library, ArmLibrary) and "m0" in str(library.kind) else 16
    values = [step, case.shift, output, limit, case.rounding, x, depth, weights, *first_words(case, flipped), form]
    block = library.put_struct("IIPPiPIPIIIIII", [*values, -depth % unrolled])
    library.call("nn_trio_channels_flipped" if flipped else "nn_trio_channels", block)


def steps_of(kind: str) -> Library:
    """A library that knows which core it is for: the caller tells the assembly how much of the unrolled loop to skip."""
    library = fresh(kind)
    library.kind = kind  # type: ignore[attr-defined]
    return library


@on_every_build
@pytest.mark.parametrize("form", [LINEAR, SIGNED])
def test_channels(kind: str, form: int) -> None:
    """Odd and even numbers of channels, every depth around the unrolled ones, outputs side by side and apart."""
    for flipped in flips(kind):
        for depth in DEPTHS:
            library, rng = steps_of(kind), np.random.default_rng(depth)
            case = Channels.random(rng, 1 + depth // 2 % 5, depth)
            step = case.count + depth % 3
            output = library.put(np.zeros(5 * step + case.count, np.int8))
            call(library, case, form, flipped, output, step)
            found = library.get(output, "i1", 5 * step + case.count)
            rows = np.stack([found[pixel * step : pixel * step + case.count] for pixel in range(6)])
            np.testing.assert_array_equal(rows, case.values(form))
            between = np.concatenate([found[pixel * step + case.count : (pixel + 1) * step] for pixel in range(5)])
            assert not between.any()
            library.assert_untouched()


@on_every_build
@pytest.mark.parametrize("depth", DEPTHS)
def test_words(kind: str, depth: int) -> None:
    """Without output stage: [channel][4]; the sums are what nn_trio_sums finds."""
    for flipped in flips(kind):
        library, rng = steps_of(kind), np.random.default_rng(depth)
        case = Channels.random(rng, 4, depth)
        output = library.room(4 * 16)
        call(library, case, RAW, flipped, output, 1)
        words = library.get(output, "u4", 16).reshape(4, 2, 2).astype(np.int64)
        low = words[..., 0] >> 21
        rest = (words[..., 1] - (low << 10)) & MASK
        sums = np.stack([words[..., 0] & 0x1FFFFF, (rest >> 21 << 11) + low, rest & 0x1FFFFF], -1) - BIAS
        products = (case.weights @ case.pixels.T).reshape(4, 3, 2).transpose(0, 2, 1)
        np.testing.assert_array_equal(sums, products)
        library.assert_untouched()


@on_every_build
def test_sums_at_the_ends_of_21_bits(kind: str) -> None:
    """All six pixels at one end, or three at each: fields of neighbours must not disturb each other."""
    for flipped in flips(kind):
        for signs in ((1,) * 6, (-1,) * 6, (1, -1, -1, 1, 1, -1), (-1, 1, 1, -1, -1, 1)):
            library = steps_of(kind)
            pixels = np.where(np.array(signs) > 0, 127, -128)[:, None].repeat(64, 1)
            weights = np.stack([np.full(64, 127), np.full(64, -127)])
            case = Channels(weights, pixels, np.array([0, -1]), np.full(2, (1 << 30) - (1 << 20)), np.array([3, 9]), 5, 12)
            output = library.room(12)
            call(library, case, SIGNED, flipped, output, 2)
            np.testing.assert_array_equal(library.get(output, "i1", 12).reshape(6, 2), case.values(SIGNED))


@on_every_build
def test_every_value_comes_out(kind: str) -> None:
    """A factor that makes one sum step by one after the other through all of int8 and beyond both ends."""
    for flipped in flips(kind):
        for first in range(-140, 140, 6):
            library = steps_of(kind)
            pixels = np.clip(first + np.arange(6), -128, 127)[:, None].repeat(2, 1)
            weights = np.array([[1, 0], [1, 1], [-1, -1]])
            start = np.array([5 << 11, 0, (1 << 11) - 1])
            case = Channels(weights, pixels, start, np.full(3, 1 << 29), np.full(3, 64), 0, 8)
            output = library.room(18)
            call(library, case, LINEAR, flipped, output, 3)
            np.testing.assert_array_equal(library.get(output, "i1", 18).reshape(6, 3), case.values(LINEAR))


@pytest.mark.parametrize("depth", [16, 64])
def test_instructions_of_the_inner_loop(depth: int) -> None:
    """Cortex-M3: 12 for each element of two channels and six pixels. Cortex-M0+: 10 for one channel."""
    for kind, element, most in (("m3-zig", 12, 130), ("m0-zig", 20, 520)):
        counts = []
        for channels in (2, 4):
            library = steps_of(kind)
            case = Channels.random(np.random.default_rng(1), channels, depth)
            call(library, case, LINEAR, "m0" in kind, library.room(6 * channels), channels)
            assert isinstance(library, ArmLibrary)
            counts.append(library.instructions)
        assert element * depth < counts[1] - counts[0] < element * depth * 33 / 32 + most


def test_the_model_wraps_as_words_do() -> None:
    assert signed32(np.array([1 << 31, (1 << 32) + 5, -1])).tolist() == [-(1 << 31), 5, -1]
    assert words_of(np.array([[-1, -1, -1]])).tolist() == [[(-1 - (1 << 21)) & MASK, (-1 - (1 << 10)) & MASK]]
