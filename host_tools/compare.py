"""Are two sets of answers the same bytes, and where is the first one that is not."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from firmware_export.graph import Array
from firmware_export.selftest import MismatchError

__all__ = ["Agreement", "Element", "Int8", "MismatchError", "agreement", "all_pairs", "first_difference", "pairs_table"]

Int8 = npt.NDArray[np.int8]


@dataclass(frozen=True)
class Agreement:
    """How two sets of answers to the same images compare. `first`, `second`: who answered."""

    first: str
    second: str
    images: int
    bytes_compared: int
    bytes_different: int
    largest_difference: int
    classes_different: int

    @property
    def exact(self) -> bool:
        """Whether not one byte differs."""
        return self.bytes_different == 0


@dataclass(frozen=True)
class Element:
    """The first element in which two arrays differ."""

    index: tuple[int, ...]
    expected: int
    got: int


def agreement(first: str, first_outputs: Int8, second: str, second_outputs: Int8) -> Agreement:
    """Compares int8 [n, classes] with int8 [m, classes] over the images that both have answered (the first ones).

    Raises:
        MismatchError: the answers have different lengths, or there are none.
    """
    count = min(len(first_outputs), len(second_outputs))
    if first_outputs.shape[1:] != second_outputs.shape[1:] or count == 0:
        shapes = f"{first_outputs.shape[1:]} against {second_outputs.shape[1:]}"
        raise MismatchError(f"{first} and {second} cannot be compared: {shapes} outputs for {count} images; same model?")
    a, b = first_outputs[:count], second_outputs[:count]
    distance = np.abs(a.astype(np.int32) - b.astype(np.int32))
    return Agreement(
        first,
        second,
        count,
        int(a.size),
        int((distance != 0).sum()),
        int(distance.max()),
        int((a.argmax(axis=1) != b.argmax(axis=1)).sum()),
    )


def all_pairs(answers: dict[str, Int8]) -> list[Agreement]:
    """Every pair of implementations, in the order they are given."""
    return [agreement(a, answers[a], b, answers[b]) for a, b in combinations(answers, 2)]


def first_difference(expected: Array, got: Array) -> Element | None:
    """The first element, in C order, in which two arrays of one shape differ; None when they are the same."""
    if expected.shape != got.shape:
        raise ValueError(f"shape {got.shape}, expected {expected.shape}")
    differing = np.flatnonzero(expected.reshape(-1) != got.reshape(-1))
    if not differing.size:
        return None
    index = tuple(int(i) for i in np.unravel_index(int(differing[0]), expected.shape))
    return Element(index, int(expected[index]), int(got[index]))


def pairs_table(pairs: list[Agreement]) -> str:
    """The matrix "differing / compared bytes" as text: rows and columns are the implementations."""
    names = list(dict.fromkeys([p.first for p in pairs] + [p.second for p in pairs]))
    cells = {(p.first, p.second): f"{p.bytes_different:,}/{p.bytes_compared:,}" for p in pairs}
    rows = [["bytes differing/compared", *names[1:]]]
    rows += [[a, *(cells.get((a, b), "") for b in names[1:])] for a in names[:-1]]
    widths = [max(len(row[i]) for row in rows) for i in range(len(names))]
    return "\n".join(
        "  ".join(cell.rjust(w) if i else cell.ljust(w) for i, (cell, w) in enumerate(zip(r, widths, strict=True)))
        for r in rows
    )
