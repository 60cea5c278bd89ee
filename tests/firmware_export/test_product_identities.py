"""What must hold between operators that sum products, whatever their rounding: the same bytes by two ways."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from example_cases import cases_of
from graph_builder import Build, inputs_of

from firmware_export.graph import Graph, Node, Quantization, Tensor
from firmware_export.simulate import simulate

SEEDS = range(8)


def image_layer(op: str, seed: int, weights: np.ndarray, shape: tuple[int, ...], **attributes: Any) -> Graph:
    """A layer of an image [1, 5, 6, c] with these weights and a random bias; scales are those of the seed."""
    build = Build(seed)
    x = build.activation((1, 5, 6, weights.shape[3]), 0.04, (seed * 37) % 256 - 128)
    scale = (0.01 + build.rng.random(len(weights)) / 100).astype(np.float32)
    w = build.tensor(Tensor("w", weights.shape, "int8", Quantization(scale, np.zeros(scale.size, np.int64), 0), weights))
    y = build.activation(shape, 0.3, seed * 9 - 40)
    inputs = (x, w, build.bias(x, w, len(weights)))
    return build.graph(x, build.node(op, inputs, y, clamp=(-128, 127), **attributes))


def same_bytes(one: Graph, other: Graph, seed: int) -> None:
    arrays = inputs_of(one, seed)
    assert simulate(one, *arrays)[0].tobytes() == simulate(other, *arrays)[0].tobytes()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (2, 4)])
def test_transposed_of_stride_one_is_a_convolution_with_turned_weights(seed: int, kernel: tuple[int, int]) -> None:
    weights = np.random.default_rng(seed).integers(-127, 128, (4, *kernel, 3)).astype(np.int8)
    size = (5 + kernel[0] - 1, 6 + kernel[1] - 1)
    edges = (kernel[0] - 1, kernel[0] - 1, kernel[1] - 1, kernel[1] - 1)
    shape = (1, *size, 4)
    one = image_layer("transpose_conv", seed, weights, shape, stride=(1, 1), padding=(0, 0), size=size)
    turned = np.ascontiguousarray(weights[:, ::-1, ::-1])
    same_bytes(one, image_layer("conv2d", seed, turned, shape, stride=(1, 1), dilation=(1, 1), padding=edges), seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_every_phase_is_a_convolution(seed: int) -> None:
    """Rows 0, 2, 4, ... and 1, 3, ... of an output of stride 2 come from the even and the odd taps alone."""
    weights = np.random.default_rng(seed).integers(-127, 128, (2, 4, 4, 3)).astype(np.int8)
    whole = image_layer("transpose_conv", seed, weights, (1, 12, 14, 2), stride=(2, 2), padding=(0, 0), size=(12, 14))
    arrays = inputs_of(whole, seed)
    image = simulate(whole, *arrays)[0]
    for i, j in np.ndindex(2, 2):
        taps = np.ascontiguousarray(weights[:, i::2, j::2][:, ::-1, ::-1])
        part = image_layer("conv2d", seed, taps, (1, 6, 7, 2), stride=(1, 1), dilation=(1, 1), padding=(1, 1, 1, 1))
        assert np.array_equal(simulate(part, *arrays)[0], image[:, i::2, j::2])


@pytest.mark.parametrize("seed", SEEDS)
def test_a_shift_of_the_crop_is_a_shift_of_the_image(seed: int) -> None:
    weights = np.random.default_rng(seed).integers(-127, 128, (3, 3, 3, 2)).astype(np.int8)
    whole = image_layer("transpose_conv", seed, weights, (1, 11, 13, 3), stride=(2, 2), padding=(0, 0), size=(11, 13))
    image = simulate(whole, *inputs_of(whole, seed))[0]
    for top, left in ((1, 0), (0, 1), (2, 3)):
        size = (11 - top, 13 - left)
        part = image_layer("transpose_conv", seed, weights, (1, *size, 3), stride=(2, 2), padding=(top, left), size=size)
        assert np.array_equal(simulate(part, *inputs_of(part, seed))[0], image[:, top:, left:])


def rows_layer(op: str, seed: int, **attributes: Any) -> Graph:
    """Six rows of 5 times a constant [4, 5] of zero point 0; fully_connected has no bias."""
    build = Build(seed)
    x = build.activation((1, 6, 5), 0.04, seed * 30 - 128)
    w = build.weights((4, 5), None)
    y = build.activation((1, 6, 4), 0.2, 3)
    return build.graph(x, build.node(op, (x, w), y, clamp=(-128, 127), **attributes))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_constant_matrix_is_a_fully_connected_layer(seed: int) -> None:
    same_bytes(rows_layer("batch_matmul", seed, adj_x=0, adj_y=1), rows_layer("fully_connected", seed, keep_dims=1), seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_ones_sum_up(seed: int) -> None:
    """A row of ones times a matrix is the sum of its columns, by the operator sum."""
    build = Build(seed)
    x = build.activation((1, 7, 5), 0.25, seed * 16 - 60)
    ones = build.tensor(Tensor("ones", (1, 7), "int8", Quantization.per_tensor(1.0, 0), np.ones((1, 7), np.int8)))
    y = build.activation((1, 1, 5), 2.0, 4)
    product = build.graph(x, build.node("batch_matmul", (ones, x), y, adj_x=0, adj_y=0, clamp=(-128, 127)))
    total = replace(product, nodes=[Node("sum", (x,), (y,), {"axes": (1,), "keep_dims": 1})])
    same_bytes(product, total, seed)


def lstm_of(label: str) -> Graph:
    graph = next(case.graph for case in cases_of("lstm") if case.label.endswith(label))
    return replace(graph, tensors=list(graph.tensors))


def with_data(graph: Graph, places: range, change: Any) -> Graph:
    """The constants at some of the node's inputs changed."""
    changed = replace(graph, tensors=list(graph.tensors))
    for place in places:
        index = graph.nodes[0].inputs[place]
        tensor = graph.tensors[index]
        assert tensor.data is not None
        changed.tensors[index] = replace(tensor, data=np.ascontiguousarray(change(tensor.data)))
    return changed


