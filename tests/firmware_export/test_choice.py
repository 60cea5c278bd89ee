"""Choosing kernels: what each goal takes of options whose costs are known, and what it takes for real layers."""

from __future__ import annotations

import itertools
import random

import pytest
from graph_builder import Build
from packed_cases import trained_layer

from firmware_export.graph import Graph
from firmware_export.operators import LayerCode
from firmware_export.plan import plan
from firmware_export.planning.choice import (
    PRICE,
    RAM_INSTRUCTIONS,
    Option,
    choose,
    footprint,
    score_of,
    selections,
    worthwhile,
)
from firmware_export.planning.lives import Lives
from firmware_export.target import GOALS, Target


def code(scratch: int, instructions: int, *, distances: tuple[int | None, ...] = (), level: bool = False) -> LayerCode:
    return LayerCode(
        "nn_relu", "", {}, scratch_bytes=scratch, instructions=instructions, distances=distances, in_place=(level,)
    )


def chain(sizes: list[int]) -> Graph:
    """Tensors of these sizes, each made of the one before."""
    build = Build()
    x = y = build.activation((1, sizes[0]), name="x")
    for size in sizes[1:]:
        y = build.node("relu", (y,), build.activation((1, size)), clamp=(-128, 127))
    return build.graph(x, y)


def brute_force(graph: Graph, options: list[list[LayerCode]], goal: str) -> tuple[float, float]:
    """The best score of all selections, their sizes by what their moments need (chains reach that)."""
    lives = Lives.of(graph)
    found = []
    for codes in itertools.product(*options):
        size = max(footprint(graph, lives, place, one) for place, one in enumerate(codes))
        found.append((sum(one.instructions for one in codes), size))
    least = min(found, key=lambda pair: (pair[0] * pair[1] ** PRICE, pair[1]))
    if goal == "time":
        return min((float(i), float(s)) for i, s in found)
    if goal == "ram":
        return min((float(s), float(i)) for i, s in found if i <= RAM_INSTRUCTIONS * least[0])
    return min((i * s**PRICE, float(s)) for i, s in found)


@pytest.mark.parametrize("goal", ["time", "ram", "balanced"])
@pytest.mark.parametrize("seed", range(15))
def test_the_best_of_all_selections(goal: str, seed: int) -> None:
    rng = random.Random(seed)
    graph = chain([8 * rng.randint(1, 40) for _ in range(5)])
    options = [[code(8 * rng.randint(0, 60), rng.randint(50, 400)) for _ in range(3)] for _ in range(4)]
    chosen = choose(graph, Lives.of(graph), options, goal)
    instructions, size = chosen.selection.instructions, chosen.placement.size
    assert chosen.proven and size == chosen.selection.bound
    found = {
        "time": (float(instructions), float(size)),
        "ram": (float(size), float(instructions)),
        "balanced": (instructions * size**PRICE, float(size)),
    }
    best = brute_force(graph, options, goal)
    assert found[goal][0] == pytest.approx(best[0])


def test_options_that_cost_more_in_both_ways_are_dropped() -> None:
    options = [Option(code(0, cost), size) for size, cost in ((100, 50), (80, 60), (90, 70), (80, 65), (200, 50), (300, 20))]
    assert [(option.footprint, option.code.instructions) for option in worthwhile(options)] == [(80, 60), (100, 50), (300, 20)]


def test_selections_hold_the_cheapest_that_fit() -> None:
    options = [
        [Option(code(0, 90), 100), Option(code(0, 30), 300)],
        [Option(code(0, 10), 150)],
        [Option(code(0, 80), 50), Option(code(0, 70), 200), Option(code(0, 5), 400)],
    ]
    found = [(selection.bound, selection.instructions) for selection in selections(options)]
    assert found == [(150, 180), (200, 170), (300, 110), (400, 45)]
    assert selections([])[0].bound == 0


def test_ram_costs_at_most_so_much_more() -> None:
    """The smallest selection is refused when it is too slow."""
    options = [[Option(code(0, 1000), 100), Option(code(0, 140), 200), Option(code(0, 120), 220), Option(code(0, 100), 240)]]
    found = selections(options)
    score = score_of("ram", found)
    best = min(found, key=lambda selection: score(selection.instructions, selection.bound))
    assert best.bound == 220, "balanced takes 240 bytes at 100 instructions, 1.3 times that are 130"


def test_distances_make_room() -> None:
    """A kernel whose output may lie over its input is smaller than one that keeps apart, whatever its scratch."""
    graph = chain([400, 400])
    lives = Lives.of(graph)
    assert footprint(graph, lives, 0, code(0, 1)) == 800
    assert footprint(graph, lives, 0, code(0, 1, distances=(0,))) == 400
    assert footprint(graph, lives, 0, code(40, 1, distances=(24,))) == 464
    assert footprint(graph, lives, 0, code(16, 1, level=True)) == 416
    assert footprint(graph, lives, 0, code(0, 1, distances=(-400,))) == 400


def test_scratch_over_a_dying_input() -> None:
    graph = chain([640, 128])
    lives = Lives.of(graph)
    base = code(1280, 1, distances=(-640,))
    with_overlap = LayerCode(**{**base.__dict__, "scratch_distances": (636,)})
    assert footprint(graph, lives, 0, base) == 1280 + 640
    assert footprint(graph, lives, 0, with_overlap) == 1280 + 128


def test_moments_that_do_not_fit_together_are_relieved() -> None:
    """The first node's scratch keeps its output from the end of the second one's, where it must lie."""
    graph = chain([184, 184, 368])
    options = [
        [code(96, 100, level=True), code(8, 130)],
        [code(0, 50, distances=(184,))],
    ]
    chosen = choose(graph, Lives.of(graph), options, "ram")
    assert chosen.placement.size <= 376


@pytest.mark.parametrize("size", [(24, 24, 16), (12, 12, 32)])
def test_goals_are_ordered(size: tuple[int, int, int]) -> None:
    """time is the fastest, ram the smallest, balanced between; a convolution that Winograd takes."""
    import numpy as np

    graph = trained_layer(np.random.default_rng(6), "conv2d", size, (size[2], 3, 3, size[2]))
    plans = {goal: plan(graph, Target("dsp", goal)) for goal in GOALS}
    assert plans["time"].instructions <= plans["balanced"].instructions <= plans["ram"].instructions
    assert plans["ram"].size <= plans["balanced"].size <= plans["time"].size
    assert plans["ram"].size < plans["time"].size
    assert "winograd" in plans["time"].codes[0].function and "winograd" not in plans["flash"].codes[0].function
    assert plans["ram"].instructions <= RAM_INSTRUCTIONS * plans["balanced"].instructions
