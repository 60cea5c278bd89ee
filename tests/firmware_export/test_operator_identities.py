"""Identities between operators: two ways to say the same sum must give the same bytes, in the simulator and in C.

They hold by arithmetic alone, so that no oracle is needed; the two ways take different paths through the code.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from bundle import Bundle
from example_cases import Case, differences

from firmware_export.graph import Graph, Node, Quantization, Tensor
from firmware_export.operators import operator_of
from firmware_export.simulate import simulate
from firmware_export.toolchain import host_toolchain

SEEDS = range(4)
Pair = tuple[Graph, Graph]


class Net:
    """One or more nodes on one image; activations get the shapes that the nodes infer."""

    def __init__(self, seed: int, size: tuple[int, int, int], zero_point: int = -20) -> None:
        self.rng = np.random.default_rng(seed)
        self.zero_point = zero_point
        self.tensors = [Tensor("x", (1, *size), "int8", Quantization.per_tensor(0.05, zero_point))]
        self.nodes: list[Node] = []

    def array(self, *shape: int) -> np.ndarray:
        """Random int8 weights."""
        return self.rng.integers(-127, 128, shape).astype(np.int8)

    def constant(self, array: np.ndarray, scales: np.ndarray, axis: int | None) -> int:
        """Weights with scales along an axis."""
        quantization = Quantization(scales.astype(np.float32), np.zeros(scales.size, np.int64), axis)
        self.tensors.append(Tensor("w", array.shape, "int8", quantization, array))
        return len(self.tensors) - 1

    def bias(self, array: np.ndarray) -> int:
        """An int32 bias without a scale of its own."""
        self.tensors.append(Tensor("b", array.shape, "int32", None, array.astype(np.int32)))
        return len(self.tensors) - 1

    def node(self, op: str, inputs: tuple[int, ...], scale: float, zero_point: int, **attributes: Any) -> int:
        """Adds a node; returns its output."""
        self.tensors.append(Tensor("y", (), "int8", Quantization.per_tensor(scale, zero_point)))
        place = len(self.tensors) - 1
        self.nodes.append(Node(op, inputs, (place,), attributes))
        graph = Graph(self.tensors, self.nodes, (0,), (place,))
        shape = operator_of(self.nodes[-1]).infer(graph, self.nodes[-1])[0].shape
        self.tensors[place] = replace(self.tensors[place], shape=shape)
        return place

    def graph(self) -> Graph:
        """Everything so far; the last node's output is the graph's."""
        return Graph(self.tensors, self.nodes, (0,), self.nodes[-1].outputs)


def window(stride: int = 1, dilation: int = 1, padding: tuple[int, int, int, int] = (0, 0, 0, 0)) -> dict[str, Any]:
    """Attributes of a convolution."""
    return {"stride": (stride, stride), "dilation": (dilation, dilation), "padding": padding, "clamp": (-128, 127)}


def scales(net: Net, count: int) -> np.ndarray:
    return net.rng.uniform(0.005, 0.02, count)


def depthwise_is_a_sparse_convolution(seed: int) -> Pair:
    """A depthwise kernel is a convolution kernel with zeros for all other channels."""
    net, other = Net(seed, (6, 5, 3)), Net(seed, (6, 5, 3))
    multiplier = 1 + seed % 3
    w, s = net.array(1, 3, 2, 3 * multiplier), scales(net, 3 * multiplier)
    dense = np.zeros((3 * multiplier, 3, 2, 3), np.int8)
    for o in range(3 * multiplier):
        dense[o, :, :, o // multiplier] = w[0, :, :, o]
    options = window(1 + seed % 2, padding=(1, 1, 0, 1))
    net.node("depthwise_conv2d", (0, net.constant(w, s, 3)), 0.4, 3, **options)
    other.node("conv2d", (0, other.constant(dense, s, 0)), 0.4, 3, **options)
    return net.graph(), other.graph()


def pointwise_is_fully_connected(seed: int) -> Pair:
    """A 1x1 convolution is the same matrix on every pixel."""
    net, other = Net(seed, (4, 5, 7)), Net(seed, (4, 5, 7))
    w, s, b = net.array(6, 7), scales(net, 6), net.rng.integers(-3000, 3000, 6)
    net.node("conv2d", (0, net.constant(w.reshape(6, 1, 1, 7), s, 0), net.bias(b)), 0.5, -9, **window())
    inputs = (0, other.constant(w, s, 0), other.bias(b))
    other.node("fully_connected", inputs, 0.5, -9, clamp=(-128, 127), keep_dims=1)
    return net.graph(), other.graph()


def kernel_of_the_image_is_fully_connected(seed: int) -> Pair:
    """A valid convolution with a kernel of the image's size has one output pixel: a matrix times the whole image."""
    net, other = Net(seed, (4, 3, 2)), Net(seed, (4, 3, 2))
    w, s = net.array(5, 4, 3, 2), scales(net, 5)
    y = net.node("conv2d", (0, net.constant(w, s, 0)), 0.6, 5, **window())
    net.node("reshape", (y,), 0.6, 5, shape=(1, 5))
    other.node("fully_connected", (0, other.constant(w.reshape(5, 24), s, 0)), 0.6, 5, clamp=(-128, 127))
    return net.graph(), other.graph()


