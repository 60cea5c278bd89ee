"""step_trio_depthwise and step_octet, called directly, against numpy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from kernel_harness.shared_objects import ArmLibrary, Library
from trio_steps import fresh, on_every_build, signed32, value, words_of

SHAPES = [(1, 1), (1, 2), (2, 1), (3, 5), (4, 16), (2, 33)]
"""Rows and columns of outputs in each place."""


def gather(
    library: Library, images: list[np.ndarray], steps: list[int], gaps: list[int], shape: tuple[int, int], x_gap: int
) -> int:
    """Calls the step; the address of the pairs."""
    rows, pixels = shape
    x = library.put(np.full(rows * (2 * pixels + x_gap // 4), 0x5A5A5A5A, np.uint32))
    addresses = [library.put(image, misaligned=place + 1) for place, image in enumerate(images)]
    library.call("nn_trio_gather", library.put_struct("PPPIIIiiiPIII", [*addresses, *steps, *gaps, x, x_gap, pixels, rows]))
    return x


@on_every_build
@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (3, 4), (2, 9), (5, 1)])
@pytest.mark.parametrize("step, x_gap", [(1, 0), (3, 16), (64, 8)])
def test_gather(kind: str, shape: tuple[int, int], step: int, x_gap: int) -> None:
    """Pixels apart as channels have it; what lies between the rows of pairs stays."""
    library, rng = fresh(kind), np.random.default_rng(step)
    rows, pixels = shape
    gap = step + 2
    pitch = pixels * step + gap
    images = [rng.integers(-128, 128, rows * pitch).astype(np.int8) for _ in range(3)]
    x = gather(library, images, [step] * 3, [gap] * 3, shape, x_gap)
    found = library.get(x, "u4", rows * (2 * pixels + x_gap // 4)).reshape(rows, -1)
    places = np.arange(rows)[:, None] * pitch + np.arange(pixels) * step
    trios = np.stack([image[places] for image in images], -1).astype(np.int64)
    np.testing.assert_array_equal(found[:, : 2 * pixels], words_of(trios).reshape(rows, -1))
    assert np.all(found[:, 2 * pixels :] == 0x5A5A5A5A)
    library.assert_untouched()


@on_every_build
@pytest.mark.parametrize("outside", [(0,), (2,), (0, 2), (1,), (0, 1, 2)])
def test_gather_outside_the_image(kind: str, outside: tuple[int, ...]) -> None:
    """A step and a gap of 0 repeat one byte; other places go on, also backwards from row to row."""
    library, rng = fresh(kind), np.random.default_rng(2)
    rows, pixels, step = 3, 4, 2
    images = [rng.integers(-128, 128, 64).astype(np.int8) for _ in range(3)]
    steps = [0 if place in outside else step for place in range(3)]
    gaps = [0 if place in outside else 5 - pixels * step for place in range(3)]
    x = gather(library, images, steps, gaps, (rows, pixels), 0)
    found = library.get(x, "u4", 2 * rows * pixels).reshape(rows, -1)
    places = np.arange(rows)[:, None] * 5 + np.arange(pixels) * step
    trios = [image[0 * places if place in outside else places] for place, image in enumerate(images)]
    np.testing.assert_array_equal(found, words_of(np.stack(trios, -1).astype(np.int64)).reshape(rows, -1))
    library.assert_untouched()


@dataclass
class Plane:
    """A random call: images [3, x rows, x columns], a kernel [9] and constants."""

    images: np.ndarray
    kernel: np.ndarray
    stride: int
    shape: tuple[int, int]
    start: int
    factor: int
    shift: int
    negative: int
    rounding: int

    @staticmethod
    def random(rng: np.random.Generator, shape: tuple[int, int], stride: int) -> Plane:
        size = [(count - 1) * stride + 3 for count in shape]
        kernel = rng.integers(-128, 128, 9)
        reach = 128 * int(np.abs(kernel).sum())
        start = int(rng.integers(-1, 2)) * (((1 << 20) - 8 - reach) << 11) + int(rng.integers(0, 2048))
        shift = int(rng.integers(4, 20))
        return Plane(
            rng.integers(-128, 128, (3, *size)), kernel, stride, shape, start,
            int(rng.integers(1 << 22, (1 << 30) - (1 << 20))), shift, int(rng.integers(0, 1 << shift)),
            int(rng.integers(-128, 128)) << shift,
        )  # fmt: skip

    def scaled(self) -> np.ndarray:
        """[3, rows, columns]."""
        views = np.lib.stride_tricks.sliding_window_view(self.images, (3, 3), axis=(1, 2))
        sums = (views[:, :: self.stride, :: self.stride].reshape(3, *self.shape, 9) * self.kernel).sum(-1)
        return (sums << 11) + self.start


def call(library: Library, plane: Plane, form: str, output: int, apart: tuple[int, int], step: int, gap: int) -> None:
    rows, columns = plane.shape
    pairs = words_of(np.moveaxis(plane.images, 0, -1)).astype(np.uint32)
    pitch = 8 * pairs.shape[1]
    x_step, x_gap = 8 * plane.stride - 2 * pitch, plane.stride * (pitch - 8 * columns)
    values = [plane.start, plane.factor, *apart, plane.shift, plane.negative, plane.rounding, output, step]
    values += [output + columns * step, x_step, columns * step, gap, x_gap, pitch, library.put(pairs), rows, *plane.kernel]
    library.call(f"nn_trio_plane_{form}", library.put_struct("iiIIIiiPIPIIiIIPIiiiiiiiii", [int(v) for v in values]))


@on_every_build
@pytest.mark.parametrize("form", ["linear", "signed"])
@pytest.mark.parametrize("stride", [1, 2])
def test_plane(kind: str, form: str, stride: int) -> None:
    """Outputs of three places, apart from each other and side by side with other channels."""
    for shape in SHAPES:
        library, rng = fresh(kind), np.random.default_rng(shape[1])
        plane = Plane.random(rng, shape, stride)
        rows, columns = shape
        step, gap = 3, 7
        place_bytes = rows * (columns * step + gap)
        output = library.put(np.full(3 * place_bytes, 77, np.int8))
        call(library, plane, form, output, (place_bytes, 2 * place_bytes), step, gap)
        found = library.get(output, "i1", 3 * place_bytes).reshape(3, rows, -1)
        scaled = plane.scaled()
        expected = value(scaled, plane.factor, plane.shift)
        if form == "signed":
            expected = value(scaled, plane.factor, plane.shift, plane.negative, plane.rounding)
        np.testing.assert_array_equal(found[:, :, : columns * step : step], expected)
        untouched = np.ones(found.shape[2], bool)
        untouched[: columns * step : step] = False
        assert np.all(found[:, :, untouched] == 77)
        library.assert_untouched()


@on_every_build
def test_places_may_be_the_same(kind: str) -> None:
    """As in an image of one row: equal pixels write equal bytes to one place."""
    library, rng = fresh(kind), np.random.default_rng(3)
    plane = Plane.random(rng, (1, 4), 1)
    plane.images[:] = plane.images[0]
    output = library.room(4)
    call(library, plane, "signed", output, (0, 0), 1, 0)
    expected = value(plane.scaled(), plane.factor, plane.shift, plane.negative, plane.rounding)
    np.testing.assert_array_equal(library.get(output, "i1", 4), expected[0, 0])
    library.assert_untouched()


@pytest.mark.parametrize("kind, trio", [("m3-zig", 57), ("m0-zig", 163)])
def test_instructions_of_three_outputs(kind: str, trio: int) -> None:
    counts = []
    for columns in (8, 16):
        library = fresh(kind)
        plane = Plane.random(np.random.default_rng(1), (1, columns), 1)
        call(library, plane, "linear", library.room(3 * columns), (columns, 2 * columns), 1, 0)
        assert isinstance(library, ArmLibrary)
        counts.append(library.instructions)
    assert (counts[1] - counts[0]) / 8 <= trio


def octet(library: Library, kind: str, x: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The sums T of eight outputs; weights [8, depth]."""
    depth = x.size
    u = library.room(depth * (4 if "m0" in kind else 1))
    total = library.call("nn_octet_expand", library.put(x.astype(np.int8), misaligned=1), depth, u)
    assert total & 0xFFFFFFFF == int((x.astype(int) + 128).sum())
    packed = (weights.T + 128).astype(np.uint8)
    sums = library.room(32)
    library.call("nn_octet_sums", u, library.put(packed), depth, total, sums)
    library.assert_untouched()
    return library.get(sums, "i4", 8)


