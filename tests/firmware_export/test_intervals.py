"""Reachable values: against every input that there is on tiny layers, and never too narrow on random models (TFLite Micro)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from dead_channels import dead_net
from graph_builder import Build, inputs_of
from oracles import tflite_micro
from random_graphs import random_graph

from firmware_export.check import check
from firmware_export.graph import Graph, Quantization, Tensor
from firmware_export.passes._intervals import MONOTONE, TABLES, intervals
from firmware_export.passes._weighted import Interval
from firmware_export.simulate import simulate_trace
from firmware_export.write_tflite import write_tflite

NONE = (-128, 127)


def interval_of(graph: Graph, index: int | None = None) -> Interval:
    check(graph)
    return intervals(graph).values[graph.outputs[0] if index is None else index]


def reached(graph: Graph, vectors: Iterable[Any]) -> Interval:
    """Lowest and highest of what TFLite Micro answers."""
    from tflite_micro import runtime

    interpreter = runtime.Interpreter.from_bytes(write_tflite(graph))
    found = []
    for vector in vectors:
        interpreter.set_input(np.array(vector, np.int8).reshape(graph.tensors[graph.inputs[0]].shape), 0)
        interpreter.invoke()
        found.append(interpreter.get_output(0).copy())
    return Interval(np.min(found, axis=0), np.max(found, axis=0))


def assert_equal(one: Interval, other: Interval) -> None:
    assert np.array_equal(one.low, other.low) and np.array_equal(one.high, other.high)


def limited(build: Build, x: int, clamp: tuple[int, int]) -> int:
    """x between two stored values."""
    return build.relu(x, clamp)


# Layers of weights


@pytest.mark.parametrize("padding", [(0, 0, 0, 0), (1, 1, 1, 1), (0, 1, 2, 0)])
@pytest.mark.parametrize("zero_point", [-128, 3])
def test_a_convolution_reaches_exactly_what_is_said(padding: tuple[int, ...], zero_point: int) -> None:
    """2x3 pixels of three values each: all 729 images. Every output pixel has its own interval."""
    build = Build(2)
    x = build.activation((1, 2, 3, 1), 0.05, zero_point)
    y = build.conv(limited(build, x, (zero_point + 7, zero_point + 9)), 5, kernel=2, padding=padding, scale=0.4)
    graph = build.graph(x, y)
    assert_equal(interval_of(graph), reached(graph, product(range(zero_point + 7, zero_point + 10), repeat=6)))


def test_a_convolution_of_anything_reaches_its_ends_at_ends_of_the_range() -> None:
    build = Build(3)
    x = build.activation((1, 2, 2, 2), 0.05, 11)
    graph = build.graph(x, build.conv(x, 6, kernel=3, zero_point=-40))
    assert_equal(interval_of(graph), reached(graph, product(NONE, repeat=8)))


@pytest.mark.parametrize("multiplier", [1, 3])
def test_a_depthwise_convolution(multiplier: int) -> None:
    build = Build(4)
    x = build.activation((1, 2, 2, 2), 0.05, -9)
    weights = build.weights((1, 2, 2, 2 * multiplier), 3)
    y = build.activation((1, 2, 2, 2 * multiplier), 2.1, 5)
    window = {"stride": (1, 1), "dilation": (1, 1), "padding": (1, 0, 0, 1)}
    inputs = (limited(build, x, (-20, 60)), weights, build.bias(x, weights, 2 * multiplier))
    graph = build.graph(x, build.node("depthwise_conv2d", inputs, y, clamp=NONE, **window))
    assert_equal(interval_of(graph), reached(graph, product((-20, 60), repeat=8)))


def test_fully_connected_in_rows() -> None:
    build = Build(5)
    x = build.activation((1, 9), 0.05, 4)
    graph = build.graph(x, build.fully_connected(limited(build, x, (-5, 50)), 7, per_channel=True))
    assert_equal(interval_of(graph), reached(graph, product((-5, 50), repeat=9)))


def test_sums_that_may_wrap_around_can_be_anything() -> None:
    """The highest bias there is: with any positive product the sum becomes negative."""
    build = Build(6)
    x = build.activation((1, 3), 0.05, 0)
    graph = build.graph(x, build.fully_connected(x, 2))
    bias = graph.tensors[graph.nodes[0].inputs[2]]
    bias.data[0] = 2**31 - 1  # type: ignore[index]
    graph.nodes[0].attributes["clamp"] = (-100, 127)
    interval = interval_of(graph)
    assert (interval.low[0, 0], interval.high[0, 0]) == (-100, 127)
    free = replace(graph, nodes=[replace(graph.nodes[0], attributes={"clamp": NONE})])  # TFLite has no such clamp
    found = reached(free, product((-128, 0, 127), repeat=3))
    assert found.low[0, 0] == -128 and found.high[0, 0] == 127, "it does happen"


def test_nothing_is_known_of_sums_that_may_wrap_around() -> None:
    """A clamp to one value makes the output constant, but there is no bias that stands for it; known products stay products."""
    build = Build(6)
    x = build.activation((1, 3), 0.05, 0)
    graph = build.graph(x, build.fully_connected(limited(build, x, (9, 9)), 2))
    assert intervals(graph).sums[1].fixed.all() and intervals(graph).sums[1].constant.all()
    bias = graph.tensors[graph.nodes[1].inputs[2]]
    bias.data[0] = 2**31 - 1  # type: ignore[index]
    graph.nodes[1].attributes["clamp"] = (5, 5)
    assert not intervals(graph).sums[1].fixed.any() and intervals(graph).sums[1].constant.tolist() == [False, True]


def test_left_shifts_that_may_wrap_around_can_be_anything() -> None:
    """An output scale so small that the requantisation shifts sums out of int32."""
    build = Build(7)
    x = build.activation((1, 3), 1.0, 0)
    weights = build.weights((2, 3), None)
    y = build.activation((1, 2), 1e-7, 0)
    graph = build.graph(x, build.node("fully_connected", (x, weights, -1), y, clamp=NONE))
    interval = interval_of(graph)
    assert np.all(interval.low == -128) and np.all(interval.high == 127)


# Elementwise

PAIRS = ("add", "sub", "mul", "minimum", "maximum", "prelu")
RANGES = (((-128, 127), (-128, 127)), ((-20, 40), (3, 90)), ((5, 5), (-100, 60)), ((-7, 3), (-7, -7)))


def pair_graph(op: str, shapes: tuple[Any, Any], clamps: Any, zero_points: tuple[int, int] = (2, -11)) -> Graph:
    build = Build()
    alike = op in ("minimum", "maximum")
    a = build.activation(shapes[0], 0.05, zero_points[0], "a")
    b = build.activation(shapes[1], 0.05 if alike else 0.02, zero_points[0 if alike else 1], "b")
    shape = np.broadcast_shapes(*shapes)
    y = build.activation(shape, {"mul": 0.06, "prelu": 0.05}.get(op, 0.07), 6)
    if alike:
        build.tensors[y] = Tensor("y", shape, "int8", build.tensors[a].quantization)
    attributes = {} if op in ("minimum", "maximum", "prelu") else {"clamp": NONE}
    pair = (limited(build, a, clamps[0]), limited(build, b, clamps[1]))
    return build.graph((a, b), build.node(op, pair, y, **attributes))


@pytest.mark.parametrize("op", PAIRS)
@pytest.mark.parametrize("ranges", RANGES)
def test_two_operands_reach_exactly_what_all_pairs_give(op: str, ranges: Any) -> None:
    """All 65,536 pairs in one inference; prelu, which is not monotone, may be said to reach more."""
    table_shapes = ((1, 256, 1), (1, 256, 1)) if op == "prelu" else ((1, 256, 1), (1, 1, 256))
    every = np.arange(-128, 128).astype(np.int8)
    table = pair_graph(op, table_shapes, (NONE, NONE))
    if op == "prelu":
        model, column = write_tflite(table), every.reshape(1, 256, 1)
        rows = [tflite_micro(model, [column, np.full_like(column, slope)])[0] for slope in every]
        results = np.array(rows).reshape(256, 256).T
    else:
        results = tflite_micro(write_tflite(table), [every.reshape(1, 256, 1), every.reshape(1, 1, 256)])[0][0]
    (a_low, a_high), (b_low, b_high) = ranges
    part = results[a_low + 128 : a_high + 129, b_low + 128 : b_high + 129]
    interval = interval_of(pair_graph(op, ((1, 2, 3), (1, 2, 3)), ranges))
    assert np.all(interval.low <= part.min()) and np.all(interval.high >= part.max())
    if op != "prelu":
        assert np.all(interval.low == part.min()) and np.all(interval.high == part.max())


def test_a_tensor_minus_itself_is_one_value() -> None:
    build = Build()
    x = build.activation((1, 4), 0.05, 3)
    interval = interval_of(build.graph(x, build.node("sub", (x, x), build.activation((1, 4), 0.05, -8), clamp=NONE)))
    assert np.all(interval.low == -8) and np.all(interval.high == -8)


def table_graph(op: str, shape: tuple[int, ...], clamp: tuple[int, int]) -> Graph:
    build = Build()
    x = build.activation(shape, 0.07, 9)
    stored = {"logistic": Quantization.per_tensor(1 / 256, -128), "tanh": Quantization.per_tensor(1 / 128, 0)}
    y = build.tensor(Tensor("y", shape, "int8", stored.get(op, Quantization.per_tensor(0.05, -4))))
    attributes: dict[str, Any] = {"relu": {"clamp": (-4, 100)}, "leaky_relu": {"alpha": -0.25}}.get(op, {})
    return build.graph(x, build.node(op, (limited(build, x, clamp),), y, **attributes))


@pytest.mark.parametrize("op", TABLES)
@pytest.mark.parametrize("clamp", [(-128, 127), (-30, 50), (20, 20), (-128, -100)])
def test_functions_of_one_value_reach_exactly_what_all_values_give(op: str, clamp: tuple[int, int]) -> None:
    """Also those that fall and rise again, as leaky_relu with a negative slope."""
    every = np.arange(-128, 128).astype(np.int8).reshape(1, 256)
    results = tflite_micro(write_tflite(table_graph(op, (1, 256), NONE)), [every])[0].reshape(-1)
    part = results[clamp[0] + 128 : clamp[1] + 129]
    interval = interval_of(table_graph(op, (1, 3), clamp))
    assert np.all(interval.low == part.min()) and np.all(interval.high == part.max())


# Whole models


def everything_an_output(graph: Graph) -> Graph:
    """The same model, every activation an output."""
    return Graph(graph.tensors, graph.nodes, graph.inputs, tuple(index for node in graph.nodes for index in node.outputs))


def inputs_for(graph: Graph, seed: int) -> list[list[np.ndarray]]:
    random = inputs_of(graph, seed)
    ends = [np.where(value > 0, 127, -128).astype(np.int8) for value in random]
    return [random, ends, *([np.full_like(value, end) for value in random] for end in NONE)]


def assert_holds(graph: Graph, label: str) -> None:
    open_graph = everything_an_output(graph)
    found = intervals(open_graph).values
    model = write_tflite(open_graph)
    for values in inputs_for(graph, 5):
        answers = tflite_micro(model, values, len(open_graph.outputs))
        short = [array for outputs in simulate_trace(open_graph.with_arithmetic("float32"), *values) for array in outputs]
        for results in (answers, short):
            for index, result in zip(open_graph.outputs, results, strict=True):
                interval = found[index]
                assert np.all((interval.low <= result) & (result <= interval.high)), f"{label}, tensor {index}"


def test_nothing_is_outside_in_random_models() -> None:
    for seed in range(80):
        assert_holds(random_graph(seed), f"graph {seed}")


def test_nothing_is_outside_in_nets_with_dead_channels() -> None:
    for seed in range(50):
        assert_holds(dead_net(seed), f"net {seed}")


def test_monotone_operators_are_monotone() -> None:
    """Raised inputs never lower an output of an operator that is said to be monotone; by TFLite Micro."""
    checked = 0
    for seed in range(150):
        graph = random_graph(seed)
        if any(node.op not in MONOTONE for node in graph.nodes):
            continue
        checked += 1
        low = inputs_of(graph, seed)
        high = [np.minimum(127, value.astype(int) + step).astype(np.int8) for value, step in zip(low, (9, 40), strict=False)]
        model, count = write_tflite(graph), len(graph.outputs)
        for one, other in zip(tflite_micro(model, low, count), tflite_micro(model, high, count), strict=True):
            assert np.all(one <= other), seed
    assert checked >= 5


@pytest.mark.parametrize("op, scale", [("sum", 2.0**-20), ("mean", 2.0**-28)])
def test_sums_of_images_with_scales_that_may_wrap_around_can_be_anything(op: str, scale: float) -> None:
    """1,024 pixels of -128 are -2^17, which a left shift by 20 makes 0: the lowest input does not give the lowest output."""
    build = Build()
    x = build.activation((1, 32, 32, 1), 1.0, 0)
    y = build.activation((1, 1), scale, 0)
    graph = build.graph(x, build.node(op, (x,), y, axes=(1, 2), keep_dims=0))
    interval = interval_of(graph)
    assert (interval.low.min(), interval.high.max()) == (-128, 127)
    found = reached(graph, [np.full(1024, -128), np.eye(32).ravel() * -1, np.eye(32).ravel()])
    assert (found.low.min(), found.high.max()) == (-128, 127)
