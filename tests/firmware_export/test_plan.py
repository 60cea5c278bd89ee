"""The memory plan: an independent verifier runs the program on bytes and sees whether anything is overwritten too early."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace

import numpy as np
import pytest
from graph_builder import Build, small_net

from firmware_export.graph import Graph, Node
from firmware_export.operators import operator_of
from firmware_export.plan import ALIGNMENT, Plan, place_blocks, plan


def verify(graph: Graph, layout: Plan) -> None:
    """Fills a buffer of `size` bytes as the program would: every tensor gets its own mark when it is written, scratch gets
    junk, and each mark must still be there, whole, when the tensor is read or handed out."""
    buffer = np.zeros(layout.size, np.int64)
    mark: dict[int, int] = {}
    marks = itertools.count(1)

    def span(index: int) -> slice:
        start = layout.offsets[index]
        assert start % ALIGNMENT == 0 and start + graph.tensors[index].nbytes <= layout.size
        return slice(start, start + graph.tensors[index].nbytes)

    def write(index: int) -> None:
        mark[index] = next(marks)
        buffer[span(index)] = mark[index]

    def intact(index: int) -> bool:
        return bool(np.all(buffer[span(index)] == mark[index]))

    for index in graph.inputs:
        write(index)
    for place, node in enumerate(graph.nodes):
        read = [index for index in node.inputs if index in mark]
        assert all(intact(index) for index in read), f"node {place} reads what was overwritten"
        if node.op == "reshape" and layout.offsets[node.inputs[0]] == layout.offsets[node.outputs[0]]:
            mark[node.outputs[0]] = mark[node.inputs[0]]
            continue
        for index in node.outputs:
            write(index)
        scratch = operator_of(node).emit(graph, node).scratch_bytes
        assert (scratch > 0) == (place in layout.scratch)
        if scratch:
            start = layout.scratch[place]
            assert start % ALIGNMENT == 0 and start + scratch <= layout.size
            buffer[start : start + scratch] = -1
        assert all(intact(index) for index in (*read, *node.outputs)), f"node {place} overwrites what it reads or writes"
    assert all(intact(index) for index in graph.outputs), "an output was overwritten before the end"


def random_graph(seed: int) -> Graph:
    """Convolutions that read any earlier value (so that lives overlap in all ways), with reshapes between."""
    rng = random.Random(seed)
    build = Build(seed)
    x = build.activation((1, 4, 4, rng.randint(1, 5)), name="x")
    values = [x]
    for _ in range(rng.randint(2, 12)):
        source = rng.choice(values[-4:])
        if rng.random() < 0.25:
            side = build.tensors[source].shape
            values.append(build.reshape(source, (1, side[2], side[1], side[3])))
        else:
            values.append(build.conv(source, rng.randint(1, 9), rng.choice((1, 3))))
    read = {index for node in build.nodes for index in node.inputs}
    ends = tuple(value for value in values[1:] if value not in read)
    return build.graph(x, ends)


@pytest.mark.parametrize("seed", range(60))
def test_no_value_is_overwritten_before_its_last_use(seed: int) -> None:
    graph = random_graph(seed)
    layout = plan(graph)
    verify(graph, layout)
    assert layout.size >= layout.lower_bound
    assert layout == plan(graph), "the same graph gives the same plan"


def test_the_verifier_sees_an_overlap() -> None:
    graph = small_net()
    layout = plan(graph)
    first, second = graph.nodes[0].outputs[0], graph.nodes[1].outputs[0]
    bad = replace(layout, offsets=layout.offsets | {second: layout.offsets[first]})
    with pytest.raises(AssertionError):
        verify(graph, bad)


def test_the_verifier_sees_a_scratch_on_top_of_an_input() -> None:
    graph = small_net()
    layout = plan(graph)
    place = next(iter(layout.scratch))
    bad = replace(layout, scratch=layout.scratch | {place: layout.offsets[graph.nodes[place].inputs[0]]})
    with pytest.raises(AssertionError):
        verify(graph, bad)


def test_a_chain_reaches_its_lower_bound() -> None:
    layout = plan(small_net())
    assert layout.size == layout.lower_bound


def test_a_reshape_takes_no_memory() -> None:
    graph = small_net()
    layout = plan(graph)
    node = next(node for node in graph.nodes if node.op == "reshape")
    assert layout.offsets[node.inputs[0]] == layout.offsets[node.outputs[0]]


def test_a_reshaped_input_that_is_read_later_again_lives_as_long_as_its_reader() -> None:
    build = Build()
    x = build.activation((1, 4, 4, 2), name="x")
    flat = build.reshape(x, (1, 2, 8, 2))
    y = build.conv(build.conv(flat, 8), 8)
    z = build.conv(build.reshape(flat, (1, 8, 2, 2)), 3)
    graph = build.graph(x, (y, z))
    verify(graph, plan(graph))


def test_two_outputs_and_an_input_nobody_reads_after_the_first_node() -> None:
    build = Build()
    x = build.activation((1, 16, 16, 4), name="x")
    y = build.conv(x, 1)
    z = build.conv(y, 4)
    graph = build.graph(x, (y, z))
    layout = plan(graph)
    verify(graph, layout)
    assert layout.offsets[z] < 16 * 16 * 4, "the input's place is used again"


def live_sum(blocks: list[tuple[int, int, int]]) -> int:
    times = range(-1, max(last for _, _, last in blocks) + 1)
    return max(sum(size for size, first, last in blocks if first <= time <= last) for time in times)


def overlapping(blocks: list[tuple[int, int, int]], offsets: list[int]) -> list[tuple[int, int]]:
    pairs = []
    for (i, (size, first, last)), (j, (size2, first2, last2)) in itertools.combinations(enumerate(blocks), 2):
        together = first <= last2 and first2 <= last
        if together and offsets[i] < offsets[j] + size2 and offsets[j] < offsets[i] + size:
            pairs.append((i, j))
    return pairs


@pytest.mark.parametrize("seed", range(30))
def test_random_blocks_never_overlap_and_are_close_to_the_bound(seed: int) -> None:
    rng = random.Random(seed)
    blocks = []
    for _ in range(rng.randint(1, 25)):
        first = rng.randint(-1, 15)
        blocks.append((16 * rng.randint(1, 60), first, first + rng.randint(0, 6)))
    offsets, size, bound = place_blocks(blocks)
    assert not overlapping(blocks, offsets)
    assert size == max(offset + block[0] for offset, block in zip(offsets, blocks, strict=True))
    assert bound == live_sum(blocks)
    assert bound <= size <= 1.1 * bound


def best_possible(blocks: list[tuple[int, int, int]]) -> int:
    """The smallest size over all orders of first-fit placement, which holds an optimum for so few blocks."""
    best = sum(size for size, _, _ in blocks)
    for order in itertools.permutations(range(len(blocks))):
        offsets: dict[int, int] = {}
        for i in order:
            size, first, last = blocks[i]
            taken = sorted(
                (offsets[j], offsets[j] + blocks[j][0]) for j in offsets if blocks[j][1] <= last and first <= blocks[j][2]
            )
            place = 0
            for start, stop in taken:
                if start - place >= size:
                    break
                place = max(place, stop)
            offsets[i] = place
        best = min(best, max(offsets[i] + blocks[i][0] for i in offsets))
    return best


@pytest.mark.parametrize("seed", range(12))
def test_few_blocks_are_placed_optimally(seed: int) -> None:
    rng = random.Random(100 + seed)
    blocks = []
    for _ in range(6):
        first = rng.randint(0, 6)
        blocks.append((16 * rng.randint(1, 9), first, first + rng.randint(0, 3)))
    assert place_blocks(blocks)[1] == best_possible(blocks)


def test_the_search_finds_what_greedy_misses() -> None:
    """Largest first puts 0 and 1 apart by a gap that no later block fills; another order does without it."""
    rng = random.Random(5)
    improved = 0
    for _ in range(200):
        blocks = []
        for _ in range(10):
            first = rng.randint(0, 9)
            blocks.append((16 * rng.randint(1, 30), first, first + rng.randint(1, 4)))
        improved += place_blocks(blocks)[1] == live_sum(blocks)
    assert improved >= 190


def test_a_long_chain_is_planned_in_time() -> None:
    blocks = [(16 * (1 + place % 7), place, place + 1) for place in range(10_000)]
    offsets, _, _ = place_blocks(blocks)
    ends = [offset + block[0] for offset, block in zip(offsets, blocks, strict=True)]
    assert all(ends[i] <= offsets[i + 1] or ends[i + 1] <= offsets[i] for i in range(9_999))


def test_scratch_lives_beside_inputs_and_outputs_only_during_its_node() -> None:
    graph = small_net()
    layout = plan(graph)
    busy = [i for i, node in enumerate(graph.nodes) if operator_of(node).emit(graph, node).scratch_bytes]
    assert sorted(layout.scratch) == busy


def test_sizes_are_rounded_up_to_the_alignment() -> None:
    build = Build()
    x = build.activation((1, 3, 3, 1), name="x")
    y = build.conv(x, 1, bias=False)
    graph = build.graph(x, y)
    layout = plan(graph)
    assert {layout.offsets[x] % 16, layout.offsets[y] % 16, layout.size % 16} == {0}
    assert isinstance(graph.nodes[0], Node)