@on_every_build
@pytest.mark.parametrize("depth", [1, 2, 3, 7, 8, 9, 15, 16, 17, 40, 255])
def test_octet(kind: str, depth: int) -> None:
    """Every remainder of the eight unrolled elements; T = sum((x + 128) w)."""
    library, rng = fresh(kind), np.random.default_rng(depth)
    x, weights = rng.integers(-128, 128, depth), rng.integers(-128, 128, (8, depth))
    np.testing.assert_array_equal(octet(library, kind, x, weights), (x + 128) @ weights.T)


@on_every_build
@pytest.mark.parametrize("x", [-128, 0, 127])
def test_octet_at_the_ends_of_24_bits(kind: str, x: int) -> None:
    """The largest sums beside the smallest, in every one of the eight places."""
    depth = 256
    for turn in range(8):
        library = fresh(kind)
        column = np.roll([127, -128, -128, 127, 0, 1, -1, 127], turn)
        weights = column[:, None].repeat(depth, 1)
        expected = np.full(8, depth * (x + 128)) * column
        assert np.abs(expected).max() < 1 << 23
        np.testing.assert_array_equal(octet(library, kind, np.full(depth, x), weights), expected)


@on_every_build
def test_octet_of_a_vector_of_zeros(kind: str) -> None:
    """All u are 0, and with them the total: what the sums start from has no borrow then."""
    library = fresh(kind)
    weights = np.random.default_rng(4).integers(-128, 128, (8, 20))
    assert not octet(library, kind, np.full(20, -128), weights).any()


@pytest.mark.parametrize("kind, octet_element", [("m3-zig", 8), ("m0-zig", 24)])
def test_instructions_of_the_octet_loop(kind: str, octet_element: int) -> None:
    counts = []
    for depth in (64, 128):
        library, rng = fresh(kind), np.random.default_rng(5)
        u, weights = library.room(4 * depth), library.put(rng.integers(0, 256, 8 * depth).astype(np.uint8))
        library.call("nn_octet_sums", u, weights, depth, 17, library.room(32))
        assert isinstance(library, ArmLibrary)
        counts.append(library.instructions)
    assert octet_element * 64 < counts[1] - counts[0] < (octet_element + 1.5) * 64


def test_models_agree_with_a_plain_sum() -> None:
    plane = Plane.random(np.random.default_rng(6), (2, 3), 2)
    window = plane.images[1, 2:5, 4:7].reshape(-1)
    assert signed32(plane.scaled()[1, 1, 2]) == (int(window @ plane.kernel) << 11) + plane.start
