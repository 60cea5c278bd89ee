"""Which kernel runs each node: instructions against bytes, under the target's goal.

A kernel can only be worth its memory if the node's own moment, its tensors and scratch beside what lives past it, fits the
buffer. So for every buffer size the cheapest kernels that fit it are known at once; there are only as many different
selections as there are kernels. They are placed in the order of what they promise, until none can be better any more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from firmware_export.graph import Graph
from firmware_export.operators import LayerCode
from firmware_export.planning.blocks import build_problem, problem_of
from firmware_export.planning.exact import WORK, moment_bound, smallest
from firmware_export.planning.lives import Lives
from firmware_export.planning.placement import Placement

PRICE = 0.2
"""balanced: a buffer p % larger must save about p / 5 % of the instructions; one twice as large 13 %."""
RAM_INSTRUCTIONS = 1.3
"""ram: at most so many times the instructions of balanced."""
TRIALS = 12
"""Selections that are placed at most."""
TRIAL_WORK = 10_000
"""Of exact.smallest, for selections that are only tried."""
RELIEFS = 8
"""Nodes of a selection that may get a smaller kernel because the moments do not fit together."""
SMALL_GRAPH = 500
"""Nodes up to which moments are solved exactly."""


@dataclass(frozen=True)
class Option:
    """A kernel for a node, and the bytes that the node's moment needs at least with it."""

    code: LayerCode
    footprint: int


@dataclass(frozen=True)
class Selection:
    """A kernel for every node. bound: bytes that their moments need at least. instructions: about how many in all."""

    codes: tuple[LayerCode, ...]
    bound: int
    instructions: int


@dataclass(frozen=True)
class Chosen:
    """A placed selection. proven: no placement of this selection is smaller."""

    selection: Selection
    placement: Placement
    proven: bool


Score = Callable[[int, int], tuple[float, float]]
"""(instructions, bytes) -> what is to be smallest."""


def footprint(graph: Graph, lives: Lives, place: int, code: LayerCode) -> int:
    """Bytes that are needed at least while a node runs."""
    alive = [index for index, owner in lives.owners.items() if owner.first <= place <= owner.last]
    scratched = [place] if code.scratch_bytes > 0 else []
    problem = problem_of(graph, lives, {place: code}, alive, scratched)
    if len(graph.nodes) > SMALL_GRAPH:
        problem.overlaps.clear()
    return moment_bound(problem, range(len(problem.blocks)))


def worthwhile(options: Sequence[Option]) -> list[Option]:
    """Without those that cost more in both ways, the smallest first; of equals the first."""
    kept: list[Option] = []
    for option in sorted(options, key=lambda option: (option.footprint, option.code.instructions)):
        if not kept or option.code.instructions < kept[-1].code.instructions:
            kept.append(option)
    return kept


def selections(options: Sequence[Sequence[Option]]) -> list[Selection]:
    """For every footprint that is large enough for some kernel of each node: the cheapest kernels within it."""
    least = max((around[0].footprint for around in options), default=0)
    sizes = sorted({least, *(option.footprint for around in options for option in around if option.footprint > least)})
    found = []
    for size in sizes:
        codes = tuple([option for option in around if option.footprint <= size][-1].code for around in options)
        found.append(Selection(codes, size, sum(code.instructions for code in codes)))
    return found


def score_of(goal: str, found: Sequence[Selection]) -> Score:
    """What a goal wants to be smallest; `found`: all selections there are."""
    if goal == "time":
        return lambda instructions, size: (instructions, size)
    if goal != "ram":
        return _balanced
    limit = RAM_INSTRUCTIONS * min(found, key=lambda s: _balanced(s.instructions, s.bound)).instructions
    return lambda instructions, size: (max(0.0, instructions - limit), size + instructions * 1e-12)


def _balanced(instructions: int, size: int) -> tuple[float, float]:
    return max(instructions, 1) * max(size, 1) ** PRICE, size


def choose(graph: Graph, lives: Lives, options: Sequence[Sequence[LayerCode]], goal: str) -> Chosen:
    """The kernels and places that suit a goal best.

    Args:
        options: for each node the kernels that can run it, at least one.
    """
    rated = [
        worthwhile([Option(code, footprint(graph, lives, place, code)) for code in codes])
        for place, codes in enumerate(options)
    ]
    found = selections(rated)
    score = score_of(goal, found)
    best: Chosen | None = None
    for selection in sorted(found, key=lambda s: score(s.instructions, s.bound))[:TRIALS]:
        if best is not None and score(selection.instructions, selection.bound) >= _score(score, best):
            break
        chosen = relieved(graph, lives, rated, _placed(graph, lives, selection), score)
        if best is None or _score(score, chosen) < _score(score, best):
            best = chosen
    assert best is not None
    return best


def _placed(graph: Graph, lives: Lives, selection: Selection, work: int = WORK) -> Chosen:
    problem, _, _ = build_problem(graph, lives, selection.codes)
    return Chosen(selection, *smallest(problem, selection.bound, work))


def _score(score: Score, chosen: Chosen) -> tuple[float, float]:
    return score(chosen.selection.instructions, chosen.placement.size)


def relieved(graph: Graph, lives: Lives, options: Sequence[Sequence[Option]], chosen: Chosen, score: Score) -> Chosen:
    """Where the moments do not fit the bound together: smaller kernels for nodes at the buffer's end, while that pays."""
    first = chosen
    for _ in range(RELIEFS):
        if chosen.placement.size <= chosen.selection.bound:
            break
        trials = [_placed(graph, lives, smaller, TRIAL_WORK) for smaller in _smaller(graph, lives, options, chosen)]
        best = min(trials, key=lambda trial: _score(score, trial), default=chosen)
        if _score(score, best) >= _score(score, chosen):
            break
        chosen = best
    if chosen is first or chosen.proven:
        return chosen
    return min(_placed(graph, lives, chosen.selection), chosen, key=lambda found: found.placement.size)


def _smaller(graph: Graph, lives: Lives, options: Sequence[Sequence[Option]], chosen: Chosen) -> Iterator[Selection]:
    """The selections with the next smaller kernel at one of the nodes whose blocks reach the buffer's end, and at all."""
    codes = chosen.selection.codes
    problem, _, _ = build_problem(graph, lives, codes)
    ends = [
        block
        for block, offset in zip(problem.blocks, chosen.placement.offsets, strict=True)
        if offset + block.size == chosen.placement.size
    ]
    smaller = {}
    for place in sorted({place for block in ends for place in range(max(0, block.first), min(len(codes), block.last + 1))}):
        current = next(n for n, option in enumerate(options[place]) if option.code is codes[place])
        if current > 0:
            smaller[place] = options[place][current - 1].code
    for places in dict.fromkeys([*((place,) for place in smaller), tuple(smaller)]):
        changed = tuple(smaller[place] if place in places else code for place, code in enumerate(codes))
        yield Selection(changed, chosen.selection.bound, sum(code.instructions for code in changed))
