"""What may lie over what: the planner's problem for small graphs against numbers worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from graph_builder import Build
from test_lives import joined, sliced

from firmware_export.graph import Graph
from firmware_export.kernels import node_options
from firmware_export.operators import LayerCode
from firmware_export.planning.blocks import GRANULE, Block, Overlap, aligned, build_problem, gaps_of
from firmware_export.planning.lives import Access, Lives, Owner
from firmware_export.target import Target

KEEP_APART = LayerCode("nn_x", "nn_x_params", {})


def with_distances(*distances: int | None, **more: object) -> LayerCode:
    return replace(KEEP_APART, distances=distances, **more)


def overlaps(graph: Graph, codes: list[LayerCode]) -> dict[tuple[int, int], Overlap]:
    """By tensor index; a scratch is minus one minus its node."""
    problem, owners, scratched = build_problem(graph, Lives.of(graph), codes)
    names = [*owners, *(-1 - place for place in scratched)]
    return {(names[a], names[b]): overlap for (a, b), overlap in problem.overlaps.items()}


def two_inputs() -> tuple[Graph, int, int, int]:
    build = Build()
    a, b = (build.activation((1, 40), name=name) for name in "ab")
    y = build.node("add", (a, b), build.activation((1, 40)), clamp=(-128, 127))
    return build.graph((a, b), y), a, b, y


def test_each_input_has_its_own_distance() -> None:
    graph, a, b, y = two_inputs()
    assert overlaps(graph, [with_distances(3, -20)]) == {(y, a): Overlap(8), (y, b): Overlap(-16)}
    assert overlaps(graph, [with_distances(None, 0)]) == {(y, b): Overlap(0)}
    assert overlaps(graph, [with_distances(0)]) == {(y, a): Overlap(0)}, "what is missing keeps apart"
    assert overlaps(graph, [KEEP_APART]) == {}


def test_level_alone_is_an_overlap_too() -> None:
    graph, a, b, y = two_inputs()
    assert overlaps(graph, [replace(KEEP_APART, in_place=(False, True))]) == {(y, b): Overlap(None, level=True)}
    assert overlaps(graph, [with_distances(16, in_place=(True,))]) == {(y, a): Overlap(16, level=True)}


def test_one_tensor_as_both_inputs_takes_the_farther_distance() -> None:
    build = Build()
    x = build.activation((1, 40), name="x")
    y = build.node("add", (x, x), build.activation((1, 40)), clamp=(-128, 127))
    graph = build.graph(x, y)
    assert overlaps(graph, [with_distances(0, 24)]) == {(y, x): Overlap(24)}
    assert overlaps(graph, [with_distances(0, None)]) == {}
    assert overlaps(graph, [replace(KEEP_APART, in_place=(True, False))]) == {}


def test_what_is_needed_later_keeps_apart() -> None:
    """The input of the first node is read again by the second one, the output of the first is the network's."""
    build = Build()
    x = build.activation((1, 40), name="x")
    y = build.node("relu", (x,), build.activation((1, 40)), clamp=(0, 127))
    z = build.node("relu", (x,), build.activation((1, 40)), clamp=(0, 127))
    graph = build.graph(x, (y, z))
    found = overlaps(graph, [with_distances(0), with_distances(0)])
    assert found[z, x] == Overlap(0)
    assert found[z, y].ahead == found[y, x].ahead == 40, "as far as two blocks that lie apart"


def test_scratch_lies_over_an_input_only_where_it_is_read_last() -> None:
    build = Build()
    x = build.activation((1, 64), name="x")
    y = build.fully_connected(x, 8)
    z = build.fully_connected(x, 8)
    graph = build.graph(x, (y, z))
    code = replace(KEEP_APART, scratch_bytes=128, scratch_distances=(60,))
    found = overlaps(graph, [code, code])
    assert {pair: overlap for pair, overlap in found.items() if pair[0] < 0} == {(-2, x): Overlap(64)}


def test_distances_reach_through_slices() -> None:
    """A relu of the second half, written over the first half of what it is a part of: its bytes begin 32 farther on."""
    build = Build()
    x = build.activation((1, 8, 2, 4), name="x")
    y = build.node("relu", (x,), build.activation((1, 8, 2, 4), 0.05, 0), clamp=(0, 127))
    half = sliced(build, y, (0, 4, 0, 0), (1, 4, 2, 4))
    z = build.node("relu", (half,), build.activation((1, 4, 2, 4)), clamp=(0, 127))
    graph = build.graph(x, z)
    found = overlaps(graph, [with_distances(0), replace(KEEP_APART, function=""), with_distances(0)])
    assert found[z, y] == Overlap(-32)


