"""Removing dead channels leaves every answer as it was: the tflite-micro wheel before and after, float32, whole models."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from dead_channels import dead_net, with_dead_channels
from graph_builder import inputs_of
from oracles import litert, tflite_micro, tflite_micro_each
from random_graphs import random_graph

from firmware_export.check import check
from firmware_export.graph import Graph
from firmware_export.operators import operator_of
from firmware_export.passes import simplify
from firmware_export.passes.remove_dead_channels import remove_dead_channels
from firmware_export.passes.remove_unused import remove_unused
from firmware_export.read_tflite import read_tflite
from firmware_export.simulate import simulate
from firmware_export.write_tflite import write_tflite

NETS, GRAPHS = 120, 120
LONG = 2000
MODELS = {
    "vww_96_int8": ((7_489_664, 208_112), (3_727_313, 29_066)),
    "pretrainedResnet_quant": ((12_501_632, 77_360), (12_501_632, 77_360)),
    "kws_ref_model": ((2_656_768, 22_016), (2_656_768, 22_016)),
    "ad01_int8": ((264_192, 264_192), (264_192, 264_192)),
}
"""MACs and weights, before and after."""


def passed(graph: Graph) -> Graph:
    result = remove_unused(remove_dead_channels(graph))
    check(result)
    return result


def figures(graph: Graph) -> tuple[int, int]:
    weights = sum(tensor.elements for _, tensor in graph.constants() if tensor.dtype == "int8")
    return sum(operator_of(node).macs(graph, node) for node in graph.nodes), weights


def vectors(graph: Graph, count: int = 2) -> Iterator[list[np.ndarray]]:
    """Random values, random ends of the range, all lowest, all highest."""
    for seed in range(count):
        yield inputs_of(graph, seed)
        yield [np.where(value > 0, 127, -128).astype(np.int8) for value in inputs_of(graph, seed + 50)]
    for value in (-128, 127):
        yield [np.full_like(array, value) for array in inputs_of(graph)]


def answers(graph: Graph) -> list[bytes]:
    found = tflite_micro_each(write_tflite(graph), list(vectors(graph)), len(graph.outputs))
    return [y.tobytes() for outputs in found for y in outputs]


def answers_float32(graph: Graph) -> list[bytes]:
    view = graph.with_arithmetic("float32")
    return [y.tobytes() for x in vectors(graph, 1) for y in simulate(view, *x)]


def assert_unchanged(graph: Graph, result: Graph, label: str) -> None:
    assert [graph.tensors[i].shape for i in graph.inputs] == [result.tensors[i].shape for i in result.inputs], label
    assert [graph.tensors[i].shape for i in graph.outputs] == [result.tensors[i].shape for i in result.outputs], label
    assert answers(result) == answers(graph), label
    assert answers_float32(result) == answers_float32(graph), label


def compare(graphs: Iterator[tuple[str, Graph]]) -> tuple[int, int, int]:
    """How many graphs there are, are changed by the pass, and answer differently to different inputs."""
    count = changed = lively = 0
    for label, graph in graphs:
        check(graph)
        result = passed(graph)
        assert_unchanged(graph, result, label)
        count += 1
        changed += result.hash() != remove_unused(graph).hash()
        lively += len(set(answers(graph))) > len(graph.outputs)
    return count, changed, lively


def random_models(seeds: range) -> Iterator[tuple[str, Graph]]:
    return ((f"graph {seed}", with_dead_channels(random_graph(seed), seed, ends=True)) for seed in seeds)


def test_nets_with_dead_channels() -> None:
    count, changed, lively = compare((f"net {seed}", dead_net(seed)) for seed in range(NETS))
    assert changed > 0.8 * count and lively > 0.4 * count


def test_random_models_of_every_operator_with_dead_channels() -> None:
    count, changed, lively = compare(random_models(range(GRAPHS)))
    assert changed > 0.3 * count and lively > 0.5 * count


def test_a_second_time_changes_nothing() -> None:
    for seed in range(40):
        simple = simplify(dead_net(seed))
        assert simplify(simple) is simple and remove_dead_channels(simple) is simple


def test_another_runtime_agrees() -> None:
    """LiteRT's reference kernels round FULLY_CONNECTED otherwise, so nets that have none."""
    nets = [net for net in map(dead_net, range(60)) if all(node.op != "fully_connected" for node in net.nodes)]
    assert len(nets) >= 8
    for net in nets:
        before, after = write_tflite(net), write_tflite(passed(net))
        for values in vectors(net, 1):
            assert [y.tobytes() for y in litert(before, values)] == [y.tobytes() for y in litert(after, values)]


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest, shared_data: Path) -> tuple[str, Graph, bytes]:
    path = shared_data / "mlperf_tiny_models" / f"{request.param}.tflite"
    if not path.is_file():
        pytest.skip(f"{path} not found")
    return request.param, read_tflite(path), path.read_bytes()


def test_public_models(model: tuple[str, Graph, bytes]) -> None:
    """The file as it came, and what is exported of it, in TFLite Micro: no byte differs."""
    name, graph, data = model
    simple = simplify(graph)
    assert (figures(graph), figures(simple)) == MODELS[name]
    twin = write_tflite(simple)
    for values in vectors(graph, 4):
        assert [y.tobytes() for y in tflite_micro(data, values)] == [y.tobytes() for y in tflite_micro(twin, values)]
    assert answers_float32(simple) == answers_float32(graph)


def test_public_models_with_more_dead_channels(model: tuple[str, Graph, bytes]) -> None:
    name, graph, _ = model
    changed = with_dead_channels(simplify(graph), 3, 0.2)
    result = passed(changed)
    assert figures(result) < figures(changed)
    assert_unchanged(replace(changed, name=name), result, name)


@pytest.mark.long
def test_many_nets() -> None:
    count, changed, _ = compare((f"net {seed}", dead_net(seed)) for seed in range(NETS, NETS + LONG))
    assert changed > 0.8 * count


@pytest.mark.long
def test_many_random_models() -> None:
    count, changed, _ = compare(random_models(range(GRAPHS, GRAPHS + LONG)))
    assert changed > 0.3 * count
