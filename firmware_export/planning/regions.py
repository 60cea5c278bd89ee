"""Places for blocks in two regions of memory: every block lies in one of them, the first takes as much as it can.

Two blocks in different regions never meet, so only blocks of one region keep their gaps. The search is that of placement.py:
one block after the other into the lowest right place, here of the first region if it ends inside it, else of the second.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from firmware_export.planning.blocks import Gap, Problem, gaps_of, mirrored
from firmware_export.planning.placement import block_orders, lowest_place

SPLIT_WORK = 50_000
"""Placements of single blocks, as placement.SEARCH_WORK."""


@dataclass(frozen=True)
class Split:
    """regions: for each block 0 or 1. offsets: from the start of its region. sizes: bytes of both regions."""

    regions: tuple[int, ...]
    offsets: tuple[int, ...]
    sizes: tuple[int, int]

    @property
    def joined(self) -> list[int]:
        """Offsets if the second region began where the first ends."""
        return [offset + self.sizes[0] * region for region, offset in zip(self.regions, self.offsets, strict=True)]

    def cost(self, rooms: tuple[int, int]) -> tuple[int, int, int]:
        """What is to be smallest: bytes over the room, then bytes of the second region, then of the first."""
        over = sum(max(0, size - room) for size, room in zip(self.sizes, rooms, strict=True))
        return over, self.sizes[1], self.sizes[0]


def split(problem: Problem, pinned: Collection[int], rooms: tuple[int, int], work: int = SPLIT_WORK) -> Split | None:
    """The blocks in two regions, as many bytes as can be found in the first; None if no way is found that fits.

    Args:
        pinned: blocks that must lie in the first region.
        rooms: bytes that each region has.
        work: placements of single blocks that the search may try; the same work gives the same result.
    """
    if not problem.blocks:
        return Split((), (), (0, 0))
    upright = gaps_of(problem)
    ways = [(upright, False), (mirrored(problem, upright), True)]
    tried = []
    for order in _orders(problem, pinned):
        tried += [(_place(problem, pinned, rooms, gaps, order, turned), order) for gaps, turned in ways]
    best, order = min(tried, key=lambda found: found[0].cost(rooms))
    rng, steps = random.Random(0), work // (sum(map(len, upright)) + len(problem.blocks))
    for _ in range(steps):
        if best.sizes[1] == 0 and best.cost(rooms)[0] == 0:
            break
        changed = _changed(order, rng)
        gaps, turned = ways[rng.randrange(2)]
        found = _place(problem, pinned, rooms, gaps, changed, turned)
        if found.cost(rooms) <= best.cost(rooms):
            best, order = found, changed
    return best if best.cost(rooms)[0] == 0 else None


def _orders(problem: Problem, pinned: Collection[int]) -> Iterable[list[int]]:
    """Orders to place in; each also with those first that must lie in the first region."""
    for order in block_orders(problem.blocks):
        yield order
        yield sorted(order, key=lambda block: block not in pinned)


def _place(
    problem: Problem,
    pinned: Collection[int],
    rooms: tuple[int, int],
    gaps: Sequence[Sequence[Gap]],
    order: Sequence[int],
    turned: bool,
) -> Split:
    """Blocks in an order, each into the first region if it ends inside it or must lie there."""
    count = len(problem.blocks)
    places = ([-1] * count, [-1] * count)
    regions, sizes = [0] * count, [0, 0]
    for block in order:
        size = problem.blocks[block].size
        place = lowest_place(gaps[block], places[0])
        if block not in pinned and place + size > rooms[0]:
            regions[block], place = 1, lowest_place(gaps[block], places[1])
        region = regions[block]
        places[region][block] = place
        sizes[region] = max(sizes[region], place + size)
    offsets = [places[region][block] for block, region in enumerate(regions)]
    if turned:
        offsets = [sizes[regions[block]] - offset - problem.blocks[block].size for block, offset in enumerate(offsets)]
    return Split(tuple(regions), tuple(offsets), (sizes[0], sizes[1]))


def _changed(order: Sequence[int], rng: random.Random) -> list[int]:
    """The order with one block moved elsewhere."""
    changed = list(order)
    changed.insert(rng.randrange(len(order)), changed.pop(rng.randrange(len(order))))
    return changed
