"""Places of blocks: against every placement there is, for small problems; against the rules, for large ones."""

from __future__ import annotations

import itertools
import random

import pytest

from firmware_export.planning.blocks import GRANULE, Block, Overlap, Problem, gaps_of, mirrored
from firmware_export.planning.exact import OutOfWork, Work, fit, moment_bound, smallest
from firmware_export.planning.placement import is_right, lowest_place, place_quickly


def together(one: Block, other: Block) -> bool:
    return one.first <= other.last and other.first <= one.last


def allowed(problem: Problem, a: int, b: int, a_at: int, b_at: int) -> bool:
    """The rule itself: two blocks of one time lie apart, or as an overlap allows."""
    one, other = problem.blocks[a], problem.blocks[b]
    if not together(one, other) or a_at + one.size <= b_at or b_at + other.size <= a_at:
        return True
    for (over, under), (over_at, under_at) in (((a, b), (a_at, b_at)), ((b, a), (b_at, a_at))):
        overlap = problem.overlaps.get((over, under))
        if overlap is not None:
            ahead = overlap.ahead is not None and under_at - over_at >= overlap.ahead
            return ahead or (overlap.level and under_at == over_at)
    return False


def keeps_the_rule(problem: Problem, offsets: list[int]) -> bool:
    pairs = itertools.combinations(range(len(offsets)), 2)
    return min(offsets, default=0) >= 0 and all(allowed(problem, a, b, offsets[a], offsets[b]) for a, b in pairs)


def best_possible(problem: Problem) -> int:
    """The smallest buffer over all placements at multiples of GRANULE."""
    most = sum(block.size for block in problem.blocks)
    for size in range(GRANULE, most + 1, GRANULE):
        choices = [range(0, size - block.size + 1, GRANULE) for block in problem.blocks]
        if exists(problem, choices, []):
            return size
    return most


def exists(problem: Problem, choices: list[range], offsets: list[int]) -> bool:
    """Whether some continuation of the first offsets keeps the rule."""
    place = len(offsets)
    if place == len(choices):
        return True
    return any(
        all(allowed(problem, other, place, offsets[other], at) for other in range(place))
        and exists(problem, choices, [*offsets, at])
        for at in choices[place]
    )


def random_problem(rng: random.Random, count: int, longest: int) -> Problem:
    """Blocks of up to `longest` granules; some that end when another begins may be overwritten by it."""
    blocks = []
    for _ in range(count):
        first = rng.randint(0, 5)
        blocks.append(Block(GRANULE * rng.randint(1, longest), first, first + rng.randint(0, 3)))
    problem = Problem(blocks)
    for a, b in itertools.permutations(range(count), 2):
        if blocks[b].last == blocks[a].first and blocks[b].first < blocks[a].first and rng.random() < 0.7:
            ahead = rng.choice((None, 0, *(GRANULE * rng.randint(-3, longest) for _ in range(3))))
            problem.overlaps[a, b] = Overlap(ahead, ahead is None or rng.random() < 0.3)
    return problem


@pytest.mark.parametrize("seed", range(60))
def test_the_search_finds_the_smallest_and_proves_it(seed: int) -> None:
    problem = random_problem(random.Random(seed), 5, 3)
    placement, proven = smallest(problem, 0)
    assert keeps_the_rule(problem, placement.offsets) and is_right(problem, placement.offsets)
    assert placement.size == max(at + block.size for at, block in zip(placement.offsets, problem.blocks, strict=True))
    assert proven and placement.size == best_possible(problem)


@pytest.mark.parametrize("seed", range(20))
def test_a_size_is_refused_only_where_nothing_fits(seed: int) -> None:
    problem = random_problem(random.Random(100 + seed), 5, 3)
    best = best_possible(problem)
    for size in (best - GRANULE, best, best + GRANULE):
        offsets = fit(problem, size, Work(100_000))
        assert (offsets is None) == (size < best)
        assert offsets is None or keeps_the_rule(problem, offsets)


@pytest.mark.parametrize("seed", range(30))
def test_large_problems_keep_the_rule(seed: int) -> None:
    problem = random_problem(random.Random(200 + seed), 40, 60)
    for placement in (place_quickly(problem, 0, work=2000), smallest(problem, 0, work=3000)[0]):
        assert keeps_the_rule(problem, placement.offsets) and is_right(problem, placement.offsets)
    live = max(sum(b.size for b in problem.blocks if b.first <= time <= b.last) for time in range(10))
    assert placement.size <= 1.15 * live


