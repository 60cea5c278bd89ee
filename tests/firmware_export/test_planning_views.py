"""Parts of tensors in the planning problem: every number by hand. Striped layers: bytes counted row by row."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from graph_builder import Build, inputs_of

from firmware_export.graph import Graph, Node, Quantization, Tensor
from firmware_export.operators import LayerCode
from firmware_export.plan import Place, Plan, plan
from firmware_export.planning.blocks import Overlap, build_problem
from firmware_export.planning.lives import Lives
from firmware_export.simulate import simulate
from firmware_export.striping import Segment, estimated, peak_nodes, row_bytes, segments, striped, stripes_of, with_stripes
from firmware_export.target import Target

VIEW = LayerCode("", "", {})


def code(distance: int | None = None, *, level: bool = False, scratch: int = 0, over: int | None = None) -> LayerCode:
    return LayerCode("nn_f", "", {}, scratch_bytes=scratch, distances=(distance,), in_place=(level,), scratch_distances=(over,))


def joined() -> Graph:
    """relu(x0) and relu(x1), 64 bytes each, side by side in 128: tensors 0 and 1, 2 and 3, 4."""
    build = Build()
    inputs = tuple(build.activation((1, 64), name=name) for name in ("x0", "x1"))
    parts = tuple(build.relu(x, (0, 127)) for x in inputs)
    return build.graph(inputs, build.node("concatenation", parts, build.activation((1, 128)), axis=1))


def cut(build: Build, x: int, begin: int, size: int) -> int:
    """A slice of [1, n]."""
    shape = (1, size)
    attributes = {"begin": (0, begin), "stride": (1, 1), "size": shape, "shape": shape}
    return build.node("strided_slice", (x,), build.activation(shape), **attributes)


def sliced(*begins: int) -> Graph:
    """x of 128 bytes; for each begin the relu of the 64 bytes from there on; nodes: slice, relu, slice, relu, ..."""
    build = Build()
    x = build.activation((1, 128), name="x")
    return build.graph(x, tuple(build.relu(cut(build, x, begin, 64), (0, 127)) for begin in begins))


def overlaps(graph: Graph, *codes: LayerCode) -> dict[tuple[int, int], Overlap]:
    """(tensor or -1 - node of a scratch, tensor) -> Overlap."""
    lives = Lives.of(graph)
    problem, owners, scratched = build_problem(graph, lives, codes)
    names = [*owners, *(-1 - node for node in scratched)]
    return {(names[a], names[b]): overlap for (a, b), overlap in problem.overlaps.items()}


def test_parts_of_what_is_joined_own_no_bytes() -> None:
    lives = Lives.of(joined())
    assert lives.storage == {0: (0, 0), 1: (1, 0), 2: (4, 0), 3: (4, 64), 4: (4, 0)}
    assert lives.views == {2} and sorted(lives.owners) == [0, 1, 4]
    assert [(write.time, write.begin, write.end) for write in lives.owners[4].writes] == [(0, 0, 64), (1, 64, 128)]
    assert [read.time for read in lives.owners[4].reads] == [2, 3], "the join, and the caller"


@pytest.mark.parametrize(
    ("distance", "first", "second"),
    [(0, Overlap(0), Overlap(64)), (10, Overlap(16), Overlap(80)), (-16, Overlap(-16), Overlap(64)), (None, None, None)],
)
def test_the_second_part_lies_64_bytes_farther_on(distance: int | None, first: Overlap | None, second: Overlap | None) -> None:
    """The first relu also writes while x1 is still whole: 64 bytes before it."""
    found = overlaps(joined(), code(distance), code(distance), VIEW)
    assert found.get((4, 0)) == first and found.get((4, 1)) == second


def test_what_is_joined_is_level_with_nothing() -> None:
    """In place alone, without distances, would be another kernel's write over bytes that are still read."""
    found = overlaps(joined(), code(level=True), code(level=True), VIEW)
    assert found == {}


def test_slices_at_words_are_parts_of_their_input() -> None:
    lives = Lives.of(sliced(0, 64))
    assert lives.storage[1] == (0, 0) and lives.storage[3] == (0, 64) and lives.views == {0, 2}
    assert [(read.time, read.begin, read.end) for read in lives.owners[0].reads] == [
        (0, 0, 64), (1, 0, 64), (2, 64, 128), (3, 64, 128),
    ], "by the slices themselves, and by the relus"  # fmt: skip
    between = Lives.of(sliced(2, 64))
    assert between.storage[1] == (1, 0) and between.views == {2}, "at byte 2 no word begins"


