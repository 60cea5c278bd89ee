"""What needs bytes, when, and how two blocks may share some: the problem that placement.py and exact.py solve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from firmware_export.graph import Graph
from firmware_export.operators import LayerCode
from firmware_export.planning.lives import Access, Lives

T = TypeVar("T")

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


def build_problem(graph: Graph, lives: Lives, codes: Sequence[LayerCode]) -> tuple[Problem, list[int], list[int]]:
    """The problem of a whole graph: first the tensors that own bytes, then the scratch of the nodes that have some.

    Returns:
        The problem, the owners, and the node indexes of the scratches, both in the order of their blocks.
    """
    owners = sorted(lives.owners)
    scratched = [place for place, code in enumerate(codes) if code.scratch_bytes > 0]
    return problem_of(graph, lives, dict(enumerate(codes)), owners, scratched), owners, scratched


def problem_of(
    graph: Graph, lives: Lives, codes: Mapping[int, LayerCode], owners: Sequence[int], scratched: Sequence[int]
) -> Problem:
    """The problem of some owners and scratches; codes: of the nodes whose overlaps may be used."""
    found = [lives.owners[index] for index in owners]
    problem = Problem(
        [Block(aligned(graph.tensors[index].nbytes), lives.owners[index].first, lives.owners[index].last) for index in owners]
    )
    problem.blocks += [Block(aligned(codes[place].scratch_bytes), place, place) for place in scratched]
    active: list[int] = []
    for a in sorted(range(len(found)), key=lambda number: found[number].first):
        active = [b for b in active if found[b].last >= found[a].first]
        for b in active:
            overlap = _overlap(graph, lives, codes, owners[a], owners[b]) if found[b].complete < found[a].first else None
            if overlap is not None:
                problem.overlaps[a, b] = overlap
        active.append(a)
    for number, place in enumerate(scratched):
        for b, under in enumerate(found):
            ahead = _scratch_ahead(graph, lives, codes[place], place, owners[b]) if under.last == place else None
            if ahead is not None:
                problem.overlaps[len(owners) + number, b] = Overlap(aligned(ahead))
    return problem


def _overlap(graph: Graph, lives: Lives, codes: Mapping[int, LayerCode], over: int, under: int) -> Overlap | None:
    """How one owner's bytes may be written over another's that are still read: nothing that is read later, and of what the
    writing node itself reads as much as its kernel has read before. Of nodes without code the best is assumed."""
    writes, reads = lives.owners[over].writes, lives.owners[under].reads
    distances: list[int | None] = [-graph.tensors[under].nbytes]
    level = len(writes) == 1
    for write in writes:
        needed = lives.owners[under].needed(write.time)
        if needed is not None:
            distances.append(write.end - needed)
            level = False
        if write.time in codes and any(read.time == write.time for read in reads):
            ahead, in_place = _kernel_ahead(graph, lives, codes[write.time], write, over, under)
            distances.append(ahead)
            level = level and in_place
    if None in distances:
        return Overlap(None, True) if level else None
    return Overlap(aligned(max(distance for distance in distances if distance is not None)), level)


def _kernel_ahead(graph: Graph, lives: Lives, code: LayerCode, write: Access, over: int, under: int) -> tuple[int | None, bool]:
    """Of the node that writes: bytes by which `over` must begin before `under`, and whether they may be level."""
    node = graph.nodes[write.time]
    if lives.storage[node.outputs[0]] != (over, write.begin):
        return None, False
    ahead: list[int | None] = []
    level = write.begin == 0
    for slot, index in enumerate(graph.activation_inputs(node)):
        owner, begin = lives.storage[index]
        if owner == under:
            distance = _entry(code.distances, slot)
            ahead.append(None if distance is None else distance + write.begin - begin)
            level = level and begin == 0 and bool(_entry(code.in_place, slot))
    known = [distance for distance in ahead if distance is not None]
    return (max(known) if len(known) == len(ahead) else None), level


def _scratch_ahead(graph: Graph, lives: Lives, code: LayerCode, place: int, under: int) -> int | None:
    """Bytes by which a node's scratch must begin before an owner that this node is the last to read."""
    found = []
    for slot, index in enumerate(graph.activation_inputs(graph.nodes[place])):
        owner, begin = lives.storage[index]
        distance = _entry(code.scratch_distances, slot)
        if owner == under:
            if distance is None:
                return None
            found.append(distance - begin)
    written = any(write.time == place for write in lives.owners[under].writes)
    return max(found) if found and not written else None


def _entry(values: Sequence[T], slot: int) -> T | None:
    return values[slot] if slot < len(values) else None
