"""Layers in stripes: the same answers byte for byte, the same number of products, less memory."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import numpy as np
import pytest
from graph_builder import Build, inputs_of
from plan_verifier import PoisonedRuns, check_places

from firmware_export.graph import Graph
from firmware_export.operators import operator_of
from firmware_export.passes import simplify
from firmware_export.plan import plan
from firmware_export.read_tflite import read_tflite
from firmware_export.simulate import simulate
from firmware_export.striping import Segment, can_stripe, estimated, rows_read, segments, striped, stripes_of, with_stripes
from firmware_export.target import Target
from firmware_export.write_tflite import write_tflite


def macs(graph: Graph) -> int:
    return sum(operator_of(node).macs(graph, node) for node in graph.nodes)


def random_chain(seed: int) -> Graph:
    """Convolutions, depthwise ones and sums, one behind the other, on images whose rows are multiples of four bytes."""
    rng = random.Random(seed)
    build = Build(seed)
    x = y = build.activation((1, rng.randint(6, 14), rng.choice((4, 8)), rng.choice((1, 2, 4))), name="x")
    for _ in range(rng.randint(2, 4)):
        _, height, width, channels = build.tensors[y].shape
        kind = rng.choice(("conv", "conv", "depthwise", "add"))
        if kind == "add":
            total = build.activation(build.tensors[y].shape, 0.1, 3)
            y = build.node("add", (y, y), total, clamp=(-128, 127))
        elif kind == "depthwise":
            weights = build.weights((1, 3, 3, channels), 3)
            z = build.activation((1, height, width, channels), 0.2, -5)
            window = {"stride": (1, 1), "dilation": (1, 1), "padding": (1, 1, 1, 1), "clamp": (-128, 127)}
            y = build.node("depthwise_conv2d", (y, weights, build.bias(y, weights, channels)), z, **window)
        else:
            kernel, stride = rng.choice(((1, 1), (3, 1), (3, 2), (5, 1))) if width >= 8 and height >= 8 else (3, 1)
            side = kernel // 2
            padding = (side, side, side, side) if stride == 1 else (0, 1, 0, 1)
            y = build.conv(y, rng.choice((4, 8)), kernel, stride=stride, padding=padding, scale=0.3)
    return build.graph(x, y)


def stripings(graph: Graph) -> list[Graph]:
    """Every chain of the graph in every number of stripes that is possible."""
    found = []
    for nodes in segments(graph, set(range(len(graph.nodes)))):
        for count in (2, 3, 4, 6):
            if estimated(graph, Segment(nodes, count)) is not None:
                found.append(with_stripes(graph, Segment(nodes, count)))
    return found


@pytest.mark.parametrize("seed", range(25))
def test_any_striping_gives_the_same_answers(seed: int) -> None:
    graph = random_chain(seed)
    inputs = inputs_of(graph, seed)
    expected = simulate(graph, *inputs)[0]
    for other in stripings(graph):
        assert np.array_equal(simulate(other, *inputs)[0], expected)
        assert macs(other) == macs(graph), "nothing is computed twice"
        assert other.weights_bytes() == graph.weights_bytes()


def test_the_chains_can_be_striped_in_many_ways() -> None:
    assert sum(len(stripings(random_chain(seed))) for seed in range(25)) > 100


@pytest.mark.parametrize("target", [Target(), Target("dsp", "ram")], ids=lambda target: target.core_class)
def test_striped_networks_in_c(target: Target, tmp_path: Path) -> None:
    """With everything spoilt that nobody needs: kept rows, slices and joined parts are where the plan has them."""
    graphs = [other for seed in range(12) for other in stripings(random_chain(seed))[::4]]
    plans = [plan(graph, target) for graph in graphs]
    runs = PoisonedRuns(tmp_path, graphs, plans)
    for number, (graph, layout) in enumerate(zip(graphs, plans, strict=True)):
        check_places(graph, layout)
        assert runs.faults(number, inputs_of(graph, number)) == [], f"network {number}"


def wide_middle(height: int = 32, width: int = 32) -> Graph:
    """A narrow image, a wide one between a pointwise and a strided convolution, a narrow one."""
    build = Build(9)
    x = build.activation((1, height, width, 4), name="x")
    y = build.conv(x, 32, 1)
    return build.graph(x, build.conv(y, 4, stride=2, padding=(0, 1, 0, 1)))


@pytest.mark.parametrize("goal", ["ram", "balanced"])
def test_a_wide_middle_is_never_whole(goal: str) -> None:
    graph = wide_middle()
    other = striped(graph, goal)
    before, after = plan(graph, Target("dsp", goal)), plan(other, Target("dsp", goal))
    assert before.size >= 32 * 32 * 32 and after.size < 0.5 * before.size
    assert np.array_equal(simulate(other, *inputs_of(graph))[0], simulate(graph, *inputs_of(graph))[0])
    (change,) = other.changes
    assert change.name == "striped" and change.macs[0] == change.macs[1] == macs(other)


@pytest.mark.parametrize("goal", ["time", "flash"])
def test_other_goals_leave_the_graph(goal: str) -> None:
    graph = wide_middle()
    assert striped(graph, goal) is graph


def test_small_networks_are_left_alone() -> None:
    graph = wide_middle(6, 6)
    assert striped(graph, "ram") is graph
    build = Build()
    x = build.activation((1, 16), name="x")
    graph = build.graph(x, build.fully_connected(x, 4))
    assert striped(graph, "ram") is graph


def test_nothing_changes_where_one_tensor_is_all() -> None:
    """The image itself is larger than anything else."""
    build = Build()
    x = build.activation((1, 40, 40, 4), name="x")
    graph = build.graph(x, build.conv(x, 2, stride=2, padding=(0, 1, 0, 1)))
    assert striped(graph, "ram") is graph


def test_striped_networks_are_valid_tflite(tmp_path: Path) -> None:
    """They can be written, read again, and still answer the same."""
    graph = striped(wide_middle(), "ram")
    path = tmp_path / "striped.tflite"
    path.write_bytes(write_tflite(graph))
    again = simplify(read_tflite(path))
    inputs = inputs_of(graph, 5)
    assert np.array_equal(simulate(again, *inputs)[0], simulate(graph, *inputs)[0])


# Rows


def brute_rows(graph: Graph, place: int, rows: tuple[int, int]) -> set[int]:
    """Rows of the input whose values change some of these rows of the output."""
    node = graph.nodes[place]
    shape = graph.tensors[node.inputs[0]].shape
    inputs = [graph.tensors[index].data for index in node.inputs]
    found = set()
    base = operator_of(node).simulate(graph, node, [np.zeros(shape, np.int8), *inputs[1:]])[0]
    for row in range(shape[1]):
        for value in (-128, 127):
            x = np.zeros(shape, np.int8)
            x[0, row] = value
            y = operator_of(node).simulate(graph, node, [x, *inputs[1:]])[0]
            if np.any(y[0, rows[0] : rows[1]] != base[0, rows[0] : rows[1]]):
                found.add(row)
    return found


@pytest.mark.parametrize(
    "kernel, stride, padding", [(1, 1, (0,) * 4), (3, 1, (1,) * 4), (3, 2, (0, 1, 0, 1)), (5, 1, (2,) * 4)]
)
def test_the_rows_that_a_convolution_reads(kernel: int, stride: int, padding: tuple[int, ...]) -> None:
    build = Build(3)
    x = build.activation((1, 9, 8, 3), name="x")
    graph = build.graph(x, build.conv(x, 4, kernel, stride=stride, padding=padding, scale=0.05, bias=False))
    height = graph.tensors[graph.nodes[0].outputs[0]].shape[1]
    for begin in range(height):
        for end in range(begin + 1, height + 1):
            (first, last), (above, below) = rows_read(graph, graph.nodes[0], (begin, end))
            touched = brute_rows(graph, 0, (begin, end))
            assert touched <= set(range(first, last)) and {first, last - 1} <= touched
            assert (last - first) + above + below == (end - begin - 1) * stride + kernel


def test_stripes_divide_the_rows() -> None:
    graph = random_chain(4)
    for nodes in segments(graph, set(range(len(graph.nodes)))):
        output = graph.nodes[nodes[-1]].outputs[0]
        found = stripes_of(graph, Segment(nodes, 3))
        assert found[0].whole[output][0] == 0 and found[-1].whole[output][1] == graph.tensors[output].shape[1]
        for now, later in itertools.pairwise(found):
            for index in now.new:
                assert now.new[index][1] == later.new[index][0], "every row is made once, in order"


def test_what_cannot_be_striped() -> None:
    """No images, a side input of another shape, a value that is read twice or is an output."""
    build = Build()
    x = build.activation((1, 8, 8, 4), name="x")
    y = build.conv(x, 4)
    flat = build.fully_connected(build.reshape(y, (1, 256)), 4)
    graph = build.graph(x, flat)
    assert [can_stripe(graph, node) for node in graph.nodes] == [True, False, False]
    build = Build()
    x = build.activation((1, 8, 8, 4), name="x")
    y = build.conv(x, 4)
    graph = build.graph(x, (y, build.conv(y, 4), build.conv(y, 8)))
    assert list(segments(graph, {0, 1, 2})) == []


# The reference models

FIGURES = {
    ("pretrainedResnet_quant", "ram"): 28_000,
    ("pretrainedResnet_quant", "balanced"): 37_000,
    ("kws_ref_model", "ram"): 8_600,
    ("kws_ref_model", "balanced"): 12_000,
    ("vww_96_int8", "ram"): 28_100,
    ("vww_96_int8", "balanced"): 30_000,
    ("ad01_int8", "ram"): 768,
    ("ad01_int8", "balanced"): 1_408,
}


QUICK = [pytest.param(*key, marks=[pytest.mark.long] if key == ("vww_96_int8", "balanced") else []) for key in sorted(FIGURES)]


@pytest.mark.parametrize("model, goal", QUICK)
def test_memory_of_the_reference_models(model: str, goal: str, shared_data: Path) -> None:
    """Bytes of the whole buffer, scratch included; with the goal ram at most 1.3 times the instructions of balanced."""
    graph = simplify(read_tflite(shared_data / "mlperf_tiny_models" / f"{model}.tflite"))
    layout = plan(striped(graph, goal), Target("dsp", goal))
    assert layout.size <= FIGURES[model, goal]
    if goal == "ram":
        assert layout.instructions <= 1.3 * plan(graph, Target("dsp")).instructions


@pytest.mark.long
@pytest.mark.parametrize("model, goal", sorted(FIGURES))
def test_reference_models_in_c(model: str, goal: str, shared_data: Path, tmp_path: Path) -> None:
    """The striped network's C with spoilt bytes, and the same answers as the model before the passes."""
    original = read_tflite(shared_data / "mlperf_tiny_models" / f"{model}.tflite")
    graph = striped(simplify(original), goal)
    layout = plan(graph, Target("dsp", goal))
    check_places(graph, layout)
    runs = PoisonedRuns(tmp_path, [graph], [layout])
    for seed in range(2):
        inputs = inputs_of(graph, seed)
        assert runs.faults(0, inputs) == []
        assert np.array_equal(simulate(graph, *inputs)[0], simulate(original, *inputs)[0])
