"""Whether blocks fit a buffer of a given size, by branch and bound: a proof either way, as far as the allowed work reaches.

Two blocks that must keep a gap lie one way or the other (or level). Each choice is a difference constraint between two offsets;
the lowest and highest offsets that the constraints leave are propagated, and a pair that has one way left takes it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from firmware_export.planning.blocks import GRANULE, Gap, Problem, gaps_of
from firmware_export.planning.placement import SEARCH_WORK, Placement, place_quickly

WORK = 400_000
"""Propagation steps that a proof may take."""
MAX_PAIRS = 400
"""Pairs of blocks beyond which no proof is tried."""
CLIQUE_WORK = 20_000
"""The same for the blocks of one moment."""


class OutOfWork(Exception):
    """The allowed work is used up: nothing is proven."""


@dataclass(frozen=True)
class Pair:
    """Blocks x and y; ways: lowest allowed y - x, or lowest allowed x - y, or a fixed y - x."""

    x: int
    y: int
    gap: Gap


@dataclass
class Work:
    """Steps left."""

    left: int

    def spend(self, steps: int = 1) -> None:
        """Raises OutOfWork when none is left."""
        self.left -= steps
        if self.left < 0:
            raise OutOfWork


@dataclass
class _State:
    """low, high: what the constraints leave for each offset. edges: u -> [(v, c)]: offset v >= offset u + c."""

    low: list[int]
    high: list[int]
    edges: list[list[tuple[int, int]]]
    reverse: list[list[tuple[int, int]]]
    open: list[Pair] = field(default_factory=list)

    def copy(self) -> _State:
        """Lists of their own."""
        return _State(
            list(self.low), list(self.high), [list(e) for e in self.edges], [list(e) for e in self.reverse], list(self.open)
        )

    def add(self, u: int, v: int, c: int, work: Work) -> bool:
        """offset v >= offset u + c; whether anything is left."""
        self.edges[u].append((v, c))
        self.reverse[v].append((u, c))
        return self._raise(u, work) and self._lower(v, work)

    def _raise(self, start: int, work: Work) -> bool:
        waiting = deque([start])
        while waiting:
            u = waiting.popleft()
            for v, c in self.edges[u]:
                work.spend()
                if self.low[u] + c > self.low[v]:
                    self.low[v] = self.low[u] + c
                    if self.low[v] > self.high[v]:
                        return False
                    waiting.append(v)
        return True

    def _lower(self, start: int, work: Work) -> bool:
        waiting = deque([start])
        while waiting:
            v = waiting.popleft()
            for u, c in self.reverse[v]:
                work.spend()
                if self.high[v] - c < self.high[u]:
                    self.high[u] = self.high[v] - c
                    if self.low[u] > self.high[u]:
                        return False
                    waiting.append(u)
        return True


def fit(problem: Problem, size: int, work: Work) -> list[int] | None:
    """Offsets with which the blocks fit `size` bytes; None: there are none.

    Raises:
        OutOfWork: not known.
    """
    high = [size - block.size for block in problem.blocks]
    if any(top < 0 for top in high):
        return None
    count = len(high)
    pairs = [Pair(x, gap.other, gap) for x, around in enumerate(gaps_of(problem)) for gap in around if x < gap.other]
    if len(pairs) > MAX_PAIRS:
        raise OutOfWork
    pairs.sort(key=lambda pair: -(pair.gap.below + pair.gap.above))
    return _solve(_State([0] * count, high, [[] for _ in high], [[] for _ in high], pairs), work)


def _solve(state: _State, work: Work) -> list[int] | None:
    if not _settle(state, work):
        return None
    if not state.open:
        return state.low
    pair = min(state.open, key=lambda p: _slack(state, p))
    state.open.remove(pair)
    for way in _ways(state, pair):
        branch = state.copy()
        if all(branch.add(*edge, work) for edge in way):
            found = _solve(branch, work)
            if found is not None:
                return found
    return None


def _slack(state: _State, pair: Pair) -> int:
    """How much room the pair's two ways leave: the tighter, the sooner it is decided."""
    one = state.high[pair.x] - state.low[pair.y] - pair.gap.above
    other = state.high[pair.y] - state.low[pair.x] - pair.gap.below
    return one + other


def _ways(state: _State, pair: Pair) -> list[list[tuple[int, int, int]]]:
    """The constraints of every way that the bounds leave, the roomiest first."""
    x, y, gap = pair.x, pair.y, pair.gap
    ways = []
    room = state.high[x] - state.low[y] - gap.above
    if room >= 0:
        ways.append((room, [(y, x, gap.above)]))
    room = state.high[y] - state.low[x] - gap.below
    if room >= 0:
        ways.append((room, [(x, y, gap.below)]))
    if gap.level is not None and -gap.below < gap.level < gap.above:
        ways.append((1 << 62, [(y, x, gap.level), (x, y, -gap.level)]))
    return [way for _, way in sorted(ways, key=lambda way: -way[0])]


def _settle(state: _State, work: Work) -> bool:
    """Takes the only way of pairs that have one, again and again; pairs whose gap is kept anyway are closed."""
    low, high = state.low, state.high
    while True:
        work.spend(len(state.open) + 1)
        still, taken = [], False
        for pair in state.open:
            x, y, gap = pair.x, pair.y, pair.gap
            if low[x] - high[y] >= gap.above or low[y] - high[x] >= gap.below:
                continue
            if high[x] - low[y] >= gap.above and high[y] - low[x] >= gap.below:
                still.append(pair)
                continue
            ways = _ways(state, pair)
            if not ways:
                return False
            if len(ways) > 1:
                still.append(pair)
                continue
            if not all(state.add(*edge, work) for edge in ways[0]):
                return False
            taken = True
        state.open = still
        if not taken:
            return True


def smallest(problem: Problem, bound: int, work: int = WORK) -> tuple[Placement, bool]:
    """The smallest placement that the allowed work finds, and whether it is proven that there is none smaller.

    Args:
        bound: bytes that no placement can beat.
    """
    best = place_quickly(problem, bound, work=0)
    left = Work(work)
    try:
        if best.size > bound:
            offsets = fit(problem, bound, left)
            best = best if offsets is None else _placement(problem, offsets)
        while best.size > bound:
            offsets = fit(problem, best.size - GRANULE, left)
            if offsets is None:
                return best, True
            best = _placement(problem, offsets)
    except OutOfWork:
        found = place_quickly(problem, bound, min(SEARCH_WORK, work))
        return min(best, found, key=lambda placement: placement.size), found.size <= bound
    return best, True


def _placement(problem: Problem, offsets: list[int]) -> Placement:
    return Placement(offsets, max(offset + block.size for offset, block in zip(offsets, problem.blocks, strict=True)))


def moment_bound(problem: Problem, alive: Sequence[int]) -> int:
    """Bytes that the blocks of one moment need at least, how ever the rest lies."""
    number = {block: place for place, block in enumerate(alive)}
    part = Problem([problem.blocks[block] for block in alive])
    part.overlaps = {
        (number[a], number[b]): overlap for (a, b), overlap in problem.overlaps.items() if a in number and b in number
    }
    above, below = {a for a, _ in part.overlaps}, {b for _, b in part.overlaps}
    sums = (sum(block.size for place, block in enumerate(part.blocks) if place not in hidden) for hidden in (above, below))
    bound = max([*sums, *(block.size for block in part.blocks)], default=0)
    if not part.overlaps:
        return bound
    placement, proven = smallest(part, bound, CLIQUE_WORK)
    return placement.size if proven else bound
