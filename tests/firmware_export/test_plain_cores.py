"""Which kernels Cortex-M3 and M0+ get, under every goal; other arithmetic; layers at the edges of what kernels take."""

from __future__ import annotations

import numpy as np
import pytest
from firmware_builder import COMPILER
from packed_cases import packed_case, random_input, trained_layer
from plain_core_cases import (
    CORES,
    conv2d_packer,
    depthwise_packer,
    fails_on_host,
    fully_connected_packer,
    overlapped,
    vector_layer,
    wrong,
)

from firmware_export.graph import Graph, Quantization
from firmware_export.kernels import node_options
from firmware_export.operators import _examples as make
from firmware_export.packing import Unpackable
from firmware_export.packing.plain_cores import OWN_DEPTHWISE, PACKERS, own_depthwise
from firmware_export.target import GOALS, Target

each_core = pytest.mark.parametrize("core_class", CORES)


def layers() -> dict[str, Graph]:
    """One of each kind that has a fast kernel."""
    rng = np.random.default_rng(160)
    sides = tuple(make.activation((1, 4, 4, 3), Quantization.per_tensor(0.03, 3), name) for name in "ab")
    pooled = make.activation((1, 5, 5, 8), Quantization.per_tensor(0.03, 3))
    window = {"kernel": (5, 5), "stride": (1, 1), "padding": (0, 0, 0, 0), "clamp": (-128, 127)}
    return {
        "conv2d": trained_layer(rng, "conv2d", (6, 7, 4), (5, 3, 3, 4)),
        "depthwise_conv2d": trained_layer(rng, "depthwise_conv2d", (6, 7, 4), (1, 3, 3, 4)),
        "fully_connected": vector_layer(rng, 20, 9),
        "add": make.single_node("add", sides, Quantization.per_tensor(0.039, -5), {"clamp": (-128, 127)}),
        "average_pool2d": make.single_node("average_pool2d", (pooled,), Quantization.per_tensor(0.03, 3), window),
    }


FAST = {
    "conv2d": {"v7m": "nn_conv2d_trio", "v6m": "nn_conv2d_trio_flipped"},
    "depthwise_conv2d": dict.fromkeys(CORES, "nn_depthwise_trio_linear"),
    "fully_connected": dict.fromkeys(CORES, "nn_fully_connected_octet_linear"),
    "add": dict.fromkeys(CORES, "nn_add_linear_signed"),
    "average_pool2d": {"v7m": "nn_average_pool2d_fast", "v6m": "nn_average_pool2d"},
}


@each_core
@pytest.mark.parametrize("goal", GOALS)
@pytest.mark.parametrize("op", FAST)
def test_the_fastest_kernel_is_the_first(op: str, goal: str, core_class: str) -> None:
    graph = layers()[op]
    options = node_options(graph, graph.nodes[0], Target(core_class, goal))
    assert options[0].function.removesuffix("_signed") == FAST[op][core_class].removesuffix("_signed")
    assert all(code.instructions > 0 for code in options)


@each_core
def test_a_depthwise_layer_can_do_without_scratch(core_class: str) -> None:
    """The planner may take the operator's own kernel where the planes do not fit."""
    graph = layers()["depthwise_conv2d"]
    fast, own = node_options(graph, graph.nodes[0], Target(core_class, "ram"))
    assert own.function == "nn_depthwise_conv2d"
    assert own.scratch_bytes < fast.scratch_bytes and own.instructions > fast.instructions
    macs = 6 * 7 * 4 * 9
    assert own_depthwise(graph, graph.nodes[0], core_class=core_class).instructions == OWN_DEPTHWISE[core_class] * macs


@each_core
def test_tables_hold_what_the_classes_can(core_class: str) -> None:
    assert set(FAST) - set(PACKERS[core_class]) == (set() if core_class == "v7m" else {"average_pool2d"})
    flipped = {code for code in ("nn_conv2d_trio_flipped",) if code == FAST["conv2d"][core_class]}
    assert bool(flipped) == (core_class == "v6m")


