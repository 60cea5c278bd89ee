"""What may overlap, from graphs and kernels made by hand; places of blocks in problems whose best answer is known."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from graph_builder import Build

from firmware_export.graph import Graph
from firmware_export.operators import LayerCode
from firmware_export.planning.blocks import GRANULE, Block, Gap, Overlap, Problem, aligned, build_problem, gaps_of
from firmware_export.planning.exact import moment_bound, smallest
from firmware_export.planning.lives import Access, Lives, Owner
from firmware_export.planning.placement import Placement, is_right, lowest_place, place_quickly

CODE = LayerCode("nn_f", "", {})


def chain(*sizes: int) -> Graph:
    """Tensors 0, 1, ... of these sizes, each made of the one before."""
    build = Build()
    x = y = build.activation((1, sizes[0]), name="x")
    for size in sizes[1:]:
        y = build.node("relu", (y,), build.activation((1, size)), clamp=(-128, 127))
    return build.graph(x, y)


def problem_of(graph: Graph, *codes: LayerCode) -> Problem:
    problem, owners, _ = build_problem(graph, Lives.of(graph), codes)
    assert owners == sorted(owners)
    return problem


@pytest.mark.parametrize("size, rounded", [(-9, -8), (-8, -8), (-1, 0), (0, 0), (1, 8), (7, 8), (8, 8), (9, 16)])
def test_alignment_rounds_up(size: int, rounded: int) -> None:
    assert aligned(size) == rounded and GRANULE == 8


def test_blocks_live_from_writer_to_last_reader() -> None:
    """The input from before node 0, the output to behind the last one; scratch during its node."""
    problem = problem_of(chain(10, 20, 30), CODE, replace(CODE, scratch_bytes=5))
    assert problem.blocks == [Block(16, -1, 0), Block(24, 0, 1), Block(32, 1, 2), Block(8, 1, 1)]
    assert problem.overlaps == {}


@pytest.mark.parametrize(
    ("distances", "in_place", "expected"),
    [
        ((), (), None),
        ((None,), (), None),
        ((0,), (), Overlap(0)),
        ((13,), (), Overlap(16)),
        ((-5,), (), Overlap(0)),
        ((-8,), (), Overlap(-8)),
        ((-4000,), (), Overlap(-96)),
        ((), (True,), Overlap(None, True)),
        ((None,), (False,), None),
        ((24,), (True,), Overlap(24, True)),
    ],
)
def test_distances_of_a_kernel(distances: tuple[int | None, ...], in_place: tuple[bool, ...], expected: Overlap | None) -> None:
    """Output over a dead input of 100 bytes: at most so far behind it that it lies apart anyway."""
    graph = chain(100, 60)
    problem = problem_of(graph, replace(CODE, distances=distances, in_place=in_place))
    found = problem.overlaps.get((1, 0))
    assert found == expected


def test_what_is_read_later_is_not_overwritten() -> None:
    """x is read again by the second node: only the third may write over it."""
    build = Build()
    x = build.activation((1, 64), name="x")
    y = build.relu(x, (0, 127))
    z = build.node("add", (x, y), build.activation((1, 64)), clamp=(-128, 127))
    graph = build.graph(x, build.relu(z, (0, 100)))
    problem = problem_of(graph, *[replace(CODE, distances=(0, 0), in_place=(True, True))] * 3)
    assert problem.overlaps[2, 0] == Overlap(0, True) == problem.overlaps[2, 1] == problem.overlaps[3, 2]
    over = problem.overlaps.get((1, 0))
    assert over is None or (not over.level and over.ahead is not None and over.ahead >= 64)


def test_an_output_of_the_graph_is_never_overwritten() -> None:
    build = Build()
    x = build.activation((1, 64), name="x")
    y = build.relu(x, (0, 127))
    z = build.relu(y, (0, 100))
    problem = problem_of(build.graph(x, (y, z)), *[replace(CODE, distances=(0,), in_place=(True,))] * 2)
    over = problem.overlaps.get((2, 1))
    assert over is None or (not over.level and over.ahead is not None and over.ahead >= 64)


def test_two_inputs_have_their_own_distances() -> None:
    build = Build()
    x, y = (build.activation((1, 64), name=name) for name in "xy")
    graph = build.graph((x, y), build.node("add", (x, y), build.activation((1, 64)), clamp=(-128, 127)))
    problem = problem_of(graph, replace(CODE, distances=(8, None), in_place=(False, True)))
    assert problem.overlaps == {(2, 0): Overlap(8), (2, 1): Overlap(None, True)}
    problem = problem_of(graph, replace(CODE, distances=(8,)))
    assert problem.overlaps == {(2, 0): Overlap(8)}, "what is not said is forbidden"


def test_an_input_that_is_read_twice_has_the_stricter_distance() -> None:
    build = Build()
    x = build.activation((1, 64), name="x")
    graph = build.graph(x, build.node("add", (x, x), build.activation((1, 64)), clamp=(-128, 127)))
    for distances, expected in (((8, 24), Overlap(24)), ((24, 8), Overlap(24)), ((24, None), None)):
        assert problem_of(graph, replace(CODE, distances=distances)).overlaps.get((1, 0)) == expected
    levels = {flags: problem_of(graph, replace(CODE, in_place=flags)).overlaps for flags in ((True, True), (True, False))}
    assert levels[True, True] == {(1, 0): Overlap(None, True)} and levels[True, False] == {}


@pytest.mark.parametrize("distance, expected", [(None, None), (0, 0), (20, 24), (-20, -16)])
def test_scratch_over_a_dying_input(distance: int | None, expected: int | None) -> None:
    problem = problem_of(chain(100, 60), replace(CODE, scratch_bytes=40, scratch_distances=(distance,)))
    assert problem.overlaps.get((2, 0)) == (None if expected is None else Overlap(expected))


def test_scratch_stays_off_what_others_read_later() -> None:
    build = Build()
    x = build.activation((1, 64), name="x")
    y = build.relu(x, (0, 127))
    z = build.node("add", (x, y), build.activation((1, 64)), clamp=(-128, 127))
    code = replace(CODE, scratch_bytes=40, scratch_distances=(0, 0))
    problem = problem_of(build.graph(x, z), code, code)
    assert set(problem.overlaps) & {(3, 0), (3, 1), (4, 0), (4, 1)} == {(4, 0), (4, 1)}, (
        "block 3 is of node 0, block 4 of node 1"
    )


def test_an_owners_times() -> None:
    owner = Owner([Access(3, 0, 8), Access(1, 8, 16)], [Access(5, 4, 8), Access(4, 0, 4), Access(5, 12, 16)])
    assert (owner.first, owner.complete, owner.last) == (1, 3, 5)
    assert [owner.needed(time) for time in (3, 4, 5)] == [0, 4, None]
    assert Owner([Access(7, 0, 8)]).last == 7, "what nobody reads lives while it is made"


def gap_of(one: Block, other: Block, *overlaps: tuple[tuple[int, int], Overlap]) -> list[list[Gap]]:
    return gaps_of(Problem([one, other], dict(overlaps)))


def test_gaps_of_two_blocks() -> None:
    a, b = Block(24, 0, 2), Block(40, 1, 3)
    assert gap_of(a, b) == [[Gap(1, 24, 40, None)], [Gap(0, 40, 24, None)]]
    assert gap_of(a, Block(40, 3, 3)) == [[], []], "never at one time"
    assert gap_of(Block(24, 0, 2), Block(40, 2, 3)) == [[Gap(1, 24, 40, None)], [Gap(0, 40, 24, None)]]
    over = ((1, 0), Overlap(16))
    assert gap_of(a, b, over) == [[Gap(1, 24, 16, None)], [Gap(0, 16, 24, None)]], "b begins 16 before a, or behind it"
    assert gap_of(a, b, ((1, 0), Overlap(None, True))) == [[Gap(1, 24, 40, 0)], [Gap(0, 40, 24, 0)]]
    assert gap_of(a, b, ((1, 0), Overlap(-24))) == [[], []], "anywhere"
    assert gap_of(a, b, ((1, 0), Overlap(-8))) == [[Gap(1, 24, -8, None)], [Gap(0, -8, 24, None)]]


def test_the_lowest_of_several_levels() -> None:
    """A block may lie level with one at 16 or one at 0; the place between others is taken where it is wide enough."""
    around = [Gap(0, 24, 8, None), Gap(1, 24, 24, 0)]
    assert lowest_place(around, [0, 16]) == 16
    assert lowest_place([Gap(0, 24, 24, 0)], [16]) == 16, "below it only 16 bytes are free"
    assert lowest_place([Gap(0, 16, 24, 0)], [16]) == 0, "which are enough here"
    assert lowest_place([Gap(0, 16, 24, None)], [8]) == 32 and lowest_place([], []) == 0
    assert lowest_place([Gap(0, 16, 24, None), Gap(1, 16, 8, None)], [24, 0]) == 8
    assert lowest_place([Gap(0, 16, 24, None)], [-1]) == 0, "not placed yet"


def packed(sizes: list[int], rng: random.Random) -> Problem:
    """Rectangles of bytes and times that fill a square of 512 bytes and 12 times without a hole."""
    found = [(0, 512, 0, 12)]
    for _ in sizes:
        largest = max(found, key=lambda one: one[1] * one[3])
        found.remove(largest)
        begin, size, first, length = largest
        if rng.random() < 0.5 and size >= 16:
            cut = GRANULE * rng.randint(1, size // GRANULE - 1)
            found += [(begin, cut, first, length), (begin + cut, size - cut, first, length)]
        elif length >= 2:
            cut = rng.randint(1, length - 1)
            found += [(begin, size, first, cut), (begin, size, first + cut, length - cut)]
        else:
            found.append(largest)
    rng.shuffle(found)
    return Problem([Block(size, first, first + length - 1) for _, size, first, length in found])


@pytest.mark.parametrize("seed", range(25))
def test_blocks_cut_from_a_full_square_fit_it_again(seed: int) -> None:
    """512 bytes are needed at every time, and known to be enough."""
    problem = packed([0] * 9, random.Random(seed))
    placement, proven = smallest(problem, 512)
    assert placement.size == 512 and proven and is_right(problem, placement.offsets)
    assert placement.size == max(at + block.size for at, block in zip(placement.offsets, problem.blocks, strict=True))


def test_quick_places_are_near_the_best_without_any_search() -> None:
    """The first orders alone: on average within 6 % of the full square, never more than a quarter above."""
    sizes = [place_quickly(packed([0] * 14, random.Random(seed)), 512, work=0).size for seed in range(40)]
    assert min(sizes) == 512 and sum(sizes) / len(sizes) < 1.06 * 512 and max(sizes) <= 1.25 * 512


def test_the_search_makes_places_better_and_never_worse() -> None:
    gained = 0
    for seed in range(12):
        problem = packed([0] * 18, random.Random(1000 + seed))
        quick, searched = (place_quickly(problem, 512, work=work) for work in (0, 60_000))
        assert searched.size <= quick.size and is_right(problem, searched.offsets)
        gained += quick.size - searched.size
    assert gained >= 2 * GRANULE


def test_the_same_problem_has_the_same_places() -> None:
    problem = packed([0] * 16, random.Random(5))
    assert place_quickly(problem, 0, 20_000) == place_quickly(problem, 0, 20_000)
    assert place_quickly(Problem(), 0) == Placement([], 0)


def test_a_bound_that_is_met_ends_the_search() -> None:
    """With a bound above what the first order reaches nothing else is tried."""
    problem = packed([0] * 16, random.Random(7))
    first = place_quickly(problem, 10_000, 100_000)
    assert first.size <= 10_000 and is_right(problem, first.offsets)
    assert place_quickly(problem, first.size, 100_000) == first


def test_the_moment_of_an_input_and_its_output() -> None:
    """Apart 160; b 16 ahead of a: 96; level: 80. What lies wholly over the others adds nothing."""
    blocks = [Block(80, 0, 1), Block(80, 1, 2)]
    for overlap, bound in ((None, 160), (Overlap(16), 96), (Overlap(None, True), 80), (Overlap(0), 80), (Overlap(-80), 80)):
        problem = Problem(list(blocks), {} if overlap is None else {(1, 0): overlap})
        assert moment_bound(problem, [0, 1]) == bound and moment_bound(problem, [1, 0]) == bound
    assert moment_bound(Problem(), []) == 0
    three = Problem([*blocks, Block(40, 1, 1)], {(1, 0): Overlap(0), (2, 0): Overlap(0)})
    assert moment_bound(three, [0, 1, 2]) == 120 and moment_bound(three, [0, 2]) == 80
