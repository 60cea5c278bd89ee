"""Every pass of PASSES, whichever there are: random models and every operator's examples answer in TFLite Micro as before.

A new pass is tested by being in PASSES. Each example also stands in surroundings that give the passes something to do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from dead_channels import dead_net, with_dead_channels
from example_cases import Case, cases_of, random_values
from oracles import tflite_micro_each
from random_graphs import random_graph

from firmware_export.check import check
from firmware_export.graph import Graph, Node, Quantization, Tensor
from firmware_export.operators import registry
from firmware_export.passes import PASSES, simplify
from firmware_export.write_tflite import write_tflite

Pass = Callable[[Graph], Graph]
ALL: tuple[Pass, ...] = (*PASSES, simplify)
GRAPHS, NETS, EXAMPLES = 40, 25, 4
names = pytest.mark.parametrize("run", ALL, ids=lambda run: run.__name__)


def answers(graph: Graph, inputs: list[list[np.ndarray]]) -> list[bytes]:
    found = tflite_micro_each(write_tflite(graph), inputs, len(graph.outputs))
    return [value.tobytes() for outputs in found for value in outputs]


def edges(graph: Graph) -> list[tuple[tuple[int, ...], str, Quantization | None]]:
    tensors = [graph.tensors[index] for index in (*graph.inputs, *graph.outputs)]
    return [(tensor.shape, tensor.dtype, tensor.quantization) for tensor in tensors]


class Answers:
    """What TFLite Micro answers for a model before any pass, asked for once and only if a pass changes the model."""

    def __init__(self, graph: Graph, inputs: list[list[np.ndarray]]) -> None:
        self.graph, self.inputs = graph, inputs
        self._before: list[bytes] | None = None

    def assert_kept(self, run: Pass, label: str) -> None:
        """By one pass, which leaves the graph that it is given alone."""
        graph = self.graph
        given = replace(graph, tensors=list(graph.tensors), nodes=list(graph.nodes))
        result = run(graph)
        assert graph == given, f"{label}: {run.__name__} changed the graph it was given"
        if result is graph:
            return
        check(result)
        assert edges(result) == edges(graph), f"{label}: {run.__name__}"
        if self._before is None:
            self._before = answers(graph, self.inputs)
        assert answers(result, self.inputs) == self._before, f"{label}: {run.__name__}"


def values_of(graph: Graph, seed: int, count: int = 2) -> list[list[np.ndarray]]:
    rng = np.random.default_rng(seed)
    return [[random_values(graph.tensors[index], rng) for index in graph.inputs] for _ in range(count)]


class Surroundings:
    """An example with reshapes there and back and a dead end before it, relus that do nothing or little and a pad behind it."""

    def __init__(self, graph: Graph) -> None:
        self.graph = replace(graph, tensors=list(graph.tensors), nodes=[])
        before = {index: self.there_and_back(index) for index in graph.inputs}
        self.graph.nodes += [replace(n, inputs=tuple(before.get(i, i) for i in n.inputs)) for n in graph.nodes]
        self.graph.outputs = tuple(self.behind(index) for index in graph.outputs)
        self.like(self.graph.tensors[graph.inputs[0]])  # a tensor that nobody names

    def like(self, tensor: Tensor, shape: tuple[int, ...] | None = None) -> int:
        self.graph.tensors.append(replace(tensor, name="added", shape=tensor.shape if shape is None else shape))
        return len(self.graph.tensors) - 1

    def node(self, op: str, x: int, becomes: tuple[int, ...] | None = None, **attributes: object) -> int:
        y = self.like(self.graph.tensors[x], becomes)
        self.graph.nodes.append(Node(op, (x,), (y,), attributes))  # type: ignore[arg-type]
        return y

    def there_and_back(self, x: int) -> int:
        tensor = self.graph.tensors[x]
        if tensor.dtype != "int8" or not tensor.shape:
            return x
        self.node("relu", self.node("relu", x, clamp=(-128, 127)), clamp=(tensor.zero_point, 127))
        flat = self.node("reshape", x, (1, tensor.elements), shape=(1, tensor.elements))
        return self.node("reshape", flat, tensor.shape, shape=tensor.shape)

    def behind(self, x: int) -> int:
        tensor = self.graph.tensors[x]
        if tensor.dtype != "int8" or tensor.is_constant:
            return x
        y = self.node("relu", self.node("relu", x, clamp=(-128, 127)), clamp=(tensor.zero_point, 127))
        if len(tensor.shape) != 4 or tensor.shape[0] != 1:
            return y
        shape = (tensor.shape[0], tensor.shape[1] + 2, tensor.shape[2] + 1, tensor.shape[3])
        padded = self.node("pad", y, shape, paddings=(0, 0, 1, 1, 0, 1, 0, 0), value=-128)
        window = {"kernel": (2, 2), "stride": (1, 1), "padding": (0, 0, 0, 0)}
        return self.node("max_pool2d", padded, (1, shape[1] - 1, shape[2] - 1, shape[3]), clamp=(-128, 127), **window)


def surrounded(case: Case) -> Graph:
    graph = Surroundings(case.graph).graph
    check(graph)
    return graph


@names
def test_random_models(run: Pass) -> None:
    for seed in range(GRAPHS):
        graph = with_dead_channels(random_graph(seed), seed, share=0.3, ends=True)
        Answers(graph, values_of(graph, seed)).assert_kept(run, f"graph {seed}")


@names
def test_nets_with_dead_channels(run: Pass) -> None:
    for seed in range(NETS):
        graph = dead_net(seed)
        Answers(graph, values_of(graph, seed)).assert_kept(run, f"net {seed}")


@pytest.mark.parametrize("operator", registry())
def test_examples(operator: str) -> None:
    """Some examples of every operator through every pass; the long test takes them all."""
    cases = cases_of(operator)
    for case in cases[:: max(1, len(cases) // EXAMPLES)]:
        compare_example(case)


def compare_example(case: Case) -> None:
    for graph in (case.graph, surrounded(case)):
        found = Answers(graph, [list(vector) for vector in case.vectors[:2]])
        for run in ALL:
            found.assert_kept(run, case.label)


def test_every_pass_finds_something_to_do() -> None:
    """In the models of the tests above; else they would show nothing."""
    found: Counter[str] = Counter()
    graphs = [surrounded(case) for name in registry() for case in cases_of(name)[::25]]
    graphs += [dead_net(seed) for seed in range(6)]
    for graph in graphs:
        for run in PASSES:
            found[run.__name__] += run(graph) is not graph
    missing = {run.__name__ for run in PASSES if not found[run.__name__]}
    assert missing <= {"fold_constants"}, "nodes of constants alone are refused by check; their tests build them"


def test_examples_in_surroundings_become_as_small_as_alone() -> None:
    """What was put around a convolution goes again, but for the last relu and the pool."""
    for case in cases_of("conv2d")[:10]:
        assert [node.op for node in simplify(surrounded(case)).nodes][-1] == "max_pool2d"
        assert len(simplify(surrounded(case)).nodes) <= len(case.graph.nodes) + 2


@pytest.mark.long
@pytest.mark.parametrize("operator", registry())
def test_all_examples(operator: str) -> None:
    for case in cases_of(operator):
        compare_example(case)