def dilation_is_a_kernel_with_holes(seed: int) -> Pair:
    """Zeros between the taps."""
    net, other = Net(seed, (9, 8, 2)), Net(seed, (9, 8, 2))
    w, s = net.array(3, 3, 3, 2), scales(net, 3)
    holes = np.zeros((3, 5, 5, 2), np.int8)
    holes[:, ::2, ::2] = w
    padding = (2, 1, 0, 3)
    net.node("conv2d", (0, net.constant(w, s, 0)), 0.5, 0, **window(1 + seed % 2, 2, padding))
    other.node("conv2d", (0, other.constant(holes, s, 0)), 0.5, 0, **window(1 + seed % 2, 1, padding))
    return net.graph(), other.graph()


def stride_skips_outputs(seed: int) -> Pair:
    """Stride 2 gives every second output: a pool of 1x1 with stride 2 picks them from stride 1."""
    net, other = Net(seed, (8, 7, 2)), Net(seed, (8, 7, 2))
    w, s = net.array(4, 3, 3, 2), scales(net, 4)
    net.node("conv2d", (0, net.constant(w, s, 0)), 0.5, 1, **window(2, padding=(1, 1, 1, 1)))
    y = other.node("conv2d", (0, other.constant(w, s, 0)), 0.5, 1, **window(1, padding=(1, 1, 1, 1)))
    pick = {"kernel": (1, 1), "stride": (2, 2), "padding": (0, 0, 0, 0), "clamp": (-128, 127)}
    other.node("max_pool2d", (y,), 0.5, 1, **pick)
    return net.graph(), other.graph()


def larger_kernel_replaces_padding(seed: int) -> Pair:
    """Zero taps around a kernel do nothing but move the padding."""
    net, other = Net(seed, (5, 6, 2), -128), Net(seed, (5, 6, 2), -128)
    w, s = net.array(3, 3, 3, 2), scales(net, 3)
    wide = np.pad(w, ((0, 0), (1, 1), (1, 1), (0, 0)))
    net.node("conv2d", (0, net.constant(w, s, 0)), 0.5, 1, **window(1, padding=(1, 1, 1, 1)))
    other.node("conv2d", (0, other.constant(wide, s, 0)), 0.5, 1, **window(1, padding=(2, 2, 2, 2)))
    return net.graph(), other.graph()


