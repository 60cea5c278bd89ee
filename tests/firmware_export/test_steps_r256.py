"""step_r256: three pixels times all channels, called directly, against the model written down in step_models."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from kernel_harness.shared_objects import ArmLibrary, Library
from step_libraries import R256_FORMS, fresh, on_every_build, step_library
from step_models import expanded, linear, packed, scaled_sums, signed

PIXELS = 3
STEP_COUNTS = (1, 2, 3, 7, 8, 9, 10, 15, 16, 17, 18, 25, 40)
"""Around the eight unrolled steps and the first one, which stands alone."""


def expand(
    library: Library, pixels: list[int], words: int, rows: int, gaps: list[int], function: str = "nn_r256_expand"
) -> int:
    """Calls an expanding step; gives the address of x."""
    steps = rows * words + (1 if function.endswith("nine") else 0)
    x = library.room(24 * steps)
    source = library.put_struct("PPPIIIII", [*pixels, words, rows, *gaps])
    end = library.call(function, source, x)
    assert (end - x) % (1 << 32) == 24 * steps
    return x


def expected_x(elements: np.ndarray) -> np.ndarray:
    """elements [pixels, steps, 4] -> [steps, 6]: A of three pixels, B of three pixels."""
    a, b = expanded(elements)
    return np.concatenate([a.T, b.T], 1)


@on_every_build
@pytest.mark.parametrize("words", [1, 2, 3, 4, 5, 7, 8, 12])
def test_expand_one_row(kind: str, words: int) -> None:
    """Every remainder of the four unrolled words; pixels at any address."""
    library, rng = fresh(kind), np.random.default_rng(words)
    pixels = rng.integers(-128, 128, (PIXELS, words, 4)).astype(np.int8)
    addresses = [library.put(pixel, misaligned=place + 1) for place, pixel in enumerate(pixels)]
    x = expand(library, addresses, words, 1, [0, 0, 0])
    np.testing.assert_array_equal(library.get(x, "u4", 6 * words).reshape(words, 6), expected_x(pixels.astype(np.int64)))
    library.assert_untouched()


@on_every_build
@pytest.mark.parametrize("words, rows, gaps", [(2, 3, (1, 1, 1)), (1, 10, (8, 8, 8)), (3, 2, (4, 0, 20)), (4, 4, (0, 5, 9))])
def test_expand_rows_with_gaps(kind: str, words: int, rows: int, gaps: tuple[int, int, int]) -> None:
    """Each pixel has its own way from row to row, as copied windows beside ones on the image."""
    library, rng = fresh(kind), np.random.default_rng(rows)
    elements, addresses = np.empty((PIXELS, rows * words, 4), np.int64), []
    for pixel, gap in enumerate(gaps):
        image = rng.integers(-128, 128, (rows, 4 * words + gap)).astype(np.int8)
        elements[pixel] = image[:, : 4 * words].reshape(-1, 4)
        addresses.append(library.put(image))
    x = expand(library, addresses, words, rows, list(gaps))
    found = library.get(x, "u4", 6 * rows * words).reshape(-1, 6)
    np.testing.assert_array_equal(found, expected_x(elements))
    library.assert_untouched()


@on_every_build
def test_expand_all_byte_values(kind: str) -> None:
    """Every pair of neighbouring bytes: 65536 of them, so that no carry or sign is missed."""
    library = fresh(kind)
    first, second = np.divmod(np.arange(65536), 256)
    pairs = np.stack([first, second], 1).astype(np.uint8).view(np.int8).reshape(-1, 4)
    for part in np.array_split(pairs, 8):
        library.reset()
        address = library.put(part)
        x = expand(library, [address] * PIXELS, len(part), 1, [0, 0, 0])
        found = library.get(x, "u4", 6 * len(part)).reshape(-1, 6)
        np.testing.assert_array_equal(found, expected_x(np.broadcast_to(part.astype(np.int64), (PIXELS, *part.shape))))


@on_every_build
@pytest.mark.parametrize("gap", [1, 4, 87])
def test_expand_nine(kind: str, gap: int) -> None:
    """Three rows of nine bytes: two words of each row, then the three ninth bytes and a zero."""
    library, rng = fresh(kind), np.random.default_rng(gap)
    elements, addresses = [], []
    for _ in range(PIXELS):
        image = rng.integers(-128, 128, (3, 8 + gap)).astype(np.int8)
        last = np.append(image[:, 8] if gap > 0 else [], 0)
        elements.append(np.concatenate([image[:, :8].reshape(-1), last]).reshape(-1, 4))
        addresses.append(library.put(image, misaligned=3))
    x = expand(library, addresses, 2, 3, [gap] * 3, "nn_r256_expand_nine")
    np.testing.assert_array_equal(library.get(x, "u4", 42).reshape(7, 6), expected_x(np.array(elements, np.int64)))
    library.assert_untouched()


@dataclass
class Channels:
    """A random call: weights [channels, 4 * steps], elements [pixels, 4 * steps], constants per channel."""

    weights: np.ndarray
    elements: np.ndarray
    start: np.ndarray
    factor: np.ndarray
    negative: np.ndarray
    rounding: int

    @staticmethod
    def random(rng: np.random.Generator, channels: int, steps: int) -> Channels:
        """Factors that spread the outputs of every shift; starts and negatives of any size that is used."""
        return Channels(
            rng.integers(-127, 128, (channels, 4 * steps)),
            rng.integers(-128, 128, (PIXELS, 4 * steps)),
            rng.integers(-(1 << 26), 1 << 26, channels),
            rng.integers(1 << 24, 1 << 30, channels) // steps,
            rng.integers(0, 512, channels),
            int(rng.integers(-(1 << 17), 1 << 17)),
        )

    @property
    def count(self) -> int:
        return self.weights.shape[0]

    def sums(self) -> np.ndarray:
        """[channels, pixels]."""
        return scaled_sums(self.start, self.weights, self.elements)

    def records(self, constants: list[np.ndarray]) -> np.ndarray:
        """start[2], steps x word[2], constants[2] each, for every two channels; zeros for a missing second one."""
        pad = self.count % 2
        words = np.pad(packed(self.weights.reshape(self.count, -1, 4)), ((0, pad), (0, 0)))
        rows = []
        for pair in range(0, self.count, 2):
            parts = [np.pad(self.start, (0, pad))[pair : pair + 2], words[pair : pair + 2].T.reshape(-1)]
            parts += [np.pad(values, (0, pad))[pair : pair + 2] for values in constants]
            rows.append(np.concatenate([part.astype(np.int64) & 0xFFFFFFFF for part in parts]))
        return np.concatenate(rows).astype(np.uint32)


def call_channels(library: Library, function: str, case: Channels, outputs: list[int], constants: list[np.ndarray]) -> None:
    x = expected_x(case.elements.reshape(PIXELS, -1, 4))
    records = case.records(constants)
    weights = library.put(records)
    limit = weights + 4 * (records.size - 1 + case.count % 2)
    block = [*outputs, library.put(x), x.shape[0], limit, case.rounding, weights]
    library.call(function, library.put_struct("PPPPIPiP", block))


@on_every_build
@pytest.mark.parametrize("form", R256_FORMS)
def test_channels(kind: str, form: str) -> None:
    """Odd and even numbers of channels, every number of steps around the unrolled ones."""
    name, shift = form.split("_")
    for steps in STEP_COUNTS:
        library, rng = fresh(kind), np.random.default_rng(steps)
        case = Channels.random(rng, 1 + steps % 5, steps)
        outputs = [library.room(case.count, misaligned=place) for place in range(PIXELS)]
        constants = [case.factor] if name == "linear" else [case.factor, case.negative]
        call_channels(library, f"nn_r256_{form}", case, outputs, constants)
        expected = (
            linear(case.sums(), case.factor[:, None], int(shift))
            if name == "linear"
            else signed(case.sums(), case.factor[:, None], case.negative[:, None], case.rounding, int(shift))
        )
        found = np.stack([library.get(output, "i1", case.count) for output in outputs], 1)
        np.testing.assert_array_equal(found, expected)
        library.assert_untouched()


@on_every_build
@pytest.mark.parametrize("steps", STEP_COUNTS)
def test_sums(kind: str, steps: int) -> None:
    """Without output stage: int32 [record, channel, pixel]."""
    library, rng = fresh(kind), np.random.default_rng(steps)
    case = Channels.random(rng, 4, steps)
    address = library.room(4 * 4 * PIXELS)
    call_channels(library, "nn_r256_sums", case, [address, 0, 0], [])
    np.testing.assert_array_equal(library.get(address, "i4", 12).reshape(4, PIXELS), case.sums())
    library.assert_untouched()


@on_every_build
def test_largest_sums_wrap_around_on_the_way_only(kind: str) -> None:
    """Partial sums beyond int32 come back: the largest weights with alternating signs, start near the end of int32."""
    library = fresh(kind)
    steps = 40
    elements = np.full((PIXELS, 4 * steps), -128)
    weights = np.where(np.arange(4 * steps) < 2 * steps, 127, -127)[None].repeat(2, 0)
    case = Channels(weights, elements, np.array([(1 << 31) - 9, -(1 << 31)]), np.array([1, 1]), np.array([0, 0]), 0)
    address = library.room(4 * 2 * PIXELS)
    call_channels(library, "nn_r256_sums", case, [address, 0, 0], [])
    np.testing.assert_array_equal(library.get(address, "i4", 6).reshape(2, PIXELS), case.sums())


@on_every_build
def test_two_pixels_may_be_the_same(kind: str) -> None:
    """As at the end of an image: equal pixels write equal bytes to one place."""
    library, rng = fresh(kind), np.random.default_rng(3)
    case = Channels.random(rng, 5, 6)
    case.elements[2] = case.elements[1]
    outputs = [library.room(5), library.room(5)]
    call_channels(library, "nn_r256_linear_10", case, [*outputs, outputs[1]], [case.factor])
    found = np.stack([library.get(output, "i1", 5) for output in outputs], 1)
    np.testing.assert_array_equal(found, linear(case.sums(), case.factor[:, None], 10)[:, :2])
    library.assert_untouched()


@pytest.mark.parametrize("steps", [1, 2, 9, 17, 72])
def test_instructions_of_the_inner_loop(steps: int) -> None:
    """17 for each step; 27 for each pair of channels and 2 for every eight steps; at most 32 for the call."""
    library = step_library("zig")
    assert isinstance(library, ArmLibrary)
    counts = []
    for channels in (2, 4):
        library.reset()
        case = Channels.random(np.random.default_rng(1), channels, steps)
        outputs = [library.room(channels) for _ in range(PIXELS)]
        call_channels(library, "nn_r256_linear_10", case, outputs, [case.factor])
        counts.append(library.instructions)
    pair = counts[1] - counts[0]
    loops = max(1, -(-(steps - 1) // 8))
    assert pair == 17 * steps + 2 * loops + 27
    assert counts[0] - pair <= 32
