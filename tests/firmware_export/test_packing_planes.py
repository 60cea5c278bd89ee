"""How images lie in planes: directions, bands, what is safe in place (by moving every pixel)."""

from __future__ import annotations

import numpy as np
import pytest

from firmware_export.operators._window import Window
from firmware_export.packing import Unpackable
from firmware_export.packing.planes import KERNEL, Layout, choose_layout, directions


def window(
    size: tuple[int, int], stride: int = 1, padding: tuple[int, int, int, int] = (1, 1, 1, 1), channels: int = 4
) -> Window:
    output = tuple((size[i] + padding[2 * i] + padding[2 * i + 1] - 3) // stride + 1 for i in (0, 1))
    return Window(size, channels, (3, 3), (stride, stride), (1, 1), padding, (output[0], output[1]))


def test_planes_run_along_the_longer_edge() -> None:
    tall, transposed = directions(window((25, 5)))[0]
    assert transposed and tall.inner.outputs == 25 and tall.plane_bytes(5) == 7 * 128
    _, transposed = directions(window((5, 25)))[0]
    assert not transposed


def test_planes_of_stride_2_hold_only_what_is_read() -> None:
    """Valid padding leaves the last row and column of an even image out."""
    planes, _ = directions(window((8, 8), 2, (0, 0, 0, 0)))[0]
    assert planes.pixels == 8
    assert planes.fields(3)["plane_bytes"] == 7 * 128 and planes.fields(1)["plane_bytes"] == 3 * 128


@pytest.mark.parametrize("width, pitch", [(60, 128), (62, 128), (63, 256), (126, 256)])
def test_pitch(width: int, pitch: int) -> None:
    planes, _ = directions(window((200, width)))[0]
    assert planes.pitch == pitch


@pytest.mark.parametrize(
    "limit, group, band", [(1 << 20, 4, 30), (8192, 4, 14), (1536, 4, 1), (1500, 1, 9), (384, 1, 1), (0, 1, 1)]
)
def test_bands_fit_the_scratch(limit: int, group: int, band: int) -> None:
    layout = choose_layout(window((30, 40)), limit, in_place=False)
    assert (layout.group, layout.band) == (group, band)
    assert layout.scratch_bytes <= max(limit, 3 * 128)


def test_few_channels_are_copied_one_by_one() -> None:
    assert choose_layout(window((8, 8), channels=3), 1 << 20, in_place=False).group == 1


def spoils_its_input(layout: Layout) -> bool:
    """Runs the kernel's order of copies and writes on a memory of marks: does it copy a pixel that it has written?"""
    planes = layout.planes
    inner, outer = planes.inner, planes.outer
    written = np.zeros(2000, bool)
    copied = 0
    for row in range(0, outer.outputs, layout.band):
        last = min(row + layout.band, outer.outputs)
        upto = min(outer.size, (last - 1) * planes.stride + KERNEL - outer.before)
        for image_row in range(copied, upto):
            if any(written[image_row * outer.step + i * inner.step] for i in range(planes.pixels)):
                return True
        copied = max(copied, upto)
        for output_row in range(row, last):
            written[[output_row * outer.output_step + i * inner.output_step for i in range(inner.outputs)]] = True
    return False


def test_in_place_is_judged_right() -> None:
    judged = set()
    for size in ((6, 6), (9, 4), (4, 9), (7, 5)):
        for stride, padding in ((1, (1, 1, 1, 1)), (1, (0, 0, 0, 0)), (2, (0, 1, 0, 1)), (2, (1, 1, 1, 1)), (1, (2, 2, 2, 2))):
            for planes, transposed in directions(window(size, stride, padding)):
                for band in (1, 2, 3, planes.outer.outputs):
                    layout = Layout(planes, transposed, 4, band)
                    assert layout.is_safe_in_place() != spoils_its_input(layout)
                    judged.add((transposed, layout.is_safe_in_place()))
    assert judged == {(False, True), (True, True), (True, False), (False, False)}


def test_in_place_takes_what_is_safe_before_what_is_cheap() -> None:
    """Along the columns a valid convolution would overwrite pixels of bands to come."""
    narrow = window((25, 5), padding=(0, 0, 0, 0))
    assert choose_layout(narrow, 1536, in_place=False).transposed
    assert choose_layout(narrow, 1536, in_place=True).is_safe_in_place()


def test_what_cannot_lie_in_planes_says_why() -> None:
    with pytest.raises(Unpackable, match="300x300"):
        directions(window((300, 300)))
    with pytest.raises(Unpackable, match="a window of"):
        directions(Window((8, 8), 4, (5, 5), (1, 1), (1, 1), (2, 2, 2, 2), (8, 8)))
