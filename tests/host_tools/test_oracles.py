"""Outside interpreters: tflite-micro and LiteRT agree on every byte, the fully connected layer included once it is a 1x1
convolution; and left as it is, LiteRT's own rounding shows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from firmware_export.check import check
from firmware_export.graph import ABSENT, Graph, GraphError, Node, Quantization, Tensor
from firmware_export.write_tflite import write_tflite
from host_tools import oracles
from host_tools.model import load_model
from host_tools.oracles import fully_connected_as_conv2d, litert_reference_outputs, tflite_micro_outputs
from recipes.recipe import load_recipe


def per_channel(scales: np.ndarray, axis: int = 0) -> Quantization:
    return Quantization(scales.astype(np.float32), np.zeros(len(scales), np.int64), axis)


def linear_graph(scale: np.ndarray, bias: bool = True, depth: int = 24, rows: int = 10) -> Graph:
    """x [1, 1, 1, depth] -> reshape -> fully connected; scales that are powers of two make many ties."""
    rng = np.random.default_rng(5)
    weights = rng.integers(-127, 128, (rows, depth)).astype(np.int8)
    per_tensor = Quantization.per_tensor(float(scale[0]), 0)
    tensors = [
        Tensor("x", (1, 1, 1, depth), "int8", Quantization.per_tensor(0.5, 3)),
        Tensor("flat", (1, depth), "int8", Quantization.per_tensor(0.5, 3)),
        Tensor("w", (rows, depth), "int8", per_channel(scale) if len(scale) > 1 else per_tensor, weights),
        Tensor("b", (rows,), "int32", None, rng.integers(-900, 900, rows).astype(np.int32)),
        Tensor("y", (1, rows), "int8", Quantization.per_tensor(8.0, -5)),
    ]
    clamp = {"clamp": (-128, 127)}
    nodes = [
        Node("reshape", (0,), (1,), {"shape": (1, depth)}),
        Node("fully_connected", (1, 2, 3 if bias else ABSENT), (4,), clamp),
    ]
    scales = tensors[2].quantization
    assert scales is not None
    bias_scale = (np.float32(0.5) * scales.scale).astype(np.float32)
    zero = np.zeros(len(bias_scale), np.int64)
    tensors[3] = Tensor("b", (rows,), "int32", Quantization(bias_scale, zero, scales.axis), tensors[3].data)
    graph = Graph(tensors, nodes, (0,), (4,))
    check(graph)
    return graph


def images(count: int, depth: int = 24) -> np.ndarray:
    return np.random.default_rng(6).integers(-128, 128, (count, 1, 1, depth)).astype(np.int8)


def sums(graph: Graph, batch: np.ndarray) -> np.ndarray:
    """The accumulators int64 [n, rows], with the input's zero point 3."""
    weights, bias = graph.tensors[2].data, graph.tensors[3].data
    assert weights is not None and bias is not None
    return (batch.reshape(len(batch), -1).astype(np.int64) - 3) @ weights.astype(np.int64).T + bias.astype(np.int64)


SCALES: list[Callable[[], np.ndarray]] = [
    lambda: np.array([2.0**-4]),
    lambda: 2.0 ** -np.arange(2, 12).astype(float),
    lambda: np.random.default_rng(1).uniform(0.003, 0.2, 10),
]


@pytest.mark.parametrize("scales", SCALES, ids=["one scale", "powers of two", "any"])
def test_both_oracles_give_the_same_bytes(scales: Callable[[], np.ndarray]) -> None:
    graph, batch = linear_graph(scales()), images(300)
    wheel = tflite_micro_outputs(graph, write_tflite(graph), batch)
    assert wheel.shape == (300, 10) and wheel.dtype == np.int8 and len(np.unique(wheel)) > 20
    assert np.array_equal(litert_reference_outputs(graph, batch), wheel)


def test_the_answers_are_the_rounded_sums() -> None:
    # Scale 0.5 * 2^-4 / 8 = 2^-8: the first of the two roundings halves the sum, which is exact where the sum is even;
    # the second divides by 128 and rounds ties away from zero.
    graph, batch = linear_graph(np.array([2.0**-4])), images(200)
    total = sums(graph, batch)
    even = total % 2 == 0
    rounded = np.sign(total) * ((np.abs(total) + 128) // 256)
    wheel = tflite_micro_outputs(graph, write_tflite(graph), batch)
    assert even.sum() > 500
    assert np.array_equal(wheel[even], np.clip(rounded - 5, -128, 127)[even])


def test_litert_rounds_its_own_fully_connected_layer_differently(monkeypatch: pytest.MonkeyPatch) -> None:
    """Why the layer is rewritten: as it is, ties come out away from zero instead of doubly rounded."""
    graph, batch = linear_graph(2.0 ** -np.arange(2, 12).astype(float)), images(600)
    wheel = tflite_micro_outputs(graph, write_tflite(graph), batch)
    monkeypatch.setattr(oracles, "fully_connected_as_conv2d", lambda same: same)
    other = litert_reference_outputs(graph, batch)
    different = other != wheel
    assert 0 < different.sum() < 0.05 * different.size
    assert np.abs(other.astype(int) - wheel).max() == 1


def test_the_rewritten_graph_is_sound_and_leaves_the_other_layers() -> None:
    graph = linear_graph(np.array([0.01]))
    rewritten = fully_connected_as_conv2d(graph)
    check(rewritten)
    assert [node.op for node in rewritten.nodes] == ["reshape", "reshape", "conv2d", "reshape"]
    assert rewritten.outputs == graph.outputs and rewritten.inputs == graph.inputs
    assert [node.op for node in graph.nodes] == ["reshape", "fully_connected"]  # the given graph is as it was
    kernel = rewritten.tensors[rewritten.nodes[2].inputs[1]]
    assert kernel.shape == (10, 1, 1, 24) and kernel.quantization is not None and len(kernel.quantization.scale) == 10


def test_a_graph_without_such_a_layer_stays_as_it_is(built: Path) -> None:
    graph = load_model(built.parent / "build" / "tiny", load_recipe(built)).graph
    assert fully_connected_as_conv2d(graph).nodes == graph.nodes


def test_progress_counts_every_image() -> None:
    graph, batch = linear_graph(np.array([0.01])), images(250)
    told: list[int] = []
    tflite_micro_outputs(graph, write_tflite(graph), batch, told.append)
    assert sum(told) == 250
    told.clear()
    litert_reference_outputs(graph, batch[:7], told.append)
    assert told == [1] * 7


def test_a_file_that_litert_refuses_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oracles, "write_tflite", lambda graph: b"no model at all")
    with pytest.raises(GraphError, match="LiteRT refuses the model") as caught:
        litert_reference_outputs(linear_graph(np.array([0.01])), images(1))
    assert "\n" not in str(caught.value)