@each_core
@pytest.mark.parametrize("points", [(-128, -128), (7, 20)])
def test_the_other_arithmetic(core_class: str, points: tuple[int, int]) -> None:
    """float32: one rounding of the product with a real factor; the forms are proven against it."""
    rng = np.random.default_rng(161)
    graphs = {
        "3x3": (trained_layer(rng, "conv2d", (7, 8, 8), (6, 3, 3, 8), zero_points=points), conv2d_packer),
        "wide": (trained_layer(rng, "conv2d", (3, 4, 64), (5, 3, 3, 64), zero_points=points), conv2d_packer),
        "depthwise": (trained_layer(rng, "depthwise_conv2d", (9, 7, 5), (1, 3, 3, 5), zero_points=points), depthwise_packer),
        "vector": (vector_layer(rng, 77, 13, points), fully_connected_packer),
    }
    cases = {}
    for label, (graph, packer) in graphs.items():
        other = graph.with_arithmetic("float32")
        try:
            cases[label] = packed_case(other, packer(core_class), random_input(rng, other))
        except Unpackable:
            continue
    assert {"3x3", "depthwise"} <= set(cases)
    found = {label: case for label, case in cases.items() if "stage.output" not in case.code.fields}
    assert found
    assert wrong(found, core_class, COMPILER) == []
    assert not fails_on_host(list(found.values()))


@each_core
def test_output_directly_behind_and_before_the_input(core_class: str) -> None:
    """Buffers that touch, as a planner lays them."""
    rng = np.random.default_rng(162)
    graph = trained_layer(rng, "conv2d", (5, 9, 4), (7, 3, 3, 4))
    case = packed_case(graph, conv2d_packer(core_class), random_input(rng, graph))
    found = {f"{ahead}": overlapped(case, ahead) for ahead in (5 * 9 * 7, -5 * 9 * 4)}
    assert wrong(found, core_class, COMPILER) == []


SINGLE = {
    "one channel": ((8, 9, 1), (1, 3, 3, 1), (1, 1)),
    "one pixel, one tap": ((1, 1, 1), (1, 1, 1, 1), (1, 1)),
    "two channels, raw depth": ((3, 3, 2), (4, 1, 1, 2), (1, 1)),
    "kernel larger than the image": ((2, 2, 3), (2, 5, 5, 3), (1, 1)),
    "stride larger than the kernel": ((9, 25, 2), (3, 1, 2, 2), (2, 3)),
    "long row": ((1, 64, 2), (3, 1, 5, 2), (1, 1)),
    "tall image": ((64, 1, 2), (3, 5, 1, 2), (1, 1)),
    "many outputs": ((2, 3, 3), (67, 1, 1, 3), (1, 1)),
}


@each_core
def test_shapes_at_the_edges(core_class: str) -> None:
    rng = np.random.default_rng(163)
    cases = {}
    for label, (size, weights, stride) in SINGLE.items():
        for deviation in (60, 1e9):
            graph = trained_layer(rng, "conv2d", size, weights, stride=stride, zero_points=(-7, 12), deviation=deviation)
            cases[f"{label} {deviation}"] = packed_case(graph, conv2d_packer(core_class), random_input(rng, graph))
    assert {case.code.fields["form"] for case in cases.values()} >= {"1", "2"}
    assert wrong(cases, core_class, COMPILER) == []
    assert not fails_on_host(list(cases.values()))


@each_core
@pytest.mark.parametrize("kernel", [(3, 3), (3, 1), (1, 2)])
@pytest.mark.parametrize("dilation", [(1, 2), (2, 1), (3, 3)])
def test_dilation(core_class: str, dilation: tuple[int, int], kernel: tuple[int, int]) -> None:
    """In width the windows are copied, unless they are one pixel wide; in height they are read from the image."""
    rng = np.random.default_rng(164)
    graph = trained_layer(rng, "conv2d", (11, 13, 3), (4, *kernel, 3), same=False)
    node = graph.nodes[0]
    padding = (1, 0, 1, 2)
    node.attributes.update(dilation=dilation, padding=padding)
    output = graph.tensors[node.outputs[0]]
    reach = [(kernel[i] - 1) * dilation[i] for i in (0, 1)]
    shape = (1, 12 - reach[0], 16 - reach[1], 4)
    graph.tensors[node.outputs[0]] = make.Tensor(output.name, shape, output.dtype, output.quantization, None)
    case = packed_case(graph, conv2d_packer(core_class), random_input(rng, graph))
    assert int(case.code.fields["gathered"]) == (1 if dilation[1] > 1 and kernel[1] > 1 else 0)
    assert wrong({"dilated": case}, core_class, COMPILER) == []
    assert not fails_on_host([case])
