"""What needs bytes, when, and how two blocks may share some: the problem that placement.py and exact.py solve."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from firmware_export.graph import Graph
from firmware_export.operators import LayerCode

GRANULE = 8
"""Every block begins at a multiple of it: words for the kernels, pointers in scratch on the host, int64 tensors."""


@dataclass(frozen=True)
class Block:
    """Bytes, a multiple of GRANULE, that live from the first to the last node index, both included."""

    size: int
    first: int
    last: int


@dataclass(frozen=True)
class Overlap:
    """How block `a` may lie over block `b`: b begins at least `ahead` bytes behind a's begin, or level with it.

    They may of course lie apart too. ahead: a multiple of GRANULE, None where only lying apart or level is right.
    """

    ahead: int | None
    level: bool = False


@dataclass
class Problem:
    """Blocks, and the pairs of them (a, b) that may overlap though they live at the same time."""

    blocks: list[Block] = field(default_factory=list)
    overlaps: dict[tuple[int, int], Overlap] = field(default_factory=dict)


@dataclass(frozen=True)
class Gap:
    """Which distances x - other are wrong: those between -below and above, both excluded, but for `level`."""

    other: int
    below: int
    above: int
    level: int | None


def aligned(size: int) -> int:
    """Rounded up to GRANULE; also for negative numbers."""
    return -(-size // GRANULE) * GRANULE


def gaps_of(problem: Problem) -> list[list[Gap]]:
    """For each block what it must keep from the others that live at the same time, wherever they may not just overlap."""
    gaps: list[list[Gap]] = [[] for _ in problem.blocks]
    active: list[int] = []
    for index in sorted(range(len(problem.blocks)), key=lambda i: problem.blocks[i].first):
        active = [other for other in active if problem.blocks[other].last >= problem.blocks[index].first]
        for other in active:
            below, above, level = _kept(problem, index, other)
            if below + above > GRANULE:
                gaps[index].append(Gap(other, below, above, level))
                gaps[other].append(Gap(index, above, below, level))
        active.append(index)
    return gaps


def _kept(problem: Problem, x: int, other: int) -> tuple[int, int, int | None]:
    """Gap's numbers of x against the other block."""
    below, above = problem.blocks[x].size, problem.blocks[other].size
    if (x, other) in problem.overlaps:
        overlap = problem.overlaps[x, other]
        below = below if overlap.ahead is None else min(below, overlap.ahead)
        return below, above, 0 if overlap.level else None
    if (other, x) in problem.overlaps:
        overlap = problem.overlaps[other, x]
        above = above if overlap.ahead is None else min(above, overlap.ahead)
        return below, above, 0 if overlap.level else None
    return below, above, None


def mirrored(problem: Problem, gaps: Sequence[Sequence[Gap]]) -> list[list[Gap]]:
    """The gaps of the problem upside down: offsets counted from the end of the buffer to the ends of the blocks."""
    turned = []
    for x, around in enumerate(gaps):
        more = [problem.blocks[x].size - problem.blocks[gap.other].size for gap in around]
        turned.append(
            [
                Gap(gap.other, gap.above + extra, gap.below - extra, None if gap.level is None else -gap.level - extra)
                for gap, extra in zip(around, more, strict=True)
            ]
        )
    return turned


@dataclass(frozen=True)
class Lives:
    """Which tensors own bytes, and when.

    storage: activation tensor -> the tensor whose bytes it shares (itself, but for what a reshape makes).
    spans: owner -> first and last time; times are node indexes, -1 before them, their number behind them.
    """

    storage: dict[int, int]
    spans: dict[int, tuple[int, int]]

    @staticmethod
    def of(graph: Graph) -> Lives:
        """A graph input lives until its last reader and may then be overwritten, an output to the end."""
        storage = _storage(graph)
        first = dict.fromkeys(graph.inputs, -1)
        last = dict(first)
        for place, node in enumerate(graph.nodes):
            for index in node.outputs:
                first.setdefault(storage[index], place)
                last[storage[index]] = place
            for index in graph.activation_inputs(node):
                last[storage[index]] = place
        for index in graph.outputs:
            last[storage[index]] = len(graph.nodes)
        return Lives(storage, {index: (first[index], last[index]) for index in first})


def _storage(graph: Graph) -> dict[int, int]:
    storage = {index: index for index in graph.inputs}
    for node in graph.nodes:
        for index in node.outputs:
            shares = node.op == "reshape" and node.inputs[0] in storage
            storage[index] = storage[node.inputs[0]] if shares else index
    return storage


def build_problem(graph: Graph, lives: Lives, codes: Sequence[LayerCode]) -> tuple[Problem, list[int], list[int]]:
    """The problem of a whole graph: first the tensors that own bytes, then the scratch of the nodes that have some.

    Returns:
        The problem, the owners, and the node indexes of the scratches, both in the order of their blocks.
    """
    owners = sorted(lives.spans)
    scratched = [place for place, code in enumerate(codes) if code.scratch_bytes > 0]
    problem = Problem()
    problem.blocks += [Block(aligned(graph.tensors[index].nbytes), *lives.spans[index]) for index in owners]
    problem.blocks += [Block(aligned(codes[place].scratch_bytes), place, place) for place in scratched]
    block_of = {owner: block for block, owner in enumerate(owners)}
    scratch_of = {place: len(owners) + number for number, place in enumerate(scratched)}
    for place, code in enumerate(codes):
        add_overlaps(problem, graph, lives, place, code, block_of, scratch_of.get(place))
    return problem, owners, scratched


def add_overlaps(
    problem: Problem,
    graph: Graph,
    lives: Lives,
    place: int,
    code: LayerCode,
    block_of: dict[int, int],
    scratch: int | None,
) -> None:
    """What a node's kernel lets its first output, and its scratch, do to inputs that nobody needs afterwards."""
    node = graph.nodes[place]
    inputs = [lives.storage[index] for index in graph.activation_inputs(node)]
    output = lives.storage[node.outputs[0]]
    for owner in dict.fromkeys(inputs):
        if lives.spans[owner][1] != place or owner == output:
            continue
        slots = [slot for slot, index in enumerate(inputs) if index == owner]
        over = _weakest([_entry(code.distances, slot) for slot in slots])
        level = all(_entry(code.in_place, slot) for slot in slots)
        if over is not None or level:
            problem.overlaps[block_of[output], block_of[owner]] = Overlap(None if over is None else aligned(over), level)
        over = _weakest([_entry(code.scratch_distances, slot) for slot in slots])
        if over is not None and scratch is not None:
            problem.overlaps[scratch, block_of[owner]] = Overlap(aligned(over))


def _entry(values: Sequence[int | None], slot: int) -> int | None:
    return values[slot] if slot < len(values) else None


def _weakest(distances: Iterable[int | None]) -> int | None:
    """The distance that is right for all: None if one of them is."""
    found = list(distances)
    known = [distance for distance in found if distance is not None]
    return max(known) if known and len(known) == len(found) else None
