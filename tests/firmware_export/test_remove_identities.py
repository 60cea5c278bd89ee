"""Operators that change nothing they can meet go; those that might stay."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from graph_builder import Build, inputs_of
from oracles import tflite_micro

from firmware_export.check import check
from firmware_export.graph import Graph, Quantization, Tensor
from firmware_export.passes.remove_identities import remove_identities
from firmware_export.passes.remove_unused import remove_unused
from firmware_export.write_tflite import write_tflite

NONE = (-128, 127)


def operators(graph: Graph) -> list[str]:
    return [node.op for node in graph.nodes]


def passed(graph: Graph) -> Graph:
    check(graph)
    result = remove_unused(remove_identities(graph))
    check(result)
    for seed in range(3):
        values = inputs_of(graph, seed)
        one, other = (tflite_micro(write_tflite(g), values, len(graph.outputs)) for g in (graph, result))
        assert [value.tobytes() for value in one] == [value.tobytes() for value in other]
    return result


def end(build: Build, x: int) -> int:
    """Another operator behind, so that x is no output."""
    shape = build.tensors[x].shape
    return build.node("add", (x, x), build.activation(shape, 0.2, 3), clamp=NONE)


def logistic(build: Build, x: int) -> int:
    y = build.tensor(Tensor("logistic", build.tensors[x].shape, "int8", Quantization.per_tensor(1 / 256, -128)))
    return build.node("logistic", (x,), y)


def test_a_relu_behind_what_is_never_below_zero() -> None:
    build = Build()
    x = build.activation((1, 4, 4, 2))
    graph = build.graph(x, end(build, build.relu(logistic(build, x), (-128, 127))))
    assert operators(passed(graph)) == ["logistic", "add"]


def test_a_relu_behind_a_pool_of_a_relu() -> None:
    build = Build()
    x = build.activation((1, 4, 4, 2), 0.05, -10)
    rectified = build.relu(x, (-10, 127))
    pool = build.tensor(Tensor("pool", (1, 2, 2, 2), "int8", build.tensors[x].quantization))
    window = {"kernel": (2, 2), "stride": (2, 2), "padding": (0, 0, 0, 0)}
    build.node("average_pool2d", (rectified,), pool, clamp=NONE, **window)
    graph = build.graph(x, end(build, build.relu(pool, (-10, 127))))
    assert operators(passed(graph)) == ["relu", "average_pool2d", "add"]
    assert operators(passed(build.graph(x, end(build, build.relu(pool, (-9, 127))))))[-2:] == ["relu", "add"], (
        "one step too far"
    )


def test_several_in_a_row_go_at_once() -> None:
    build = Build()
    x = build.activation((1, 9))
    y = build.relu(build.relu(build.relu(x, NONE), NONE), (-5, 127))
    graph = build.graph(x, end(build, build.relu(build.relu(y, (-7, 127)), NONE)))
    assert operators(passed(graph)) == ["relu", "add"]
    assert remove_identities(passed(graph)).nodes == passed(graph).nodes


def test_a_change_of_scale_that_is_none() -> None:
    build = Build()
    x = build.activation((1, 9), 0.05, 3)
    same, other = build.activation((1, 9), 0.05, 3), build.activation((1, 9), 0.05, 4)
    build.node("quantize", (x,), same)
    build.node("quantize", (x,), other)
    graph = build.graph(x, (end(build, same), end(build, other)))
    assert sorted(operators(passed(graph))) == ["add", "add", "quantize"]


def test_what_moves_the_zero_point_stays() -> None:
    """Another zero point: the same stored value would mean something else."""
    build = Build()
    x = build.activation((1, 9), 1 / 128, 0)
    moved = build.activation((1, 9), 1 / 128, 1)
    graph = build.graph(x, end(build, build.node("relu", (x,), moved, clamp=(1, 127))))
    assert remove_identities(graph) is graph


def test_what_keeps_stored_values_under_another_scale_stays() -> None:
    """-5..5 steps of 0.05 are the same numbers of steps of 0.0501, and other real values."""
    build = Build()
    x = build.activation((1, 9), 0.05, 0)
    other = build.activation((1, 9), 0.0501, 0)
    build.node("quantize", (build.relu(x, (-5, 5)),), other)
    graph = build.graph(x, end(build, other))
    assert remove_identities(graph) is graph


def test_the_least_limited_element_decides() -> None:
    """Of two tensors behind each other one is never below zero, the other is."""
    build = Build()
    x = build.activation((1, 9))
    joined = build.activation((1, 18))
    build.node("concatenation", (build.relu(x, (0, 127)), x), joined, axis=1)
    graph = build.graph(x, end(build, build.relu(joined, (0, 127))))
    assert remove_identities(graph) is graph


def test_one_that_writes_an_output_stays() -> None:
    build = Build()
    x = build.activation((1, 9))
    graph = build.graph(x, build.relu(x, NONE))
    assert remove_identities(graph) is graph


def test_all_readers_read_what_was_before() -> None:
    build = Build()
    x = build.activation((1, 9))
    first = logistic(build, x)
    y = build.relu(first, NONE)
    graph = build.graph(x, (end(build, y), end(build, y), end(build, first)))
    result = passed(graph)
    assert operators(result) == ["logistic", "add", "add", "add"]
    assert {node.inputs for node in result.nodes[1:]} == {(result.nodes[0].outputs[0],) * 2}


@pytest.mark.parametrize("low", [-128, -127, 0])
def test_the_only_value_that_differs_keeps_it(low: int) -> None:
    """x is fed -128..127; a relu from -128 on is the identity, from -127 on it is not."""
    build = Build()
    x = build.activation((1, 9))
    graph = build.graph(x, end(build, build.relu(x, (low, 127))))
    assert len(passed(graph).nodes) == (1 if low == -128 else 2)


def test_a_leaky_relu_above_zero() -> None:
    """Where x cannot be negative the slope does not matter."""
    build = Build()
    x = build.activation((1, 9), 0.05, -3)
    leaky = build.tensor(replace(build.tensors[x], name="leaky"))
    build.node("leaky_relu", (build.relu(x, (-3, 127)),), leaky, alpha=0.125)
    graph = build.graph(x, end(build, leaky))
    assert operators(passed(graph)) == ["relu", "add"]


def test_no_candidates_no_analysis(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model without such operators costs no time."""
    import sys

    def refuse(graph: Graph) -> None:
        raise AssertionError("analysed")

    monkeypatch.setattr(sys.modules[remove_identities.__module__], "intervals", refuse)
    build = Build()
    x = build.activation((1, 4, 4, 2))
    graph = build.graph(x, build.conv(build.conv(x, 3), 2))
    assert remove_identities(graph) is graph
    assert np.array_equal(graph.inputs, (x,))