@pytest.mark.parametrize(
    ("begin", "distance", "expected"), [(0, 0, 0), (64, 0, -64), (64, 70, 8), (32, 0, -32), (64, -64, -128), (64, -500, -128)]
)
def test_a_kernel_that_reads_a_part_may_write_earlier(begin: int, distance: int, expected: int) -> None:
    """By as many bytes as the part begins behind its owner; never needing more than to lie apart."""
    assert overlaps(sliced(begin), VIEW, code(distance)) == {(2, 0): Overlap(expected)}


def test_only_the_whole_input_can_be_written_level() -> None:
    assert overlaps(sliced(0), VIEW, code(level=True)) == {(2, 0): Overlap(None, True)}
    assert overlaps(sliced(64), VIEW, code(level=True)) == {}
    assert overlaps(sliced(64), VIEW, code(0, level=True)) == {(2, 0): Overlap(-64)}


def test_a_part_that_is_read_later_is_kept() -> None:
    """First half first: its relu may lie over that half. Second half first: it must leave the first half alone."""
    forward = overlaps(sliced(0, 64), VIEW, code(0), VIEW, code(0))
    assert forward[2, 0] == Overlap(0) and forward[4, 0] == Overlap(-64)
    backward = overlaps(sliced(64, 0), VIEW, code(0), VIEW, code(0))
    assert backward[2, 0] == Overlap(64) and backward[4, 0] == Overlap(0)


@pytest.mark.parametrize(("begin", "distance", "expected"), [(0, 8, 8), (64, 8, -56), (64, 0, -64), (64, 90, 32)])
def test_scratch_over_a_part(begin: int, distance: int, expected: int) -> None:
    found = overlaps(sliced(begin), VIEW, code(scratch=16, over=distance))
    assert found == {(-2, 0): Overlap(expected)}
    assert overlaps(sliced(begin), VIEW, code(scratch=16)) == {}


def test_a_reshaped_constant_is_no_part_of_an_activation() -> None:
    build = Build()
    x = build.activation((1, 4), name="x")
    stored = build.tensor(
        Tensor("c", (4, 1), "int8", Quantization.per_tensor(0.05, 0), np.arange(4, dtype=np.int8).reshape(4, 1))
    )
    y = build.node("reshape", (stored,), build.activation((1, 4)), shape=(1, 4))
    z = build.node("add", (x, y), build.activation((1, 4)), clamp=(-128, 127))
    lives = Lives.of(build.graph(x, z))
    assert lives.storage[y] == (y, 0) and lives.views == frozenset()
    assert lives.owners[y].first == 0 and lives.owners[y].last == 1


def test_real_plans_of_parts_use_them() -> None:
    """128 bytes in, two halves out one behind the other: 128 bytes in all, not 256."""
    layout = plan(sliced(0, 64))
    assert layout.size == 128 and layout.codes[0].function == "" == layout.codes[2].function
    assert layout.offsets[3] == layout.offsets[0] + 64
    both = plan(joined())
    assert both.offsets[3] == both.offsets[2] + 64 and both.offsets[2] == both.offsets[4] and both.size <= 192


# Stripes


def images(*channels: int, size: int = 8) -> Graph:
    """3x3 convolutions with SAME padding, one behind the other, on images of size x size."""
    build = Build()
    x = y = build.activation((1, size, size, channels[0]), name="x")
    for count in channels[1:]:
        y = build.conv(y, count, scale=0.4)
    return build.graph(x, y)


def test_bytes_of_a_row() -> None:
    graph = images(4, 16)
    assert row_bytes(graph, 0) == 8 * 4 and row_bytes(graph, graph.outputs[0]) == 8 * 16


def test_rows_of_two_stripes_by_hand() -> None:
    """Output rows 0-3 and 4-7 need rows 0-4 and 3-7 between, and of the second stripe's only 5-7 are new; inputs 0-5, 4-7."""
    graph = images(4, 16, 4)
    middle, output = graph.nodes[0].outputs[0], graph.outputs[0]
    first, second = stripes_of(graph, Segment((0, 1), 2))
    assert first.whole == {output: (0, 4), middle: (0, 5), 0: (0, 6)} and first.new == {output: (0, 4), middle: (0, 5)}
    assert second.whole[middle] == (3, 8) and second.new[middle] == (5, 8) and second.whole[0] == (4, 8)


