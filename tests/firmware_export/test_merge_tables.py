"""Two functions of one value in a row become one where one operator gives the same for every value that can come."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
from graph_builder import Build
from oracles import tflite_micro

from firmware_export.check import check
from firmware_export.graph import Graph, Quantization, Tensor
from firmware_export.passes import simplify
from firmware_export.passes.merge_tables import merge_tables
from firmware_export.passes.remove_unused import remove_unused
from firmware_export.simulate import simulate
from firmware_export.write_tflite import write_tflite

NONE = (-128, 127)
SHAPE = (1, 256)
LOGISTIC, TANH = Quantization.per_tensor(1 / 256, -128), Quantization.per_tensor(1 / 128, 0)
EVERY = np.arange(-128, 128).astype(np.int8).reshape(SHAPE)


class Chain(Build):
    """Functions of one value, one behind the other, from an input that gets every value."""

    def __init__(self, scale: float = 0.05, zero_point: int = 3) -> None:
        super().__init__()
        self.x = self.y = self.activation(SHAPE, scale, zero_point, "x")

    def then(self, op: str, quantization: Quantization, **attributes: Any) -> Chain:
        y = self.tensor(Tensor(f"y{len(self.tensors)}", SHAPE, "int8", quantization))
        self.y = self.node(op, (self.y,), y, **attributes)
        return self

    def finished(self) -> Graph:
        return self.graph(self.x, self.y)


def q(scale: float, zero_point: int) -> Quantization:
    return Quantization.per_tensor(scale, zero_point)


def passed(graph: Graph) -> Graph:
    """After the pass: every value of x gives what it gave, in TFLite Micro and in both arithmetics."""
    check(graph)
    result = remove_unused(merge_tables(graph))
    check(result)
    one, other = (tflite_micro(write_tflite(g), [EVERY], len(g.outputs)) for g in (graph, result))
    assert [value.tobytes() for value in one] == [value.tobytes() for value in other]
    for arithmetic in ("double", "float32"):
        one, other = (simulate(g.with_arithmetic(arithmetic), EVERY) for g in (graph, result))
        assert [value.tobytes() for value in one] == [value.tobytes() for value in other]
    return result


def operators(graph: Graph) -> list[str]:
    return [node.op for node in graph.nodes]


@pytest.mark.parametrize("first, clamp, second", [((-10, 100), None, (-128, 50)), ((3, 127), (3, 127), (20, 127))])
def test_two_relus_are_one(first: tuple[int, int], clamp: tuple[int, int] | None, second: tuple[int, int]) -> None:
    graph = Chain().then("relu", q(0.05, 3), clamp=first).then("relu", q(0.05, 3), clamp=second).finished()
    result = passed(graph)
    assert operators(result) == ["relu"]
    assert result.nodes[0].integers("clamp") == (max(first[0], second[0]), min(first[1], second[1]))


def test_a_change_of_scale_and_a_relu_are_a_relu_that_changes_the_scale() -> None:
    graph = Chain().then("quantize", q(0.08, -20)).then("relu", q(0.08, -20), clamp=(-20, 127)).finished()
    result = passed(graph)
    assert operators(result) == ["relu"] and result.tensors[result.nodes[0].outputs[0]].quantization == q(0.08, -20)
    assert result.nodes[0].integers("clamp")[0] == -20


def test_a_relu_and_a_change_of_scale_by_a_power_of_two_may_be_one() -> None:
    """Half as many steps of twice the size: halves are rounded away from zero before the relu as behind it."""
    graph = Chain().then("relu", q(0.05, 3), clamp=(3, 127)).then("quantize", q(0.1, -100)).finished()
    assert operators(passed(graph)) == ["relu"]


@pytest.mark.parametrize("op", ["add", "mul"])
def test_what_is_no_function_of_one_value_is_left_alone(op: str) -> None:
    build = Chain().then("relu", q(0.05, 3), clamp=(0, 127))
    build.y = build.node(op, (build.y, build.y), build.activation(SHAPE, 0.1, 0), clamp=NONE)
    graph = build.then("relu", q(0.1, 0), clamp=(5, 127)).finished()
    assert merge_tables(graph) is graph


def test_two_roundings_that_no_single_one_gives_stay_two() -> None:
    """0.05 -> 0.13 -> 0.05: most values come back one step off."""
    graph = Chain().then("quantize", q(0.13, 0)).then("quantize", q(0.05, 3)).finished()
    assert merge_tables(graph) is graph


def test_a_logistic_of_a_leaky_relu_stays_two() -> None:
    graph = Chain().then("leaky_relu", q(0.05, 3), alpha=0.3).then("logistic", LOGISTIC).finished()
    assert merge_tables(graph) is graph


@pytest.mark.parametrize("op, stored", [("logistic", LOGISTIC), ("tanh", TANH)])
def test_a_function_and_a_change_of_its_scale(op: str, stored: Quantization) -> None:
    """With another scale a logistic is one and a change of scale: what TFLite has two operators for is one table."""
    for scale, zero_point in ((1 / 100, -50), (1 / 64, 0), (1 / 300, 3)):
        graph = Chain().then(op, stored).then("quantize", q(scale, zero_point)).finished()
        assert operators(passed(graph)) == [op]


def test_a_value_that_cannot_come_does_not_count() -> None:
    """A leaky relu of what a relu made is no more than a change of scale, so that the first relu alone does it all."""
    first = Chain().then("relu", q(0.05, 3), clamp=(3, 127))
    graph = first.then("leaky_relu", q(0.1, 3), alpha=0.25).finished()
    assert operators(passed(graph)) == ["relu"]
    full = Chain().then("relu", q(0.05, 3), clamp=NONE).then("leaky_relu", q(0.1, 3), alpha=0.25).finished()
    assert "leaky_relu" in operators(passed(full)), "of a relu that lets all through, the leaky relu is left"


def test_a_long_row_becomes_one_at_once() -> None:
    chain = Chain()
    for place in range(40):
        chain.then("relu", q(0.05, 3), clamp=(-40 + place, 127 - place))
    result = passed(chain.finished())
    assert operators(result) == ["relu"] and result.nodes[0].integers("clamp") == (-1, 88)
    assert merge_tables(result) is result


def test_what_somebody_else_reads_stays() -> None:
    build = Chain().then("relu", q(0.05, 3), clamp=(-10, 127))
    between = build.y
    build.then("relu", q(0.05, 3), clamp=(5, 127))
    for outputs in ((build.y, between), (build.y, build.relu(between, (0, 9)))):
        graph = build.graph(build.x, outputs)
        assert merge_tables(graph) is graph


def test_a_merged_operator_stands_where_its_input_is_known() -> None:
    """Between the two stands another operator that reads neither."""
    build = Chain().then("relu", q(0.05, 3), clamp=(-10, 127))
    aside = build.node("add", (build.x, build.x), build.activation(SHAPE, 0.1, 0), clamp=NONE)
    build.then("relu", q(0.05, 3), clamp=(5, 127))
    end = build.node("add", (aside, build.y), build.activation(SHAPE, 0.1, 0), clamp=NONE)
    assert operators(passed(build.graph(build.x, end))) == ["relu", "add", "add"]


def random_step(chain: Chain, rng: np.random.Generator) -> None:
    """One more function, stored as its input every other time."""
    before = chain.tensors[chain.y].quantization
    assert before is not None
    after = before if rng.random() < 0.5 else q(float(rng.choice([0.02, 0.04, 0.07])), int(rng.integers(-60, 60)))
    z = int(after.zero_point[0])
    clamp = (max(-128, z - int(rng.integers(0, 30))), min(127, z + int(rng.integers(20, 60))))
    kinds: list[tuple[str, Quantization, dict[str, Any]]] = [
        *[("relu", after, {"clamp": clamp})] * 2,
        ("quantize", after, {}),
        ("logistic", LOGISTIC, {}),
        ("tanh", TANH, {}),
        ("leaky_relu", after, {"alpha": 0.2}),
        ("hard_swish", after, {}),
    ]
    op, quantization, attributes = kinds[int(rng.integers(0, len(kinds)))]
    chain.then(op, quantization, **attributes)


def test_random_rows() -> None:
    """Whatever stands behind what: the same answers, and often fewer operators."""
    rng, fewer = np.random.default_rng(5), 0
    for _ in range(60):
        chain = Chain(float(rng.choice([0.02, 0.05])), int(rng.integers(-60, 60)))
        for _ in range(int(rng.integers(2, 5))):
            random_step(chain, rng)
        graph = chain.finished()
        fewer += len(passed(graph).nodes) < len(graph.nodes)
    assert fewer >= 10


def test_nothing_in_a_row_costs_no_analysis(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(graph: Graph) -> None:
        raise AssertionError("analysed")

    monkeypatch.setattr(sys.modules[merge_tables.__module__], "intervals", refuse)
    graph = Chain().then("relu", q(0.05, 3), clamp=(3, 127)).finished()
    assert merge_tables(graph) is graph and simplify(graph).nodes == graph.nodes
