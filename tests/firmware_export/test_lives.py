"""Which tensors are parts of others, and when their bytes are written and read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from graph_builder import Build, inputs_of
from plan_verifier import PoisonedRuns, check_places

from firmware_export.emit import emit
from firmware_export.graph import Graph
from firmware_export.plan import plan
from firmware_export.planning.blocks import Overlap, build_problem
from firmware_export.planning.lives import Access, Lives
from firmware_export.target import Target


def sliced(build: Build, x: int, begin: tuple[int, ...], size: tuple[int, ...], stride: int = 1) -> int:
    """A strided slice with one stride along all axes."""
    y = build.activation(size, build.tensors[x].scale, build.tensors[x].zero_point)
    return build.node("strided_slice", (x,), y, begin=begin, stride=(stride,) * len(size), size=size, shape=size)


def joined(build: Build, parts: tuple[int, ...], axis: int) -> int:
    shape = list(build.tensors[parts[0]].shape)
    shape[axis] = sum(build.tensors[part].shape[axis] for part in parts)
    y = build.activation(tuple(shape), build.tensors[parts[0]].scale, build.tensors[parts[0]].zero_point)
    return build.node("concatenation", parts, y, axis=axis)


def two_branches(axis: int) -> tuple[Graph, int, int, int]:
    """Two convolutions of one image, joined."""
    build = Build(3)
    x = build.activation((1, 4, 4, 4), name="x")
    a, b = (build.conv(x, 4, scale=0.2) for _ in range(2))
    y = joined(build, (a, b), axis)
    return build.graph(x, y), a, b, y


def check_runs(graph: Graph, folder: Path, target: Target = Target("dsp")) -> None:  # noqa: B008 (frozen)
    layout = plan(graph, target)
    check_places(graph, layout)
    assert PoisonedRuns(folder, [graph], [layout]).faults(0, inputs_of(graph)) == []


def test_rows_are_joined_where_they_are_made(tmp_path: Path) -> None:
    graph, a, b, y = two_branches(1)
    lives = Lives.of(graph)
    assert lives.storage[a] == (y, 0) and lives.storage[b] == (y, 64) and lives.storage[y] == (y, 0)
    assert lives.views == {2}
    owner = lives.owners[y]
    assert owner.writes == [Access(0, 0, 64), Access(1, 64, 128)]
    assert (owner.first, owner.complete, owner.last) == (0, 1, 3)
    check_runs(graph, tmp_path)
    assert "nn_concatenation" not in emit(graph, plan(graph), "joined", selftest=False)["joined.c"]


def test_channels_are_not_joined_that_way(tmp_path: Path) -> None:
    graph, a, _, _ = two_branches(3)
    lives = Lives.of(graph)
    assert lives.views == frozenset() and lives.storage[a] == (a, 0)
    check_runs(graph, tmp_path)


def test_rows_are_cut_out_for_nothing(tmp_path: Path) -> None:
    build = Build(4)
    x = build.activation((1, 6, 4, 4), name="x")
    y = build.conv(x, 4, scale=0.2)
    part = sliced(build, y, (0, 2, 0, 0), (1, 3, 4, 4))
    graph = build.graph(x, build.conv(part, 2))
    lives = Lives.of(graph)
    assert lives.storage[part] == (y, 32) and lives.views == {1}
    assert Access(2, 32, 80) in lives.owners[y].reads
    assert lives.owners[y].needed(0) == 32 and lives.owners[y].needed(2) is None
    check_runs(graph, tmp_path)


@pytest.mark.parametrize("begin, size, stride", [((0, 0, 1, 0), (1, 6, 2, 4), 1), ((0, 0, 0, 0), (1, 3, 2, 2), 2)])
def test_other_slices_are_copied(begin: tuple[int, ...], size: tuple[int, ...], stride: int, tmp_path: Path) -> None:
    build = Build(5)
    x = build.activation((1, 6, 4, 4), name="x")
    part = sliced(build, build.conv(x, 4, scale=0.2), begin, size, stride)
    graph = build.graph(x, build.conv(part, 2))
    assert Lives.of(graph).views == frozenset()
    check_runs(graph, tmp_path)


def test_parts_that_begin_between_words_are_copied() -> None:
    build = Build(6)
    x = build.activation((1, 5, 1, 3), name="x")
    part = sliced(build, x, (0, 1, 0, 0), (1, 4, 1, 3))
    graph = build.graph(x, build.conv(part, 2, 1))
    assert Lives.of(graph).views == frozenset()


def test_what_is_read_elsewhere_too_may_be_joined_in_place(tmp_path: Path) -> None:
    """The first branch is also an input of a later node: its bytes stay in the joined tensor."""
    build = Build(7)
    x = build.activation((1, 4, 4, 4), name="x")
    a, b = (build.conv(x, 4, scale=0.2) for _ in range(2))
    y = joined(build, (a, b), 1)
    graph = build.graph(x, (build.conv(y, 2), build.conv(a, 3)))
    assert Lives.of(graph).storage[a] == (y, 0)
    check_runs(graph, tmp_path)


@pytest.mark.parametrize("case", ["input", "output", "twice", "itself"])
def test_what_cannot_be_joined_in_place(case: str, tmp_path: Path) -> None:
    """An input of the network, an output of it, a part of two joins, a tensor and itself."""
    build = Build(8)
    x = build.activation((1, 4, 4, 4), 0.2, -3, name="x")
    a, b = (build.conv(x, 4, scale=0.2) for _ in range(2))
    ends: tuple[int, ...] = (joined(build, {"input": (x, a), "itself": (a, a)}.get(case, (a, b)), 1),)
    if case == "output":
        ends = (*ends, a)
    if case == "twice":
        ends = (*ends, joined(build, (b, a), 1))
    graph = build.graph(x, ends if case != "itself" else (*ends, b))
    lives = Lives.of(graph)
    assert len(lives.views) == (1 if case == "twice" else 0)
    check_runs(graph, tmp_path)


def test_kept_rows_are_copied_into_what_is_joined(tmp_path: Path) -> None:
    """The last row of one stripe becomes the first of the next: a copy, and a join for nothing."""
    build = Build(9)
    x = build.activation((1, 8, 4, 4), name="x")
    first = build.conv(x, 4, 1, scale=0.2)
    kept = sliced(build, first, (0, 7, 0, 0), (1, 1, 4, 4))
    more = build.conv(x, 4, 1, scale=0.2)
    whole = joined(build, (kept, more), 1)
    graph = build.graph(x, (build.conv(first, 1), build.conv(whole, 2)))
    lives = Lives.of(graph)
    assert lives.views == {3} and lives.storage[kept] == (whole, 0) and lives.storage[more] == (whole, 16)
    check_runs(graph, tmp_path)


def test_inputs_live_from_the_beginning_and_outputs_to_the_end() -> None:
    build = Build()
    x = build.activation((1, 4, 4, 1), name="x")
    y = build.conv(x, 2)
    graph = build.graph(x, (y, build.conv(y, 1)))
    lives = Lives.of(graph)
    assert (lives.owners[x].first, lives.owners[x].last) == (-1, 0)
    assert (lives.owners[y].first, lives.owners[y].last) == (0, 2)


def test_a_join_may_be_written_behind_its_reader() -> None:
    """Rows of the output over rows of the input that no later stripe reads: the second part lies behind what is done."""
    build = Build(10)
    x = build.activation((1, 8, 4, 4), name="x")
    y = build.conv(x, 4, 1, scale=0.2)
    parts = [build.conv(sliced(build, y, (0, at, 0, 0), (1, 4, 4, 4)), 4, 1, scale=0.2) for at in (0, 4)]
    out = joined(build, (parts[0], parts[1]), 1)
    graph = build.graph(x, build.conv(out, 1, 1))
    layout = plan(graph, Target("dsp", "ram"))
    problem, owners, _ = build_problem(graph, Lives.of(graph), layout.codes)
    assert problem.overlaps[owners.index(out), owners.index(y)] == Overlap(0)
    assert layout.size < 2 * 128 + 64, "one tensor and scratch"


def test_no_node_reads_what_the_problem_lets_others_overwrite(tmp_path: Path) -> None:
    """An output that is needed to the end is not written over by a join."""
    build = Build(11)
    x = build.activation((1, 4, 4, 4), name="x")
    y = build.conv(x, 4, scale=0.2)
    a, b = (build.conv(y, 4, scale=0.2) for _ in range(2))
    graph = build.graph(x, (y, joined(build, (a, b), 1)))
    for target in (Target(), Target("dsp", "ram")):
        folder = tmp_path / target.core_class
        folder.mkdir()
        check_runs(graph, folder, target)
    assert np.all(np.array(list(plan(graph).offsets.values())) >= 0)