def bias_is_a_constant_channel(seed: int) -> Pair:
    """A bias of n times the zero point's distance is a weight on a pixel that is always the zero point plus one: here the
    other way round, the zero point moved by one changes every sum by the sum of the weights."""
    net, other = Net(seed, (4, 4, 3), 10), Net(seed, (4, 4, 3), 11)
    w, s = net.array(5, 1, 1, 3), scales(net, 5)
    b = net.rng.integers(-2000, 2000, 5)
    net.node("conv2d", (0, net.constant(w, s, 0), net.bias(b)), 0.5, 1, **window())
    moved = b + w.astype(np.int64).sum((1, 2, 3))
    other.node("conv2d", (0, other.constant(w, s, 0), other.bias(moved)), 0.5, 1, **window())
    return net.graph(), other.graph()


def one_scale_for_all_is_many_equal_ones(seed: int) -> Pair:
    net, other = Net(seed, (4, 4, 3)), Net(seed, (4, 4, 3))
    w = net.array(5, 3, 3, 3)
    net.node("conv2d", (0, net.constant(w, np.full(1, 0.013), None)), 0.5, 1, **window())
    other.node("conv2d", (0, other.constant(w, np.full(5, 0.013), 0)), 0.5, 1, **window())
    return net.graph(), other.graph()


def relu_behind_is_the_clamp_within(seed: int) -> Pair:
    """A relu that keeps the scale does what the fused clamp does."""
    net, other = Net(seed, (5, 5, 2)), Net(seed, (5, 5, 2))
    w, s = net.array(4, 3, 3, 2), scales(net, 4)
    y = net.node("conv2d", (0, net.constant(w, s, 0)), 0.5, -10, **window())
    net.node("relu", (y,), 0.5, -10, clamp=(-10, 60))
    other.node("conv2d", (0, other.constant(w, s, 0)), 0.5, -10, **{**window(), "clamp": (-10, 60)})
    return net.graph(), other.graph()


def max_pools_follow_each_other(seed: int) -> Pair:
    """Two 2x2 maxima with stride 1 are one of 3x3."""
    net, other = Net(seed, (7, 6, 3)), Net(seed, (7, 6, 3))
    pool = {"stride": (1, 1), "padding": (0, 0, 0, 0), "clamp": (-128, 127)}
    y = net.node("max_pool2d", (0,), 0.05, -20, kernel=(2, 2), **pool)
    net.node("max_pool2d", (y,), 0.05, -20, kernel=(2, 2), **pool)
    other.node("max_pool2d", (0,), 0.05, -20, kernel=(3, 3), **pool)
    return net.graph(), other.graph()


def a_pool_of_rows_and_columns(seed: int) -> Pair:
    """The maximum over a square is the maximum over columns of the maxima over rows, at padded edges too."""
    net, other = Net(seed, (6, 7, 2)), Net(seed, (6, 7, 2))
    y = net.node("max_pool2d", (0,), 0.05, -20, kernel=(3, 1), stride=(2, 1), padding=(1, 1, 0, 0), clamp=(-128, 127))
    net.node("max_pool2d", (y,), 0.05, -20, kernel=(1, 3), stride=(1, 2), padding=(0, 0, 1, 1), clamp=(-128, 127))
    other.node("max_pool2d", (0,), 0.05, -20, kernel=(3, 3), stride=(2, 2), padding=(1, 1, 1, 1), clamp=(-128, 127))
    return net.graph(), other.graph()


def average_of_the_image_is_the_mean_where_it_divides(seed: int) -> Pair:
    """16 pixels at one scale: both round sums of sixteenths; only exact halves may differ, so the inputs are even."""
    net, other = Net(seed, (4, 4, 5), 0), Net(seed, (4, 4, 5), 0)
    whole = {"kernel": (4, 4), "stride": (1, 1), "padding": (0, 0, 0, 0), "clamp": (-128, 127)}
    net.node("average_pool2d", (0,), 0.05, 0, **whole)
    other.node("mean", (0,), 0.05, 0, axes=(1, 2), keep_dims=1)
    return net.graph(), other.graph()