def test_parts_of_a_join_are_written_behind_what_is_read() -> None:
    """Two halves, each made of its own half: the first must not reach the second half's bytes before they are read."""
    build = Build()
    x = build.activation((1, 8, 2, 4), name="x")
    y = build.node("relu", (x,), build.activation((1, 8, 2, 4), 0.05, 0), clamp=(0, 127))
    halves = []
    for begin in (0, 4):
        half = sliced(build, y, (0, begin, 0, 0), (1, 4, 2, 4))
        halves.append(build.node("relu", (half,), build.activation((1, 4, 2, 4), 0.05, 0), clamp=(0, 127)))
    out = joined(build, (halves[0], halves[1]), 1)
    graph = build.graph(x, out)
    view = replace(KEEP_APART, function="")
    codes = [with_distances(0), view, with_distances(0), view, with_distances(0), view]
    assert overlaps(graph, codes)[out, y] == Overlap(0)
    codes[4] = with_distances(8)
    assert overlaps(graph, codes)[out, y] == Overlap(8)
    codes[4] = KEEP_APART
    assert (out, y) not in overlaps(graph, codes)


def test_gaps_of_overlapping_blocks() -> None:
    graph, a, b, y = two_inputs()
    problem, owners, _ = build_problem(graph, Lives.of(graph), [with_distances(16, None)])
    gaps = {gap.other: gap for gap in gaps_of(problem)[owners.index(y)]}
    assert (gaps[owners.index(a)].below, gaps[owners.index(a)].above) == (16, 40)
    assert (gaps[owners.index(b)].below, gaps[owners.index(b)].above) == (40, 40)
    free, owners, _ = build_problem(graph, Lives.of(graph), [with_distances(-40, -40)])
    assert gaps_of(free)[owners.index(y)] == [], "anywhere"


@pytest.mark.parametrize("size, rounded", [(0, 0), (1, 8), (8, 8), (9, 16), (-1, 0), (-8, -8), (-9, -8), (-17, -16)])
def test_rounding_up(size: int, rounded: int) -> None:
    assert aligned(size) == rounded and aligned(size) % GRANULE == 0


def test_blocks_of_a_graph() -> None:
    graph, a, b, y = two_inputs()
    code = replace(KEEP_APART, scratch_bytes=13)
    problem, owners, scratched = build_problem(graph, Lives.of(graph), [code])
    assert owners == [a, b, y] and scratched == [0]
    assert problem.blocks == [Block(40, -1, 0), Block(40, -1, 0), Block(40, 0, 1), Block(16, 0, 0)]


def test_what_an_owner_still_needs() -> None:
    owner = Owner([Access(2, 0, 8), Access(3, 8, 16)], [Access(4, 8, 16), Access(6, 0, 4), Access(9, 12, 16)])
    assert (owner.first, owner.complete, owner.last) == (2, 3, 9)
    assert [owner.needed(time) for time in (0, 4, 5, 6, 8, 9)] == [0, 0, 0, 12, 12, None]


# Copies of one piece


@pytest.mark.parametrize(
    "begin, size, distance",
    [
        ((0, 5, 0, 0), (1, 1, 4, 4), 16 - 80),
        ((0, 0, 0, 0), (1, 3, 4, 4), 48),
        ((0, 2, 0, 0), (1, 4, 4, 4), 64 - 32),
        ((0, 2, 1, 0), (1, 1, 2, 4), 8 - 36),
        ((0, 2, 1, 0), (1, 2, 2, 4), None),
        ((0, 0, 0, 1), (1, 6, 4, 2), None),
    ],
)
def test_a_copied_piece_must_not_overlap_its_copy(begin: tuple[int, ...], size: tuple[int, ...], distance: int | None) -> None:
    """[1, 6, 4, 4]: the copy ends before the piece begins; several pieces keep apart."""
    build = Build()
    x = build.activation((1, 6, 4, 4), name="x")
    graph = build.graph(x, sliced(build, x, begin, size))
    (code,) = node_options(graph, graph.nodes[0], Target())
    assert code.distances == (distance,)
    places = np.arange(96).reshape(1, 6, 4, 4)[np.ix_(*(range(b, b + n) for b, n in zip(begin, size, strict=True)))].reshape(-1)
    one_piece = bool(np.all(np.diff(places) == 1))
    assert (distance is not None) == one_piece
    if distance is not None:
        assert distance == places.size - places[0]
