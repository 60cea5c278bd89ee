"""How kernels read and write, pixel by pixel, on a memory of marks: an independent judge of packing's distances."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from firmware_export.operators._window import Window

Pixel = tuple[int, int]


@dataclass(frozen=True)
class Step:
    """One step of a kernel: the input pixels it reads, then the output pixels it writes; (row, column)."""

    reads: frozenset[Pixel]
    writes: frozenset[Pixel]


def pixels_under(window: Window, output: Pixel) -> Iterator[Pixel]:
    """The pixels of the image under one output's window."""
    for i in range(window.kernel[0]):
        for j in range(window.kernel[1]):
            row = output[0] * window.stride[0] - window.padding[0] + i * window.dilation[0]
            column = output[1] * window.stride[1] - window.padding[2] + j * window.dilation[1]
            if 0 <= row < window.size[0] and 0 <= column < window.size[1]:
                yield row, column


def outputs_of(window: Window) -> list[Pixel]:
    """All outputs, row by row."""
    return [(row, column) for row in range(window.output[0]) for column in range(window.output[1])]


def groups(items: list[Pixel], size: int) -> Iterator[list[Pixel]]:
    """Neighbours in a list, `size` at a time."""
    return (items[begin : begin + size] for begin in range(0, len(items), size))


def r256_steps(window: Window) -> Iterator[Step]:
    """Three outputs after the other."""
    for outputs in groups(outputs_of(window), 3):
        yield Step(frozenset(p for output in outputs for p in pixels_under(window, output)), frozenset(outputs))


def winograd_steps(window: Window, tiles: int) -> Iterator[Step]:
    """Tiles of 2x2 outputs, so many at a time; each reads 4x4 pixels, needed or not."""
    corners = [(row, column) for row in range(0, window.output[0], 2) for column in range(0, window.output[1], 2)]
    for block in groups(corners, tiles):
        reads, writes = set(), set()
        for top, left in block:
            for i in range(4):
                for j in range(4):
                    pixel = (top - window.padding[0] + i, left - window.padding[2] + j)
                    if 0 <= pixel[0] < window.size[0] and 0 <= pixel[1] < window.size[1]:
                        reads.add(pixel)
            writes |= {(top + i, left + j) for i in (0, 1) for j in (0, 1)} & set(outputs_of(window))
        yield Step(frozenset(reads), frozenset(writes))


def spoils(window: Window, outputs: int, steps: Iterable[Step], ahead: int) -> bool:
    """Whether some step reads a byte that a step before it has written, the output beginning `ahead` bytes before the input."""
    written: set[int] = set()
    for step in steps:
        for row, column in step.reads:
            begin = (row * window.size[1] + column) * window.channels
            if not written.isdisjoint(range(begin, begin + window.channels)):
                return True
        for row, column in step.writes:
            begin = (row * window.output[1] + column) * outputs - ahead
            written.update(range(begin, begin + outputs))
    return False