def mean_by_a_convolution_of_ones(seed: int) -> Pair:
    """Weights of 1 and a scale of 1 / 8: a power of two, so that both factors are the same Q31 number."""
    net, other = Net(seed, (2, 4, 1), 7), Net(seed, (2, 4, 1), 7)
    w = np.ones((1, 2, 4, 1), np.int8)
    y = net.node("conv2d", (0, net.constant(w, np.full(1, 1 / 8), None)), 0.05, -3, **window())
    net.node("reshape", (y,), 0.05, -3, shape=(1, 1))
    other.node("mean", (0,), 0.05, -3, axes=(1, 2), keep_dims=0)
    return net.graph(), other.graph()


def reshape_and_back(seed: int) -> Pair:
    net, other = Net(seed, (4, 3, 2)), Net(seed, (4, 3, 2))
    y = net.node("reshape", (0,), 0.05, -20, shape=(1, 24))
    z = net.node("reshape", (y,), 0.05, -20, shape=(1, 4, 3, 2))
    net.node("relu", (z,), 0.03, 2, clamp=(0, 127))
    other.node("relu", (0,), 0.03, 2, clamp=(0, 127))
    return net.graph(), other.graph()


def softmax_of_shifted_scores(seed: int) -> Pair:
    """Only distances count: the zero point is of no account."""
    net, other = Net(seed, (1, 1, 9), -50), Net(seed, (1, 1, 9), 90)
    net.node("softmax", (0,), 1 / 256, -128, beta=1.0)
    other.node("softmax", (0,), 1 / 256, -128, beta=1.0)
    return net.graph(), other.graph()


IDENTITIES: tuple[Callable[[int], Pair], ...] = (
    depthwise_is_a_sparse_convolution,
    pointwise_is_fully_connected,
    kernel_of_the_image_is_fully_connected,
    dilation_is_a_kernel_with_holes,
    stride_skips_outputs,
    larger_kernel_replaces_padding,
    bias_is_a_constant_channel,
    one_scale_for_all_is_many_equal_ones,
    relu_behind_is_the_clamp_within,
    max_pools_follow_each_other,
    a_pool_of_rows_and_columns,
    average_of_the_image_is_the_mean_where_it_divides,
    mean_by_a_convolution_of_ones,
    reshape_and_back,
    softmax_of_shifted_scores,
)


def image_for(graph: Graph, identity: Callable[[int], Pair], seed: int) -> np.ndarray:
    image = np.random.default_rng(seed).integers(-128, 128, graph.tensors[0].shape).astype(np.int8)
    if identity is average_of_the_image_is_the_mean_where_it_divides:
        image = (image // 16 * 16).astype(np.int8)
    return image


def case_of(identity: Callable[[int], Pair], seed: int, side: int) -> Case:
    graph = identity(seed)[side]
    image = image_for(graph, identity, seed)
    return Case(f"{identity.__name__} {seed} {side}", graph, ((image,),), ((simulate(graph, image)[0],),))


@pytest.mark.parametrize("identity", IDENTITIES, ids=lambda identity: identity.__name__)
def test_simulator(identity: Callable[[int], Pair]) -> None:
    for seed in SEEDS:
        one, other = (case_of(identity, seed, side).answers[0][0] for side in range(2))
        assert np.array_equal(one.reshape(-1), other.reshape(-1))
        assert len(np.unique(one)) > 1 or one.size == 1


def test_generated_c(tmp_path_factory: pytest.TempPathFactory) -> None:
    cases = [case_of(identity, seed, side) for identity in IDENTITIES for seed in SEEDS for side in range(2)]
    bundle = Bundle(tmp_path_factory.mktemp("identities"), cases)
    found = bundle.run_host(bundle.host_program(host_toolchain()))
    for case, outputs in zip(cases, found, strict=True):
        assert differences(case, outputs) == ""
    for one, other in zip(found[::2], found[1::2], strict=True):
        assert one[0][0].tobytes() == other[0][0].tobytes()
