"""The oracle of an arithmetic: TFLite Micro, LiteRT, or both in turn; random models in float32."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bundle import Bundle
from example_cases import Case, differences
from float32_cases import litert_default
from golden_models import MODELS
from graph_builder import Build
from random_graphs import random_graph

from firmware_export.graph import Graph, GraphError
from firmware_export.operators import operator_of, registry
from firmware_export.oracle import ORACLES, oracle_name, run_litert, run_oracle, run_tflite_micro
from firmware_export.selftest import MismatchError, known_answers, verify
from firmware_export.simulate import simulate
from firmware_export.target import Target
from firmware_export.toolchain import host_toolchain
from firmware_export.write_tflite import write_tflite

SHORT, LONG = 80, 3000


def case_of(seed: int) -> Case:
    """A random model in float32 with two inputs and the simulator's answers."""
    graph, rng = random_graph(seed).with_arithmetic("float32"), np.random.default_rng(seed)
    shapes = [graph.tensors[index].shape for index in graph.inputs]
    vectors = tuple(tuple(rng.integers(-128, 128, shape).astype(np.int8) for shape in shapes) for _ in range(2))
    return Case(f"random graph {seed}", graph, vectors, tuple(tuple(simulate(graph, *vector)) for vector in vectors))


def check_oracle(case: Case) -> None:
    assert differences(case, run_oracle(case.graph, write_tflite(case.graph), case.vectors)) == ""


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    return [case_of(seed) for seed in range(SHORT)]


def test_random_models(cases: list[Case]) -> None:
    for case in cases:
        check_oracle(case)
    names = {oracle_name(case.graph) for case in cases}
    assert "LiteRT" in names and any("TFLite Micro" in name for name in names)


@pytest.mark.long
def test_many_random_models() -> None:
    for seed in range(10_000, 10_000 + LONG):
        case = case_of(seed)
        if not any(node.op == "softmax" and case.graph.tensors[node.inputs[0]].shape[-1] > 511 for node in case.graph.nodes):
            check_oracle(case)  # TFLite Micro ends the process on long rows of nearly equal values


def test_random_models_in_generated_c(cases: list[Case], tmp_path: Path) -> None:
    bundle = Bundle(tmp_path, cases, Target.of("host", "balanced"))
    for case, found in zip(cases, bundle.run_host(bundle.host_program(host_toolchain())), strict=True):
        assert differences(case, found) == ""


def two_pieces() -> Graph:
    """A convolution read by a softmax's way and by an addition behind it: its bytes go around the other runtime's piece."""
    build = Build(5)
    first = build.conv(build.activation((1, 6, 5, 3)), 4)
    image = build.tensors[first]
    small = build.node(
        "mean", (first,), build.activation((1, 4), image.scale, image.zero_point), axes=(1, 2), keep_dims=0, clamp=(-128, 127)
    )
    dense = build.fully_connected(small, 3)
    return build.graph((0,), (dense, first)).with_arithmetic("float32")


def test_a_model_in_pieces_is_each_runtimes_part() -> None:
    graph = two_pieces()
    ops = [node.op for node in graph.nodes]
    assert ops == ["conv2d", "mean", "fully_connected"] and oracle_name(graph) == "LiteRT (mean: TFLite Micro)"
    rng = np.random.default_rng(1)
    vectors = tuple((rng.integers(-128, 128, (1, 6, 5, 3)).astype(np.int8),) for _ in range(3))
    image, mean = graph.nodes[0].outputs[0], graph.nodes[1].outputs[0]
    parts = [
        replace(graph, nodes=graph.nodes[:1], outputs=(image,)),
        replace(graph, nodes=graph.nodes[1:2], inputs=(image,), outputs=(mean,)),
        replace(graph, nodes=graph.nodes[2:], inputs=(mean,), outputs=graph.outputs[:1]),
    ]
    images = litert_default(write_tflite(parts[0]), vectors)
    means = run_tflite_micro(parts[1], write_tflite(parts[1]), tuple(images))
    answers = litert_default(write_tflite(parts[2]), tuple(means))
    found = run_oracle(graph, b"not read", vectors)
    assert [f[0].tobytes() for f in found] == [a[0].tobytes() for a in answers]
    assert [f[1].tobytes() for f in found] == [i[0].tobytes() for i in images]


def test_one_runtime_reads_the_file() -> None:
    """Where LiteRT computes all of it, the file given is what runs: here another one, so that it shows."""
    graph, other = (MODELS["perceptron"]().with_arithmetic("float32") for _ in range(2))
    vectors = tuple((np.full(graph.tensors[index].shape, 5, np.int8),) for index in graph.inputs)
    weights = other.nodes[0].inputs[1]
    data = other.tensors[weights].data
    assert data is not None and oracle_name(graph) == "LiteRT"
    other.tensors[weights] = replace(other.tensors[weights], data=np.roll(data, 1))
    plain, changed = (run_oracle(graph, write_tflite(model), vectors)[0][0] for model in (graph, other))
    assert not np.array_equal(plain, changed)


@pytest.mark.parametrize("name", ["residual", "perceptron", "two_ends"])
def test_double_is_tflite_micro(name: str) -> None:
    graph = MODELS[name]()
    rng = np.random.default_rng(2)
    vector = tuple(rng.integers(-100, 100, graph.tensors[i].shape).astype(graph.tensors[i].dtype) for i in graph.inputs)
    twin = write_tflite(graph)
    ours, theirs = (run(graph, twin, (vector,))[0] for run in (run_oracle, run_tflite_micro))
    assert [a.tobytes() for a in ours] == [b.tobytes() for b in theirs]
    assert oracle_name(graph) == ORACLES["double"] == "TFLite Micro"


def test_known_answers_of_float32_are_verified() -> None:
    graph = MODELS["residual"]().with_arithmetic("float32")
    answers = known_answers(graph, write_tflite(graph), 6)
    verify(graph, answers)
    assert answers.source == oracle_name(graph) and answers.source.startswith("LiteRT")
    wrong = replace(answers, outputs=tuple(tuple(~output for output in vector) for vector in answers.outputs))
    with pytest.raises(MismatchError, match="between the simulator and LiteRT"):
        verify(graph, wrong)


def test_a_refusal_is_one_line() -> None:
    with pytest.raises(GraphError, match=r"LiteRT refuses the .tflite twin: .*please report the model") as caught:
        run_litert(b"TFL3 but no model at all", ())
    assert "\n" not in str(caught.value)


def test_who_computes_a_node() -> None:
    """Every operator answers, for every one of its examples, and most are LiteRT's."""
    theirs = set()
    for name, operator in registry().items():
        graph = next(iter(operator.examples(np.random.default_rng(0)))).graph
        assert isinstance(operator_of(graph.nodes[0]).litert_default(graph, graph.nodes[0]), bool)
        if operator.litert_default(graph, graph.nodes[0]):
            theirs.add(name)
    assert {"conv2d", "depthwise_conv2d", "fully_connected", "add", "transpose_conv"} <= theirs
    assert not theirs & {"mean", "sum", "softmax", "lstm"}
