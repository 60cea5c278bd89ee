"""Places for blocks, quickly: one after the other into the lowest place that is right, in many orders and both directions."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from firmware_export.planning.blocks import Block, Gap, Problem, gaps_of, mirrored

SEARCH_WORK = 200_000
"""Placements of single blocks that the search may try; decides its time, and with it the result, on every machine alike."""


@dataclass(frozen=True)
class Placement:
    """offsets: of every block. size: bytes of the buffer."""

    offsets: list[int]
    size: int


def lowest_place(around: Sequence[Gap], offsets: Sequence[int]) -> int:
    """The lowest right offset of a block beside those that have one (>= 0)."""
    wrong = []
    levels = []
    for gap in around:
        base = offsets[gap.other]
        if base >= 0:
            wrong.append((base - gap.below, base + gap.above))
            if gap.level is not None and base + gap.level >= 0:
                levels.append(base + gap.level)
    wrong.sort()
    place = 0
    for low, high in wrong:
        if low >= place:
            break
        place = max(place, high)
    better = [level for level in levels if level < place and _is_right(around, offsets, level)]
    return min(better, default=place)


def _is_right(around: Sequence[Gap], offsets: Sequence[int], place: int) -> bool:
    for gap in around:
        base = offsets[gap.other]
        distance = place - base
        if base >= 0 and -gap.below < distance < gap.above and distance != gap.level:
            return False
    return True


def is_right(problem: Problem, offsets: Sequence[int]) -> bool:
    """Whether a whole placement keeps every gap."""
    return all(_is_right(around, offsets, offsets[x]) for x, around in enumerate(gaps_of(problem)))


def place_quickly(problem: Problem, bound: int, work: int = SEARCH_WORK) -> Placement:
    """A good placement; stops at `bound` bytes, which no placement can beat. work: 0 for the first few orders alone."""
    if not problem.blocks:
        return Placement([], 0)
    upright = gaps_of(problem)
    ways = [(upright, False), (mirrored(problem, upright), True)]
    best: Placement | None = None
    for order in block_orders(problem.blocks):
        for gaps, turned in ways:
            best = _better(best, _place(problem.blocks, gaps, order, turned))
            if best.size <= bound:
                return best
    assert best is not None
    return _search(problem.blocks, ways, best, bound, work)


def _better(best: Placement | None, found: Placement) -> Placement:
    return found if best is None or found.size < best.size else best


def block_orders(blocks: Sequence[Block]) -> Iterator[list[int]]:
    """Orders to place in: largest first; largest area (size x life) first; longest life first; by time, both ways."""
    indexes = range(len(blocks))
    yield sorted(indexes, key=lambda i: (-blocks[i].size, blocks[i].first, i))
    yield sorted(indexes, key=lambda i: (-blocks[i].size * (blocks[i].last - blocks[i].first + 1), i))
    yield sorted(indexes, key=lambda i: (blocks[i].first - blocks[i].last, -blocks[i].size, i))
    yield sorted(indexes, key=lambda i: (blocks[i].first, -blocks[i].size, i))
    yield sorted(indexes, key=lambda i: (-blocks[i].last, -blocks[i].size, i))


def _place(blocks: Sequence[Block], gaps: Sequence[Sequence[Gap]], order: Sequence[int], turned: bool) -> Placement:
    offsets = [-1] * len(blocks)
    for index in order:
        offsets[index] = lowest_place(gaps[index], offsets)
    size = max(offset + block.size for offset, block in zip(offsets, blocks, strict=True))
    if turned:
        offsets = [size - offset - block.size for offset, block in zip(offsets, blocks, strict=True)]
    return Placement(offsets, size)


def _search(
    blocks: Sequence[Block], ways: Sequence[tuple[Sequence[Sequence[Gap]], bool]], best: Placement, bound: int, limit: int
) -> Placement:
    """Keeps every change of the order that does not make the buffer larger."""
    rng = random.Random(0)
    work = sum(len(around) for around in ways[0][0]) + len(blocks)
    order = sorted(range(len(blocks)), key=lambda i: (best.offsets[i], i))
    size = 1 << 62
    for _ in range(limit // work):
        candidate = _changed(blocks, best, order, rng)
        gaps, turned = ways[rng.randrange(2)]
        found = _place(blocks, gaps, candidate, turned)
        if found.size <= size:
            order, size = candidate, found.size
        best = _better(best, found)
        if best.size <= bound:
            break
    return best


def _changed(blocks: Sequence[Block], best: Placement, order: Sequence[int], rng: random.Random) -> list[int]:
    """The order with a block that reaches the end moved elsewhere, or with two blocks exchanged."""
    changed = list(order)
    if rng.random() < 0.5:
        at_end = [i for i in order if best.offsets[i] + blocks[i].size == best.size]
        chosen = rng.choice(at_end)
        changed.remove(chosen)
        changed.insert(rng.randrange(len(order)), chosen)
    else:
        one, other = rng.randrange(len(order)), rng.randrange(len(order))
        changed[one], changed[other] = changed[other], changed[one]
    return changed
