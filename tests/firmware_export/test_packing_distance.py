"""Read-before-write distances of the convolutions against a model that moves every byte, and never more than needed."""

from __future__ import annotations

import numpy as np
import pytest
from overlap_model import r256_steps, spoils, winograd_steps

from firmware_export.geometry import same_padding
from firmware_export.operators._window import Window
from firmware_export.packing.conv2d_r256 import distance as r256_distance
from firmware_export.packing.conv2d_winograd import Blocking
from firmware_export.packing.conv2d_winograd import distance as winograd_distance


def window(
    size: tuple[int, int],
    channels: int,
    kernel: tuple[int, int] = (3, 3),
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int, int, int] | None = None,
) -> Window:
    """SAME padding unless told otherwise."""
    padding = same_padding(size, kernel, stride) if padding is None else padding
    output = [(size[i] + padding[2 * i] + padding[2 * i + 1] - kernel[i]) // stride[i] + 1 for i in (0, 1)]
    return Window(size, channels, kernel, stride, (1, 1), padding, (output[0], output[1]))


WINDOWS = [
    window((6, 7), 2), window((5, 5), 3, (1, 1)), window((8, 6), 2, stride=(2, 2)), window((4, 9), 1, (1, 5)),
    window((9, 4), 2, (5, 1)), window((6, 6), 2, padding=(0, 0, 0, 0)), window((5, 6), 1, padding=(2, 2, 2, 2)),
    window((7, 7), 2, (1, 1), (2, 3)), window((3, 8), 2, (3, 3), (1, 2)), window((6, 5), 2, (2, 2)),
]  # fmt: skip


@pytest.mark.parametrize("place", range(len(WINDOWS)))
@pytest.mark.parametrize("outputs", [1, 2, 5])
def test_r256_is_exact(place: int, outputs: int) -> None:
    """Safe at the distance, spoilt one byte below it."""
    shape = WINDOWS[place]
    ahead = r256_distance(shape, outputs)
    assert not spoils(shape, outputs, r256_steps(shape), ahead)
    assert spoils(shape, outputs, r256_steps(shape), ahead - 1)


@pytest.mark.parametrize("place", range(len(WINDOWS)))
def test_r256_is_safe_beyond_it(place: int) -> None:
    """Farther apart is never worse."""
    shape = WINDOWS[place]
    ahead = r256_distance(shape, 3)
    assert not any(spoils(shape, 3, r256_steps(shape), ahead + more) for more in (1, 2, 7, 30))


@pytest.mark.parametrize("size", [(6, 6), (7, 5), (4, 9), (5, 8)])
@pytest.mark.parametrize("padding", [(1, 1, 1, 1), (0, 0, 0, 0), (2, 2, 2, 2), (0, 1, 2, 0)])
@pytest.mark.parametrize("tiles", [2, 4, 6])
def test_winograd_is_safe_and_close(size: tuple[int, int], padding: tuple[int, int, int, int], tiles: int) -> None:
    """Safe at the distance; below it by a pixel of the image it is not, unless one block holds all tiles."""
    shape = window(size, 2, padding=padding)
    for outputs in (2, 4):
        blocking = Blocking(tiles, False)
        ahead = winograd_distance(shape, outputs, blocking)
        assert not spoils(shape, outputs, winograd_steps(shape, tiles), ahead)
        count = -(-shape.output[0] // 2) * -(-shape.output[1] // 2)
        if count > tiles:
            assert spoils(shape, outputs, winograd_steps(shape, tiles), ahead - 1)


def test_three_pixels_or_fewer_may_lie_anywhere() -> None:
    """Everything is read before anything is written."""
    for size in ((1, 1), (1, 3), (3, 1)):
        assert r256_distance(window(size, 4), 9) == -size[0] * size[1] * 4


def test_distances_of_the_reference_models() -> None:
    """ResNet-8's 3x3 layers: a row and a few pixels; the visual wake words' 1x1 that grows: half of its output."""
    assert r256_distance(window((32, 32), 16), 16) == 33 * 16
    assert r256_distance(window((8, 8), 64), 64) == 9 * 64
    assert r256_distance(window((48, 48), 8, (1, 1)), 16) == (48 * 48 - 3) * 8
    assert r256_distance(window((25, 5), 64, (1, 1)), 64) == 0
    assert r256_distance(window((32, 32), 16, (3, 3), (2, 2)), 32) <= 0


def test_growing_pixels_need_what_they_grow() -> None:
    """A 1x1 layer from c to 2c channels: the output ends at the end of the input at best."""
    shape = window((4, 6), 5, (1, 1))
    assert r256_distance(shape, 10) == 21 * 10 - 21 * 5
    assert r256_distance(shape, 5) == 0
    assert r256_distance(shape, 4) == 3 * 4 - 3 * 5


def test_more_tiles_at_a_time_reach_farther_back() -> None:
    """A block is read as a whole, so that larger ones may write over more of the input."""
    shape = window((16, 16), 4)
    ahead = [winograd_distance(shape, 4, Blocking(tiles, False)) for tiles in (2, 8, 16, 64)]
    assert ahead[-1] == -16 * 16 * 4
    assert all(np.diff(ahead)[1:] <= 0)
