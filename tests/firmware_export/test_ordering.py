"""The order of operators against all orders there are."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from graph_builder import Build, inputs_of
from plan_verifier import PoisonedRuns, check_places
from random_graphs import random_graph

import firmware_export.ordering
from firmware_export.check import check
from firmware_export.graph import Graph
from firmware_export.ordering import best_order, has_choice, ordered
from firmware_export.plan import plan
from firmware_export.simulate import simulate
from firmware_export.target import Target


def orders(graph: Graph) -> Iterator[list[int]]:
    """All orders in which every node comes behind what it reads."""
    for order in itertools.permutations(range(len(graph.nodes))):
        made = set(graph.inputs)
        for place in order:
            if not set(graph.activation_inputs(graph.nodes[place])) <= made:
                break
            made |= set(graph.nodes[place].outputs)
        else:
            yield list(order)


def peak(graph: Graph, order: list[int], *, over: bool) -> int:
    """The most bytes at one moment: what exists and is needed, inputs and outputs of the running node included."""
    nodes = [graph.nodes[place] for place in order]
    most = 0
    for place, node in enumerate(nodes):
        before = {*graph.inputs, *(index for earlier in nodes[:place] for index in earlier.outputs)}
        later = {*graph.outputs, *(index for behind in nodes[place + 1 :] for index in behind.inputs)}
        kept = sum(graph.tensors[index].nbytes for index in before & later)
        dying = sum(graph.tensors[index].nbytes for index in (before & set(node.inputs)) - later)
        made = sum(graph.tensors[index].nbytes for index in node.outputs)
        most = max(most, kept + (max(dying, made) if over else dying + made))
    return most


def branches(seed: int) -> Graph:
    """Elementwise operators that read any earlier value of one size, and reductions to other sizes between them."""
    rng = random.Random(seed)
    build = Build(seed)
    x = build.activation((1, 2, 2, rng.randint(1, 8)), name="x")
    values = [x]
    for _ in range(rng.randint(3, 6)):
        values.append(build.conv(rng.choice(values), rng.randint(1, 30), 1, scale=0.05))
    read = {index for node in build.nodes for index in node.inputs}
    return build.graph(x, tuple(value for value in values[1:] if value not in read))


@pytest.mark.parametrize("over", [False, True])
@pytest.mark.parametrize("seed", range(30))
def test_no_order_holds_less(seed: int, over: bool) -> None:
    graph = branches(seed)
    found = best_order(graph, over=over)
    assert found is not None and found in list(orders(graph))
    assert peak(graph, found, over=over) == min(peak(graph, order, over=over) for order in orders(graph))


@pytest.mark.parametrize("seed", range(30))
def test_a_choice_is_seen(seed: int) -> None:
    graph = branches(seed)
    assert has_choice(graph) == (len(list(orders(graph))) > 1)


def wide_and_narrow() -> Graph:
    """Two long branches: wide first, narrow then, in an order that makes both wide tensors before it narrows them."""
    build = Build(2)
    x = build.activation((1, 16, 16, 1), name="x")
    wide = [build.conv(x, 8, 1, scale=0.05) for _ in range(3)]
    narrow = [build.conv(y, 1, 1, scale=0.05) for y in wide]
    total = narrow[0]
    for y in narrow[1:]:
        total = build.node("add", (total, y), build.activation((1, 16, 16, 1)), clamp=(-128, 127))
    return build.graph(x, total)


@pytest.mark.parametrize("goal", ["ram", "balanced"])
def test_one_branch_after_the_other(goal: str, tmp_path: Path) -> None:
    graph = wide_and_narrow()
    other = ordered(graph, goal)
    check(other)
    before, after = plan(graph, Target("dsp", goal)), plan(other, Target("dsp", goal))
    assert before.size >= 3 * 2048 > 2048 + 4 * 256 + 512 >= after.size
    assert sorted(map(id, other.nodes)) == sorted(map(id, graph.nodes))
    inputs = inputs_of(graph)
    assert np.array_equal(simulate(other, *inputs)[0], simulate(graph, *inputs)[0])
    layout = plan(other, Target("dsp", goal))
    check_places(other, layout)
    assert PoisonedRuns(tmp_path, [other], [layout]).faults(0, inputs) == []


@pytest.mark.parametrize("goal", ["time", "flash"])
def test_other_goals_keep_the_order(goal: str) -> None:
    graph = wide_and_narrow()
    assert ordered(graph, goal) is graph


def test_what_gains_nothing_is_left() -> None:
    build = Build()
    x = build.activation((1, 4, 4, 4), name="x")
    graph = build.graph(x, build.conv(build.conv(x, 4), 4))
    assert not has_choice(graph) and ordered(graph, "ram") is graph


def test_too_many_orders_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(firmware_export.ordering, "STATES", 3)
    graph = wide_and_narrow()
    assert best_order(graph, over=False) is None and ordered(graph, "ram") is graph


def equal_branches(count: int) -> Graph:
    """Each widens one small image and narrows it again."""
    build = Build()
    x = build.activation((1, 4, 4, 1), name="x")
    ends = [build.conv(build.conv(x, 8, 1, scale=0.05), 1, 1, scale=0.05) for _ in range(count)]
    return build.graph(x, tuple(ends))


def test_equal_branches_run_one_after_the_other() -> None:
    graph = equal_branches(6)
    order = best_order(graph, over=False)
    assert order is not None
    assert peak(graph, order, over=False) == 16 * (1 + 5 + 8), "the last wide one beside its input and the ends before it"


def test_more_equal_branches_than_can_be_tried_are_given_up_soon() -> None:
    """Twenty have 3^20 states."""
    assert best_order(equal_branches(20), over=False) is None


@pytest.mark.parametrize("begin", range(0, 40, 10))
def test_random_networks_answer_the_same(begin: int) -> None:
    """Every operator, whatever order is found."""
    for seed in range(begin, begin + 10):
        graph = random_graph(seed)
        other = ordered(graph, "ram")
        assert plan(other, Target("dsp", "ram")).size <= plan(graph, Target("dsp", "ram")).size
        inputs = [np.zeros(graph.tensors[index].shape, graph.tensors[index].dtype) for index in graph.inputs]
        for ours, theirs in zip(simulate(other, *inputs), simulate(graph, *inputs), strict=True):
            assert np.array_equal(ours, theirs)