def test_the_estimate_counts_the_rows_between_and_the_tensors_around() -> None:
    """Five rows of 128 bytes between. The output may lie over the dying input: a stripe of 4 rows is written, 128 bytes, when
    the input is still needed from row 4 on, byte 128."""
    graph = images(4, 16, 4)
    assert estimated(graph, Segment((0, 1), 2)) == 5 * 128 + 256
    kept = replace(graph, outputs=(*graph.outputs, 0))
    assert estimated(kept, Segment((0, 1), 2)) == 5 * 128 + 2 * 256, "an input that is an output stays whole"
    wider = images(4, 16, 8)
    assert estimated(wider, Segment((0, 1), 2)) == 5 * 128 + 512, "an output that is larger than the input"


def test_what_lives_past_the_segment_is_counted() -> None:
    build = Build()
    x = build.activation((1, 8, 8, 4), name="x")
    side = build.conv(x, 4, scale=0.4)
    y = build.conv(build.conv(x, 16, scale=0.4), 4, scale=0.4)
    total = build.node("add", (side, y), build.activation((1, 8, 8, 4), 0.5), clamp=(-128, 127))
    graph = build.graph(x, total)
    assert estimated(graph, Segment((1, 2), 2)) == 5 * 128 + 256 + 256


@pytest.mark.parametrize("stripes", [1, 2, 3, 4, 8, 9])
def test_stripes_without_a_new_row_are_refused(stripes: int) -> None:
    """Nine of eight rows; and with eight the last one finds all rows between made by the one before."""
    found = estimated(images(4, 16, 4), Segment((0, 1), stripes))
    assert (found is None) == (stripes >= 8)


def test_rows_that_are_no_words_are_not_cut() -> None:
    """Three bytes for each of eight pixels are 24, for each of five pixels 15."""
    assert estimated(images(3, 16, 4), Segment((0, 1), 2)) is not None
    assert estimated(images(3, 16, 4, size=5), Segment((0, 1), 2)) is None


def test_nodes_of_what_reaches_the_end() -> None:
    places = (
        Place(0, None, 0, 60, 0, 1),
        Place(1, None, 64, 32, 1, 2),
        Place(2, None, 0, 90, 3, 3),
        Place(None, 5, 92, 4, 5, 5),
    )
    layout = Plan({}, {}, 96, 96, True, 0, (), places)
    assert peak_nodes(layout) == {1, 2, 5}, "91 and fewer bytes are not the end of 96; a word less is"


def test_chains_around_a_node() -> None:
    graph = images(4, 4, 4, 4, 4, 4, 4)
    found = set(segments(graph, {2}))
    assert all(2 in chain and 2 <= len(chain) <= 4 for chain in found)
    assert {(1, 2), (2, 3), (0, 1, 2), (0, 1, 2, 3), (2, 3, 4, 5)} <= found and (0, 1) not in found and (3, 4) not in found
    assert all(list(chain) == list(range(chain[0], chain[-1] + 1)) for chain in found)


@pytest.mark.parametrize("stripes", [2, 3, 4])
def test_striped_tensors_are_named_by_their_rows_and_answer_the_same(stripes: int) -> None:
    graph = images(4, 16, 4)
    other = with_stripes(graph, Segment((0, 1), stripes))
    cuts = [8 * number // stripes for number in range(stripes + 1)]
    name = graph.tensors[graph.outputs[0]].name
    parts = [other.tensors[index] for index in other.nodes[-1].inputs]
    assert [(part.name, part.shape) for part in parts] == [
        (f"{name}/rows {begin} to {end - 1}", (1, end - begin, 8, 4)) for begin, end in pairwise(cuts)
    ]
    inputs = inputs_of(graph)
    assert np.array_equal(simulate(other, *inputs)[0], simulate(graph, *inputs)[0])
    assert isinstance(other.nodes[-1], Node) and other.nodes[-1].op == "concatenation"


def test_the_change_that_is_reported() -> None:
    """A middle of 32 channels over a wide image: operators grow, products and int8 weights do not."""
    graph = images(4, 32, 4, size=24)
    other = striped(graph, "ram")
    assert other is not graph
    change = other.changes[-1]
    macs = 24 * 24 * (9 * 4 * 32 + 9 * 32 * 4)
    assert change.name == "striped" and change.macs == (macs, macs)
    assert change.weights == (2 * 9 * 4 * 32, 2 * 9 * 4 * 32) and change.operators == (2, len(other.nodes))
    assert plan(other, Target("dsp", "ram")).size <= plan(graph, Target("dsp", "ram")).size - 2048
