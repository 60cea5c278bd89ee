"""How far outputs may lie over the image under kernels that compute some pixels at a time, against a count byte by byte."""

from __future__ import annotations

import numpy as np
import pytest

from firmware_export.operators._window import Window
from firmware_export.packing.conv2d_r256 import distance as r256_distance
from firmware_export.packing.conv2d_trio import distance as trio_distance
from firmware_export.packing.planes import edges_of
from firmware_export.planning.reach import distance_in_groups


def window_of(rng: np.random.Generator) -> Window:
    """Small images, borders that may be wider than the kernel."""
    while True:
        size, kernel = (tuple(int(n) for n in rng.integers(1, most, 2)) for most in (7, 4))
        stride, dilation = (tuple(int(n) for n in rng.integers(1, 3, 2)) for _ in range(2))
        padding = tuple(int(n) for n in rng.integers(0, 5, 4))
        output = tuple(
            (size[i] + padding[2 * i] + padding[2 * i + 1] - (kernel[i] - 1) * dilation[i] - 1) // stride[i] + 1 for i in (0, 1)
        )
        if min(output) > 0:
            channels = int(rng.integers(1, 4))
            return Window(size, channels, kernel, stride, dilation, padding, output)  # type: ignore[arg-type]


def bytes_under(window: Window, place: int) -> set[int]:
    """The bytes of the image that one output's window lies on."""
    row, column = divmod(place, window.output[1])
    found = set()
    for i, j in np.ndindex(*window.kernel):
        y = row * window.stride[0] - window.padding[0] + i * window.dilation[0]
        x = column * window.stride[1] - window.padding[2] + j * window.dilation[1]
        if 0 <= y < window.size[0] and 0 <= x < window.size[1]:
            begin = (y * window.size[1] + x) * window.channels
            found |= set(range(begin, begin + window.channels))
    return found


def is_safe(window: Window, outputs: int, group: int, ahead: int) -> bool:
    """Whether no byte is written before its last read, where the output begins `ahead` bytes before the image."""
    pixels = window.output[0] * window.output[1]
    for end in range(group, pixels, group):
        written = {byte - ahead for byte in range(end * outputs)}
        if any(bytes_under(window, place) & written for place in range(end, pixels)):
            return False
    return True


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("group", [1, 3, 6])
def test_the_distance_is_safe(seed: int, group: int) -> None:
    """And every larger one, as the planner takes it."""
    rng = np.random.default_rng(seed)
    window, outputs = window_of(rng), int(rng.integers(1, 5))
    ahead = distance_in_groups(window, outputs, group)
    assert all(is_safe(window, outputs, group, ahead + more) for more in (0, 1, 2, 7, 50))


@pytest.mark.parametrize("outputs", [2, 3, 4, 7])
@pytest.mark.parametrize("group", [1, 3, 6])
def test_nothing_less_would_do(outputs: int, group: int) -> None:
    """For windows that see every pixel of the image, and no fewer outputs than channels."""
    pointwise = Window((4, 5), 2, (1, 1), (1, 1), (1, 1), (0, 0, 0, 0), (4, 5))
    same = Window((4, 5), 2, (3, 3), (1, 1), (1, 1), (1, 1, 1, 1), (4, 5))
    for window in (pointwise, same):
        assert not is_safe(window, outputs, group, distance_in_groups(window, outputs, group) - 1)


def test_one_group_may_lie_anywhere() -> None:
    """All of the image has been read before anything is written."""
    window = Window((2, 3), 4, (1, 1), (1, 1), (1, 1), (0, 0, 0, 0), (2, 3))
    assert distance_in_groups(window, 9, 6) == -24
    assert distance_in_groups(window, 9, 7) == -24


def test_the_kernels_take_their_own_groups() -> None:
    window = Window((4, 5), 2, (3, 3), (1, 1), (1, 1), (1, 1, 1, 1), (4, 5))
    assert r256_distance(window, 4) == distance_in_groups(window, 4, 3)
    assert trio_distance(window, 4) == distance_in_groups(window, 4, 6)
    assert r256_distance(window, 4, copied=True) == -40


def test_the_edges_of_an_image() -> None:
    window = Window((4, 5), 2, (3, 3), (2, 2), (1, 1), (1, 0, 0, 1), (2, 2))
    height, width = edges_of(window)
    assert (height.size, height.before, height.outputs, height.step, height.output_step) == (4, 1, 2, 10, 4)
    assert (width.size, width.before, width.outputs, width.step, width.output_step) == (5, 0, 2, 2, 2)
