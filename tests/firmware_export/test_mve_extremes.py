"""Kernels for Helium at the ends of what they take: largest sums, every alignment, deep and wide layers, single pixels."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
from firmware_builder import COMPILER
from kernel_harness.program import GUARD, Case
from mve_checks import assert_right_on_host, needs_qemu, vector_graph, wrong_on_m55
from packed_cases import packed_case, random_input, trained_layer

from firmware_export.graph import Graph, Quantization, Tensor
from firmware_export.operators import _examples as make
from firmware_export.packing import Unpackable
from firmware_export.packing.add_mve import add_layer
from firmware_export.packing.conv2d_mve import conv2d_layer
from firmware_export.packing.depthwise_mve import depthwise_layer
from firmware_export.packing.fully_connected_mve import fully_connected_layer
from firmware_export.requantize import MAX_SHIFT
from firmware_export.simulate import simulate

LAYERS = {
    "conv2d": ((4, 5, 16), (9, 3, 3, 16), conv2d_layer),
    "conv2d, copied": ((4, 5, 3), (9, 3, 3, 3), conv2d_layer),
    "conv2d, pointwise": ((3, 5, 40), (8, 1, 1, 40), conv2d_layer),
    "depthwise_conv2d": ((5, 4, 18), (1, 3, 3, 18), depthwise_layer),
    "fully_connected": ((1, 1, 200), (17, 200), fully_connected_layer),
}


def with_weights(graph: Graph, data: np.ndarray) -> Graph:
    graph.tensors[1] = replace(graph.tensors[1], data=data.astype(np.int8))
    return graph


def layer(rng: np.random.Generator, name: str, zero_points: tuple[int, int]) -> Graph:
    size, weights, _ = LAYERS[name]
    if name == "fully_connected":
        return vector_graph(rng, weights[1], weights[0], zero_point=zero_points[1])
    return trained_layer(rng, name.split(",")[0], size, weights, zero_points=zero_points, deviation=3)


def extreme_cases() -> dict[str, Case]:
    """All weights and inputs at one end, in all combinations, and ends at random."""
    rng = np.random.default_rng(120)
    found = {}
    for name, (_, weights_shape, packer) in LAYERS.items():
        for zero_points in ((-128, -128), (127, -128), (0, 3)):
            for weight, value in itertools.product((-128, 127, None), (-128, 127, None)):
                graph = layer(rng, name, zero_points)
                data = rng.choice([-128, 127], weights_shape) if weight is None else np.full(weights_shape, weight)
                shape = graph.tensors[graph.inputs[0]].shape
                x = rng.choice([-128, 127], shape) if value is None else np.full(shape, value)
                case = packed_case(with_weights(graph, data), packer, (x.astype(np.int8),))
                found[f"{name} {zero_points} weights {weight} inputs {value}"] = case
    return found


@needs_qemu
def test_largest_sums_on_a_cortex_m55() -> None:
    assert wrong_on_m55(extreme_cases(), COMPILER) == []


def test_largest_sums_on_the_host() -> None:
    assert_right_on_host(extreme_cases())


def aligned_cases() -> dict[str, Case]:
    """Input and output at every place relative to 16, each a few times."""
    rng = np.random.default_rng(121)
    found = {}
    for name, (_, _, packer) in LAYERS.items():
        for offset in range(16):
            graph = layer(rng, name, (-128, -128))
            case = packed_case(graph, packer, random_input(rng, graph))
            begin = GUARD + offset
            output = -(-(begin + case.inputs[0].size + GUARD) // 16) * 16 + (5 * offset + 3) % 16
            scratch = -(-(output + case.expected.size + GUARD) // 16) * 16
            found[f"{name} at {offset}"] = Case(case.code, case.inputs, case.expected, (begin, output, scratch))
    return found


@needs_qemu
def test_every_alignment() -> None:
    """Vector loads of bytes take any address; those of words, of records and strips, must not see an odd one."""
    assert wrong_on_m55(aligned_cases(), COMPILER) == []


def large_cases() -> dict[str, Case]:
    rng = np.random.default_rng(122)
    found = {}
    for size, weights in (((1, 2, 2000), (3, 1, 1, 2000)), ((3, 3, 130), (5, 3, 3, 130)), ((1, 3, 5), (300, 1, 1, 5))):
        graph = trained_layer(rng, "conv2d", size, weights)
        found[f"conv2d {size} {weights}"] = packed_case(graph, conv2d_layer, random_input(rng, graph))
    for size in ((2, 2, 700), (3, 300, 2), (300, 3, 2)):
        graph = trained_layer(rng, "depthwise_conv2d", size, (1, 3, 3, size[2]))
        found[f"depthwise {size}"] = packed_case(graph, depthwise_layer, random_input(rng, graph))
    for depth, outputs in ((5000, 9), (3, 1000)):
        graph = vector_graph(rng, depth, outputs)
        found[f"{depth} -> {outputs}"] = packed_case(graph, fully_connected_layer, random_input(rng, graph))
    return found


@needs_qemu
def test_large_layers() -> None:
    assert wrong_on_m55(large_cases(), COMPILER) == []
    assert_right_on_host(large_cases())


def factor_graph(rng: np.random.Generator, ratio: float, zero_point: int) -> Graph:
    """A vector of 20 to 9 whose sums are multiplied by about `ratio`."""
    x = make.activation((1, 20), Quantization.per_tensor(0.5, 3))
    data = rng.integers(-20, 21, (9, 20)).astype(np.int8)
    weights = Tensor("w", (9, 20), "int8", Quantization(np.full(9, 0.5, np.float32), np.zeros(9, np.int64), 0), data)
    y = Quantization.per_tensor(float(np.float32(0.25 / ratio)), zero_point)
    return make.single_node(
        "fully_connected", (x, weights, make.random_bias(rng, x, weights, 9, 100)), y, {"clamp": (-128, 127)}
    )


@needs_qemu
def test_factors_of_every_size() -> None:
    """From nothing left of the sums to left shifts; those that may leave int32 are refused, not wrong."""
    rng = np.random.default_rng(123)
    found, refused = {}, []
    for exponent in range(-33, MAX_SHIFT):
        for zero_point in (-128, 0, 127):
            graph = factor_graph(rng, 1.3 * 2.0**exponent, zero_point)
            try:
                found[f"2^{exponent} {zero_point}"] = packed_case(graph, fully_connected_layer, random_input(rng, graph))
            except Unpackable:
                refused.append(exponent)
    assert wrong_on_m55(found, COMPILER) == []
    assert_right_on_host(found)
    assert min(refused) > 8, "32767 << 8 fits int32"


@needs_qemu
def test_sums_of_many_scales() -> None:
    """Elementwise sums whose sides differ by powers of two and odd factors."""
    rng = np.random.default_rng(124)
    found = {}
    for ratio, out in itertools.product((0.01, 0.3, 1.0, 2.7, 60.0), (0.4, 1.0, 3.1)):
        quantizations = [Quantization.per_tensor(float(np.float32(s)), int(rng.integers(-128, 128))) for s in (1.0, ratio, out)]
        sides = (make.activation((1, 333), quantizations[0], "a"), make.activation((1, 333), quantizations[1], "b"))
        graph = make.single_node("add", sides, quantizations[2], {"clamp": (-128, 127)})
        inputs = random_input(rng, graph)
        try:
            found[f"{ratio} {out}"] = Case(add_layer(graph, graph.nodes[0]), inputs, simulate(graph, *inputs)[0])
        except Unpackable:
            continue
    assert len(found) > 5
    assert wrong_on_m55(found, COMPILER) == []
