"""How an image lies in planes for runtime/depthwise_planes.c: direction, bands of rows, channels at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from firmware_export.operators._window import Window
from firmware_export.packing import Unpackable

GROUP = 4
"""Channels that the fast copy takes at a time."""
PITCHES = (128, 256)
"""Bytes from a row of a plane to the next: NN_PLANE_PITCH of runtime/step_depthwise.h and twice that."""
KERNEL = 3
_WORD = 4


@dataclass(frozen=True)
class Edge:
    """One axis of the image: pixels, padding before, outputs, and bytes from a pixel to the next and an output to the next."""

    size: int
    before: int
    outputs: int
    step: int
    output_step: int


def edges_of(window: Window) -> tuple[Edge, Edge]:
    """Height and width of a window's image. Raises Unpackable: the window is not 3x3 with stride 1 or 2."""
    if window.kernel != (KERNEL, KERNEL) or window.stride not in ((1, 1), (2, 2)) or window.dilation != (1, 1):
        raise Unpackable(f"a window of {window.kernel}, stride {window.stride}, dilation {window.dilation}")
    steps, output_steps = _steps(window.size[1], window.channels), _steps(window.output[1], window.channels)
    height, width = (Edge(window.size[i], window.padding[2 * i], window.output[i], steps[i], output_steps[i]) for i in (0, 1))
    return height, width


@dataclass(frozen=True)
class Planes:
    """How the image lies in planes. inner: the axis along the planes' rows. All counts as in nn_depthwise_planes_params."""

    stride: int
    inner: Edge
    outer: Edge
    pitch: int

    @property
    def words(self) -> int:
        """Words of two pixels that give outputs."""
        return self.inner.outputs // 2 if self.stride == 1 else self.inner.outputs

    @property
    def alone(self) -> int:
        """Whether a row has one more output."""
        return self.inner.outputs % 2 if self.stride == 1 else 0

    @property
    def row_words(self) -> int:
        """Words that are read of a row."""
        return self.words + 1 + self.alone

    @property
    def pixels(self) -> int:
        """Of a row of the image that lie in the planes; the rest is in no window."""
        return min(self.inner.size, 2 * self.row_words - self.inner.before)

    @property
    def instructions(self) -> int:
        """About how many a plane costs, to choose between two ways."""
        return self.outer.outputs * (16 + (24 if self.stride == 1 else 14) * self.words + 14 * self.alone)

    def plane_bytes(self, band: int) -> int:
        """Of a plane that holds the windows of `band` rows of outputs."""
        return ((band - 1) * self.stride + KERNEL) * self.pitch

    def fields(self, band: int) -> dict[str, int]:
        """Values of the C struct."""
        lead = self.inner.before % 2
        pairs, trail = divmod(self.pixels - lead, 2)
        return {
            "plane_bytes": self.plane_bytes(band),
            "pixel_step": self.inner.step,
            "image_row_step": self.outer.step,
            "output_step": self.inner.output_step,
            "output_row_step": self.outer.output_step,
            "pitch": self.pitch,
            "row_words": self.row_words,
            "first_word": self.inner.before // 2,
            "pairs": pairs,
            "band": band,
            "rows": self.outer.outputs,
            "before": self.outer.before,
            "image_rows": self.outer.size,
            "words": self.words,
            "stride": self.stride,
            "lead": lead,
            "trail": trail,
            "alone": self.alone,
        }


@dataclass(frozen=True)
class Layout:
    """Planes, whether they run along the image's columns (kernels are transposed then), channels at a time, rows in a band."""

    planes: Planes
    transposed: bool
    group: int
    band: int

    @property
    def scratch_bytes(self) -> int:
        """All planes."""
        return self.group * self.planes.plane_bytes(self.band)

    def is_safe_in_place(self) -> bool:
        """Whether the output may have the input's place: no pixel is written before the band that copies it is done.

        All channels lie the same way, so that one pixel stands for all of them.
        """
        planes = self.planes
        read = _places(planes.outer.size, planes.pixels, planes.outer.step, planes.inner.step)
        written = _places(planes.outer.outputs, planes.inner.outputs, planes.outer.output_step, planes.inner.output_step)
        for end in range(self.band, planes.outer.outputs, self.band):
            copied = max(0, (end - 1) * planes.stride + KERNEL - planes.outer.before)
            if np.isin(written[:end], read[copied:]).any():
                return False
        return True


def _places(rows: int, columns: int, row_step: int, step: int) -> np.typing.NDArray[np.int64]:
    """Where pixels begin, [rows, columns]."""
    return np.arange(rows)[:, None] * row_step + np.arange(columns) * step


def directions(window: Window) -> list[tuple[Planes, bool]]:
    """Ways to lay planes, the cheapest first; whether each is transposed.

    Raises:
        Unpackable: the window is not 3x3 with stride 1 or 2, or the image is too wide.
    """
    edges = edges_of(window)
    found = []
    for inner in (1, 0):
        for pitch in PITCHES:
            planes = Planes(window.stride[0], edges[inner], edges[1 - inner], pitch)
            if planes.row_words * _WORD <= pitch and planes.pixels > 0:
                found.append((planes, inner == 0))
    if not found:
        raise Unpackable(f"an image of {window.size[0]}x{window.size[1]} pixels with padding {window.padding}")
    return sorted(found, key=lambda way: (way[0].instructions, way[0].pitch, way[1]))


def _steps(width: int, channels: int) -> tuple[int, int]:
    """Bytes from a row to the next, and from a pixel to the next."""
    return width * channels, channels


def _layouts(window: Window, scratch_limit: int) -> Iterator[Layout]:
    """Within the limit, the cheapest first; then the smallest, then those that hold whole planes, however large."""
    ways = directions(window)
    groups = (GROUP, 1) if window.channels >= GROUP else (1,)
    for group in groups:
        for planes, transposed in ways:
            rows = (scratch_limit // (group * planes.pitch) - KERNEL) // planes.stride + 1
            if rows >= 1:
                yield Layout(planes, transposed, group, min(rows, planes.outer.outputs))
    yield from (Layout(planes, transposed, 1, 1) for planes, transposed in ways)
    yield from (Layout(planes, transposed, 1, planes.outer.outputs) for planes, transposed in ways)


def choose_layout(window: Window, scratch_limit: int, *, in_place: bool) -> Layout:
    """The cheapest layout within the limit, or the smallest one; with in_place, of those that are safe in place.

    Raises:
        Unpackable: see directions.
    """
    return next(layout for layout in _layouts(window, scratch_limit) if not in_place or layout.is_safe_in_place())
