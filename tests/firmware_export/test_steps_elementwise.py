"""The passes of add_linear and the copies of image pieces, called directly, against plain loops in numpy."""

from __future__ import annotations

import numpy as np
import pytest
from step_libraries import fresh, on_every_build
from step_models import saturate

VALUES = np.arange(-128, 128)


def sums_of(a: np.ndarray, b: np.ndarray, start: int, factors: tuple[int, int], rounding: int | None) -> np.ndarray:
    """add_linear.h's two forms; rounding None is the unsigned one."""
    total = start + (factors[0] * a >> 8) + (factors[1] * b >> 8)
    if rounding is not None:
        total = total - ((total & 0xFFFFFFFF) >> 28) + rounding
    return saturate(total >> 20)


@on_every_build
@pytest.mark.parametrize("function, rounding", [("nn_add_linear_passes", None), ("nn_add_signed_passes", -3_000_001)])
def test_all_pairs(kind: str, function: str, rounding: int | None) -> None:
    """All 65536 pairs of values, inputs at odd addresses."""
    a, b = np.repeat(VALUES, 256), np.tile(VALUES, 256)
    factors, start = (187_654_321, 213_345_678), 123_456
    expected = sums_of(a, b, start, factors, rounding)
    for part in np.array_split(np.arange(65536), 4):
        library = fresh(kind)
        inputs = [library.put(x[part].astype(np.int8), misaligned=m) for x, m in ((a, 1), (b, 3))]
        output = library.room(part.size, misaligned=2)
        params = library.put_struct("IiiiiI", [part.size, start, *factors, rounding or 0, 0x7F80])
        library.call(function, params, *inputs, output)
        np.testing.assert_array_equal(library.get(output, "i1", part.size), expected[part])
        library.assert_untouched()


@on_every_build
@pytest.mark.parametrize("size, passed", [(8, 8), (15, 8), (16, 16), (23, 16)])
def test_only_whole_passes(kind: str, size: int, passed: int) -> None:
    """What is left of 8 elements is not touched."""
    library, rng = fresh(kind), np.random.default_rng(size)
    a, b = (rng.integers(-128, 128, size) for _ in range(2))
    inputs = [library.put(x.astype(np.int8)) for x in (a, b)]
    output = library.room(size)
    params = library.put_struct("IiiiiI", [size, 5 << 20, 1 << 28, 1 << 27, 0, 0x7F80])
    library.call("nn_add_linear_passes", params, *inputs, output)
    found = library.get(output, "i1", size)
    np.testing.assert_array_equal(found[:passed], sums_of(a, b, 5 << 20, (1 << 28, 1 << 27), None)[:passed])
    assert np.all(found[passed:].view(np.uint8) == 0xC3)


def window_struct(height: int, width: int, channels: int, dilation: tuple[int, int]) -> bytes:
    """nn_window of window.h; only the image and the dilation matter to a copy."""
    fields = [height, width, channels, 0, 0, 0, 0, 0, 0, *dilation, 0, 0]
    return np.array(fields, np.uint16).tobytes()


def patch_of(image: np.ndarray, y: int, x: int, rows: int, columns: int, dilation: tuple[int, int], fill: int) -> np.ndarray:
    """Pixel by pixel."""
    patch = np.full((rows, columns, image.shape[2]), fill)
    for i in range(rows):
        for j in range(columns):
            row, column = y + i * dilation[0], x + j * dilation[1]
            if 0 <= row < image.shape[0] and 0 <= column < image.shape[1]:
                patch[i, j] = image[row, column]
    return patch


@on_every_build
@pytest.mark.parametrize("channels", [1, 3, 4, 6])
@pytest.mark.parametrize("dilation", [(1, 1), (2, 1), (1, 3), (2, 2)])
def test_patches(kind: str, channels: int, dilation: tuple[int, int]) -> None:
    """All places around a small image: inside, over each edge and corner, wholly outside, larger than the image."""
    library, rng = fresh(kind), np.random.default_rng(channels)
    image = rng.integers(-128, 128, (4, 5, channels)).astype(np.int8)
    for y in range(-7, 7, 2):
        for x in range(-8, 8, 3):
            for rows, columns in ((3, 3), (1, 7)):
                library.reset()
                to = library.room(rows * columns * channels, misaligned=1)
                window = library.put(window_struct(4, 5, channels, dilation))
                address = library.put(image, misaligned=3)
                library.call("nn_copy_patch", window, address, y, x, rows, columns, -9, to)
                found = library.get(to, "i1", rows * columns * channels).reshape(rows, columns, channels)
                np.testing.assert_array_equal(found, patch_of(image, y, x, rows, columns, dilation, -9))
                library.assert_untouched()