@pytest.mark.parametrize("seed", range(30))
def test_moments_bound_the_whole(seed: int) -> None:
    """What is alive at one time needs as much alone, and never more than all together."""
    rng = random.Random(300 + seed)
    problem = random_problem(rng, 6, 3)
    best = smallest(problem, 0)[0].size
    for time in range(9):
        alive = [place for place, block in enumerate(problem.blocks) if block.first <= time <= block.last]
        part = Problem([problem.blocks[place] for place in alive])
        part.overlaps = {
            (alive.index(a), alive.index(b)): overlap for (a, b), overlap in problem.overlaps.items() if {a, b} <= {*alive}
        }
        bound = moment_bound(problem, alive)
        assert bound <= best and bound == (best_possible(part) if alive else 0)


@pytest.mark.parametrize("seed", range(30))
def test_upside_down_is_the_same_problem(seed: int) -> None:
    """A placement is right exactly if its mirror image keeps the mirrored gaps."""
    rng = random.Random(400 + seed)
    problem = random_problem(rng, 6, 4)
    gaps = gaps_of(problem)
    for _ in range(40):
        offsets = [GRANULE * rng.randint(0, 12) for _ in problem.blocks]
        end = 400
        turned = [end - at - block.size for at, block in zip(offsets, problem.blocks, strict=True)]
        assert is_right(problem, offsets) == keeps_the_rule(problem, offsets)
        right = all(
            not -gap.below < turned[x] - turned[gap.other] < gap.above or turned[x] - turned[gap.other] == gap.level
            for x, around in enumerate(mirrored(problem, gaps))
            for gap in around
        )
        assert right == keeps_the_rule(problem, offsets)


def test_the_lowest_place() -> None:
    """Behind a block of 24 bytes at 0 and before one at 40; level with the first where that is allowed."""
    problem = Problem([Block(24, 0, 1), Block(16, 0, 1), Block(16, 0, 1), Block(24, 1, 1)])
    gaps = gaps_of(problem)
    assert lowest_place(gaps[2], [0, 40, -1, -1]) == 24
    assert lowest_place(gaps[3], [0, 40, -1, -1]) == 56
    problem.overlaps[3, 0] = Overlap(None, level=True)
    assert lowest_place(gaps_of(problem)[3], [0, 40, -1, -1]) == 0
    assert lowest_place(gaps_of(problem)[3], [32, 16, -1, -1]) == 32


def test_an_output_below_its_input() -> None:
    """A buffer of both but for what may overlap: two blocks of 80, the second 16 before the first."""
    problem = Problem([Block(80, 0, 1), Block(80, 1, 2)], {(1, 0): Overlap(16)})
    placement, proven = smallest(problem, 0)
    assert proven and placement.size == 96 and placement.offsets == [16, 0]


def test_work_is_bounded() -> None:
    problem = random_problem(random.Random(7), 60, 40)
    with pytest.raises(OutOfWork):
        fit(problem, max(block.size for block in problem.blocks) * 3, Work(50))
    placement, proven = smallest(problem, 0, work=50)
    assert not proven and keeps_the_rule(problem, placement.offsets)


def test_nothing_to_place() -> None:
    assert smallest(Problem(), 0) == (place_quickly(Problem(), 0), True)
    assert place_quickly(Problem(), 0).size == 0


def test_the_same_problem_gives_the_same_places() -> None:
    for seed in range(5):
        problems = [random_problem(random.Random(seed), 9, 30) for _ in (0, 1)]
        assert smallest(problems[0], 0) == smallest(problems[1], 0)


def test_ten_thousand_blocks_in_time() -> None:
    blocks = [Block(GRANULE * (1 + place % 7), place, place + 1) for place in range(10_000)]
    placement = place_quickly(Problem(blocks), 0)
    ends = [at + block.size for at, block in zip(placement.offsets, blocks, strict=True)]
    starts = placement.offsets
    assert all(ends[i] <= starts[i + 1] or ends[i + 1] <= starts[i] for i in range(len(blocks) - 1))