INPUT, RECURRENT, BIAS = range(1, 5), range(5, 9), range(9, 13)


@pytest.mark.parametrize("label", ["ordinary", "more units than inputs", "cell scale 2^-9", "clip", "output zero point 127"])
def test_units_have_no_order(label: str) -> None:
    """Units written in another order give the outputs in that order."""
    graph = lstm_of(label)
    units = graph.tensors[-1].shape[2]
    order = np.random.default_rng(0).permutation(units)
    other = with_data(graph, INPUT, lambda w: w[order])
    other = with_data(other, BIAS, lambda b: b[order])
    other = with_data(other, RECURRENT, lambda r: r[order][:, order])
    arrays = inputs_of(graph)
    assert np.array_equal(simulate(other, *arrays)[0], simulate(graph, *arrays)[0][..., order])


@pytest.mark.parametrize("label", ["ordinary", "many steps", "more inputs than units"])
def test_inputs_have_no_order(label: str) -> None:
    graph = lstm_of(label)
    (x,) = inputs_of(graph)
    order = np.random.default_rng(1).permutation(x.shape[2])
    other = with_data(graph, INPUT, lambda w: w[:, order])
    assert np.array_equal(simulate(other, np.ascontiguousarray(x[..., order]))[0], simulate(graph, x)[0])


@pytest.mark.parametrize("label", ["ordinary", "many steps"])
def test_without_recurrence_and_memory_every_step_is_alone(label: str) -> None:
    """Recurrent weights of 0 and a forget gate that is shut: each output is that of its step alone."""
    graph = with_data(lstm_of(label), RECURRENT, np.zeros_like)
    graph = with_data(graph, range(2, 3), np.zeros_like)
    graph = with_data(graph, range(10, 11), lambda b: np.full_like(b, -(2**30)))
    (x,) = inputs_of(graph)
    whole = simulate(graph, x)[0]
    last = len(graph.tensors) - 1
    for step in range(x.shape[1]):
        alone = replace(graph, tensors=list(graph.tensors))
        for index in (0, last):
            alone.tensors[index] = replace(alone.tensors[index], shape=(1, 1, alone.tensors[index].shape[2]))
        assert np.array_equal(simulate(alone, x[:, step : step + 1])[0], whole[:, step : step + 1])


def test_a_shut_output_gate_gives_zero() -> None:
    graph = with_data(lstm_of("ordinary"), range(4, 5), np.zeros_like)
    graph = with_data(graph, range(8, 9), np.zeros_like)
    graph = with_data(graph, range(12, 13), lambda b: np.full_like(b, -(2**30)))
    answers = simulate(graph, *inputs_of(graph))[0]
    assert np.all(answers == graph.tensors[-1].zero_point)


def test_a_clip_beyond_reach_changes_nothing() -> None:
    graph = lstm_of("ordinary")
    node = graph.nodes[0]
    clipped = replace(graph, nodes=[replace(node, attributes=node.attributes | {"cell_clip": 32767})])
    same_bytes(graph, clipped, 3)
    tight = replace(graph, nodes=[replace(node, attributes=node.attributes | {"cell_clip": 1})])
    arrays = inputs_of(graph, 3)
    spread = np.ptp(simulate(tight, *arrays)[0].astype(int))
    assert spread <= 1 < np.ptp(simulate(graph, *arrays)[0].astype(int))


@pytest.mark.parametrize("shift", [-40, 1, 60])
def test_the_outputs_zero_point_moves_the_outputs(shift: int) -> None:
    """h lies in -60..60 here, so that nothing saturates: h itself, and with it all that follows, stays what it is."""
    graph = lstm_of("ordinary")
    y, scale = graph.tensors[-1], np.array([1 / 60], np.float32)
    graph.tensors[-1] = replace(y, quantization=Quantization(scale, np.array([0], np.int64)))
    moved = replace(graph, tensors=list(graph.tensors))
    moved.tensors[-1] = replace(y, quantization=Quantization(scale, np.array([shift], np.int64)))
    arrays = inputs_of(graph)
    before = simulate(graph, *arrays)[0].astype(int)
    assert 5 < np.abs(before).max() <= 60
    assert np.array_equal(simulate(moved, *arrays)[0], before + shift)
