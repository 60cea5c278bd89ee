"""The passes leave every byte as it is in the arithmetic float32 too, and constants are computed in the model's arithmetic."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from example_cases import cases_of, random_values
from float32_cases import in_float32
from graph_builder import Build
from random_graphs import random_graph

from firmware_export.graph import Graph, Quantization, Tensor
from firmware_export.operators import registry
from firmware_export.passes import simplify
from firmware_export.simulate import simulate

SHORT, LONG = 150, 3000


def assert_same(before: Graph, after: Graph, seed: int) -> None:
    rng = np.random.default_rng(seed)
    assert after.arithmetic == before.arithmetic == "float32"
    for _ in range(2):
        vector = [random_values(before.tensors[index], rng) for index in before.inputs]
        one, other = simulate(before, *vector), simulate(after, *vector)
        assert [a.tobytes() for a in one] == [b.tobytes() for b in other], seed


def check_random(seeds: range) -> Counter[str]:
    removed: Counter[str] = Counter()
    for seed in seeds:
        graph = random_graph(seed).with_arithmetic("float32")
        after = simplify(graph)
        assert_same(graph, after, seed)
        removed += Counter(node.op for node in graph.nodes) - Counter(node.op for node in after.nodes)
    return removed


def test_random_models() -> None:
    assert sum(check_random(range(20_000, 20_000 + SHORT)).values()) > 0, "no pass had anything to do"


@pytest.mark.long
def test_many_random_models() -> None:
    check_random(range(30_000, 30_000 + LONG))


@pytest.mark.parametrize("name", sorted(registry()))
def test_every_operator(name: str) -> None:
    for double in cases_of(name)[::2]:
        case = in_float32(double)
        after = simplify(case.graph)
        for vector, answers in zip(case.vectors, case.answers, strict=True):
            assert [a.tobytes() for a in simulate(after, *vector)] == [a.tobytes() for a in answers], case.label


def constant_halves() -> Graph:
    """The input plus a constant that is brought to four times its scale before: every fourth value is a tie."""
    build = Build(1)
    x = build.activation((1, 256), 1.0, 0)
    values = np.arange(-128, 128).astype(np.int8).reshape(1, 256)
    fixed = build.tensor(Tensor("c", (1, 256), "int8", Quantization.per_tensor(0.25, 0), values))
    moved = build.node("relu", (fixed,), build.activation((1, 256), 1.0, 0), clamp=(-128, 127))
    result = build.node("add", (x, moved), build.activation((1, 256), 1.0, 0), clamp=(-128, 127))
    return build.graph((x,), (result,))


@pytest.mark.parametrize(
    ("arithmetic", "expected"),
    [("double", [-2, -1, -1, 0, 1, 1, 2]), ("float32", [-1, -1, 0, 0, 1, 1, 2])],
)
def test_constants_fold_in_the_models_arithmetic(arithmetic: str, expected: list[int]) -> None:
    """-6/4, -4/4 .. 6/4: halves away from zero in double, up in float32 as XNNPACK converts."""
    after = simplify(constant_halves().with_arithmetic(arithmetic))
    assert [node.op for node in after.nodes] == ["add"]
    folded = after.tensors[after.nodes[0].inputs[1]].data
    assert folded is not None and folded.reshape(-1)[122:135:2].tolist() == expected
