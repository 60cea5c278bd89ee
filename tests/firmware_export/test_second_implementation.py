"""The simulator and the C against plain loops, above all where no outside runtime can tell."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from bundle import Bundle
from example_cases import Case, cases_of, differences, random_values
from graph_builder import Build
from second_implementation import IMPLEMENTATIONS, compute, divide_by_power, doubling_high_mul, exp_on_negative, reciprocal

from firmware_export.graph import Graph, Node, Quantization, Tensor
from firmware_export.operators import operator_of, registry
from firmware_export.operators._fixed_point import exp_of_negative, reciprocal_of_one_plus, saturating_shift
from firmware_export.simulate import simulate
from firmware_export.toolchain import host_toolchain


def test_every_operator_is_there() -> None:
    assert IMPLEMENTATIONS.keys() == registry().keys()


@pytest.mark.parametrize("name", sorted(registry()))
def test_examples(name: str) -> None:
    """One vector of each example."""
    for case in cases_of(name):
        one = replace(case, vectors=case.vectors[:1], answers=case.answers[:1])
        assert differences(one, [tuple(compute(case.graph, list(case.vectors[0])))]) == ""


def random_case(label: str, graph: Graph, seed: int = 0, vectors: int = 2) -> Case:
    rng = np.random.default_rng(seed)
    tensors = [graph.tensors[index] for index in graph.inputs]
    inputs = tuple(tuple(random_values(tensor, rng) for tensor in tensors) for _ in range(vectors))
    return Case(label, graph, inputs, tuple(tuple(simulate(graph, *vector)) for vector in inputs))


def one_node(op: str, tensors: list[Tensor], inputs: tuple[int, ...], **attributes: Any) -> Graph:
    """A node that reads some tensors and writes the last one, whose shape is inferred."""
    node = Node(op, inputs, (len(tensors) - 1,), attributes)
    edges = tuple(i for i in inputs if i >= 0 and not tensors[i].is_constant)
    graph = Graph(tensors, [node], edges, node.outputs)
    graph.tensors[-1] = replace(tensors[-1], shape=operator_of(node).infer(graph, node)[0].shape)
    return graph


def activation(shape: tuple[int, ...], scale: float = 0.05, zero_point: int = 0) -> Tensor:
    return Tensor("t", shape, "int8", Quantization.per_tensor(scale, zero_point))


def constant(array: np.ndarray, scale: float = 0.01) -> Tensor:
    return Tensor("c", array.shape, str(array.dtype), Quantization.per_tensor(scale, 0), array)


def padded_average_pools() -> list[Case]:
    """Padding that is neither SAME nor VALID: TFLite cannot say it."""
    cases = []
    for seed, padding in enumerate([(1, 0, 0, 0), (0, 1, 2, 0), (2, 2, 1, 1), (0, 0, 0, 2)]):
        x = activation((1, 5, 6, 2), zero_point=seed - 3)
        attributes = {"kernel": (3, 3), "stride": (1 + seed % 2, 1), "padding": padding, "clamp": (-100, 100)}
        cases.append(
            random_case(f"average pool {padding}", one_node("average_pool2d", [x, replace(x)], (0,), **attributes), seed)
        )
    return cases


def large_average_pools() -> list[Case]:
    """Counts on both sides of the largest one with a reciprocal, 360."""
    cases = []
    for kernel in ((18, 20), (19, 19), (20, 20), (40, 30)):
        x = activation((1, kernel[0] + 1, kernel[1], 2))
        attributes = {"kernel": kernel, "stride": (1, 1), "padding": (0, 0, 0, 0), "clamp": (-128, 127)}
        cases.append(random_case(f"average of {kernel}", one_node("average_pool2d", [x, replace(x)], (0,), **attributes)))
    return cases


def free_clamps() -> list[Case]:
    """Clamps that no fused activation of TFLite gives."""
    cases = []
    weights = np.random.default_rng(1).integers(-127, 128, (4, 3, 3, 2)).astype(np.int8)
    for clamp in ((-50, 50), (7, 7), (-128, -128), (127, 127), (-1, 126)):
        tensors = [activation((1, 5, 5, 2), 0.05, 3), constant(weights), activation((), 0.5, -2)]
        attributes = {"stride": (1, 1), "dilation": (1, 1), "padding": (1, 1, 1, 1), "clamp": clamp}
        cases.append(random_case(f"clamp {clamp}", one_node("conv2d", tensors, (0, 1), **attributes)))
        tensors = [activation((1, 5, 5, 2), 0.05, 3), activation((), 0.04, 9)]
        cases.append(
            random_case(f"mean, clamp {clamp}", one_node("mean", tensors, (0,), axes=(1, 2), keep_dims=1, clamp=clamp))
        )
        cases.append(
            random_case(f"relu, clamp {clamp}", one_node("relu", [tensors[0], activation((), 0.04, 9)], (0,), clamp=clamp))
        )
    return cases


def overflowing_sums() -> list[Case]:
    """Biases at the ends of int32: the sums wrap around in every implementation."""
    cases = []
    for bias in (2**31 - 1, -(2**31), 2**31 - 5000):
        weights = np.random.default_rng(2).integers(-127, 128, (6, 12)).astype(np.int8)
        tensors = [
            activation((1, 12), 0.05, 100),
            constant(weights),
            constant(np.full(6, bias, np.int32), 0.0005),
            activation((), 4e3),
        ]
        cases.append(random_case(f"bias {bias}", one_node("fully_connected", tensors, (0, 1, 2), clamp=(-128, 127)), vectors=4))
    return cases


def long_softmax_rows() -> list[Case]:
    """More than 511 nearly equal elements: the reference shifts by more than 31 bits, which C leaves undefined."""
    cases = []
    for depth in (511, 512, 513, 1000, 4095):
        graph = one_node("softmax", [activation((1, depth), 1e-4), activation((), 1 / 256, -128)], (0,), beta=1.0)
        cases.append(random_case(f"softmax of {depth}", graph))
    return cases


def one_channel_depthwise() -> list[Case]:
    """Emitted as an ordinary convolution."""
    cases = []
    for multiplier in (1, 2, 5, 8):
        weights = np.random.default_rng(multiplier).integers(-127, 128, (1, 3, 2, multiplier)).astype(np.int8)
        tensors = [activation((1, 6, 5, 1), 0.05, -128), constant(weights), activation((), 1.0)]
        attributes = {"stride": (2, 1), "dilation": (1, 2), "padding": (1, 0, 1, 1), "clamp": (-128, 127)}
        cases.append(random_case(f"one channel x {multiplier}", one_node("depthwise_conv2d", tensors, (0, 1), **attributes)))
    return cases


def means_over_other_axes() -> list[Case]:
    cases = []
    for axes in ((0,), (0, 1), (0, 1, 2, 3), (2,), (2, 3), (3,)):
        tensors = [activation((1, 3, 4, 5), 0.05, 7), activation((), 0.03, -5)]
        cases.append(random_case(f"mean over {axes}", one_node("mean", tensors, (0,), axes=axes, keep_dims=0)))
    return cases


def whole_nets() -> list[Case]:
    cases = []
    for seed in range(6):
        build = Build(seed)
        x = build.activation((1, 7, 6, 2), 0.03, (-128, 127, 0)[seed % 3])
        y = build.conv(x, 5, stride=1 + seed % 2)
        z = build.conv(build.conv(y, 5, clamp=(-3, 127)), 5)
        y = build.node("add", (y, z), build.activation(build.tensors[y].shape, 2.0, -7), clamp=(-128, 127))
        y = build.relu(y, (-7, 100))
        _, h, w, c = build.tensors[y].shape
        y = build.fully_connected(build.reshape(y, (1, h * w * c)), 6)
        cases.append(random_case(f"net {seed}", build.graph(x, y), seed))
    return cases


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    makers = (
        padded_average_pools, large_average_pools, free_clamps, overflowing_sums, long_softmax_rows, one_channel_depthwise,
        means_over_other_axes, whole_nets,
    )  # fmt: skip
    return [case for maker in makers for case in maker()]


def test_simulator(cases: list[Case]) -> None:
    for case in cases:
        assert differences(case, [tuple(compute(case.graph, list(vector))) for vector in case.vectors]) == ""


def test_generated_c(cases: list[Case], tmp_path_factory: pytest.TempPathFactory) -> None:
    bundle = Bundle(tmp_path_factory.mktemp("second"), cases)
    for case, found in zip(cases, bundle.run_host(bundle.host_program(host_toolchain())), strict=True):
        assert differences(case, found) == ""


# The fixed-point functions


def test_exp_is_bit_equal_and_near() -> None:
    rng = np.random.default_rng(0)
    x = -np.unique(np.concatenate([rng.integers(0, 2**31, 3000), 2 ** np.arange(31), 2 ** np.arange(31) - 1, np.arange(300)]))
    found = exp_of_negative(x, 5)
    assert found.tolist() == [exp_on_negative(int(v)) for v in x]
    assert np.abs(found / 2.0**31 - np.exp(x / 2.0**26)).max() < 3e-7


def test_exp_never_grows_by_more_than_its_error() -> None:
    found = exp_of_negative(-np.arange(0, 2**27, 2**15, dtype=np.int64), 5)
    assert np.all(np.diff(found) <= 2)
    assert found[0] == 2**31 - 1 and found.min() >= 0


def test_reciprocal_is_bit_equal_and_near() -> None:
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.integers(0, 2**31, 3000), 2 ** np.arange(31), [0, 2**31 - 1]])
    found = reciprocal_of_one_plus(x)
    assert found.tolist() == [reciprocal(int(v)) for v in x]
    assert np.abs(found / 2.0**31 - 1 / (1 + x / 2.0**31)).max() < 1e-7


def test_shifts_saturate() -> None:
    values = np.array([0, 1, -1, 2**28, -(2**28), 2**29 - 1, 2**29, -(2**29), -(2**29) - 1, 2**31 - 1, -(2**31)])
    expected = [max(-(2**31), min(2**31 - 1, int(v) * 4)) for v in values]
    assert saturating_shift(values, 2).tolist() == expected


@pytest.mark.parametrize(
    ("a", "b"), [(2**30, 2**30), (-(2**30), 2**30), (2**31 - 1, 2**31 - 1), (-(2**31), 2**31 - 1), (-1, 2**30), (1, 2**30)]
)
def test_high_mul_is_near_the_quotient(a: int, b: int) -> None:
    assert abs(doubling_high_mul(a, b) - a * b / 2**31) <= 0.5


def test_division_is_near_the_quotient() -> None:
    for x in (-9, -8, -7, 7, 8, 9, 2**31 - 1, -(2**31)):
        for exponent in range(32):
            assert abs(divide_by_power(x, exponent) - x / 2**exponent) <= 0.5
