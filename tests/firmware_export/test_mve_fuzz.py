"""Random layers through the kernels for Helium: sizes, windows, scales, clamps and places that nobody has thought of."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from firmware_builder import COMPILER
from kernel_harness.machine import has_qemu
from kernel_harness.program import Case
from mve_checks import assert_right_on_host, moved, vector_graph, wrong_on_m55
from packed_cases import packed_case, random_input, trained_layer

from firmware_export.graph import Graph, GraphError, Node
from firmware_export.packing import Unpackable
from firmware_export.packing.conv2d_mve import conv2d_layer
from firmware_export.packing.depthwise_mve import depthwise_layer
from firmware_export.packing.fully_connected_mve import fully_connected_layer

Make = Callable[[np.random.Generator], Case]


def zero_points(rng: np.random.Generator) -> tuple[int, int]:
    """Often behind a ReLU, as in trained networks."""
    return int(rng.integers(-128, 128)), -128 if rng.random() < 0.5 else int(rng.integers(-128, 128))


def clamped(rng: np.random.Generator, graph: Graph) -> Graph:
    """With a clamp of its own in half of the cases, at the zero point of the output or anywhere."""
    node = graph.nodes[0]
    quantization = graph.tensors[node.outputs[0]].quantization
    assert quantization is not None
    if rng.random() < 0.5:
        low = int(quantization.zero_point[0]) if rng.random() < 0.5 else int(rng.integers(-128, 100))
        clamp = (low, int(rng.integers(low, 128)))
        graph.nodes[0] = Node(node.op, node.inputs, node.outputs, {**node.attributes, "clamp": clamp})
    return graph


def convolution(rng: np.random.Generator) -> Case:
    kernel = (int(rng.integers(1, 6)), int(rng.integers(1, 6))) if rng.random() < 0.6 else (1, 1)
    channels = int(rng.choice([1, 2, 3, 8, 15, 16, 17, 32, 48, 64])) if rng.random() < 0.7 else int(rng.integers(1, 80))
    size = (int(rng.integers(1, 13)), int(rng.integers(1, 13)), channels)
    graph = trained_layer(
        rng, "conv2d", size, (int(rng.integers(1, 34)), *kernel, channels),
        stride=(int(rng.integers(1, 4)), int(rng.integers(1, 4))), same=bool(rng.random() < 0.7),
        zero_points=zero_points(rng), deviation=float(np.exp2(rng.uniform(-2, 15))),
    )  # fmt: skip
    return moved(rng, packed_case(clamped(rng, graph), conv2d_layer, random_input(rng, graph)))


def depthwise(rng: np.random.Generator) -> Case:
    size = (int(rng.integers(1, 20)), int(rng.integers(1, 20)), int(rng.integers(1, 40)))
    kernel = (3, 3) if rng.random() < 0.6 else (int(rng.integers(1, 4)), int(rng.integers(1, 4)))
    stride = (1, 1) if rng.random() < 0.5 else (int(rng.integers(1, 4)), int(rng.integers(1, 4)))
    graph = trained_layer(
        rng, "depthwise_conv2d", size, (1, *kernel, size[2]), stride=stride, same=bool(rng.random() < 0.7),
        zero_points=zero_points(rng), deviation=float(np.exp2(rng.uniform(-2, 11))),
    )  # fmt: skip
    return moved(rng, packed_case(clamped(rng, graph), depthwise_layer, random_input(rng, graph)))


def vector(rng: np.random.Generator) -> Case:
    depth, outputs, batches = int(rng.integers(1, 300)), int(rng.integers(1, 60)), int(rng.integers(1, 4))
    graph = vector_graph(rng, depth, outputs, batches=batches, zero_point=zero_points(rng)[1])
    return moved(rng, packed_case(clamped(rng, graph), fully_connected_layer, random_input(rng, graph)))


def cases(kind: Make, count: int, seed: int) -> dict[str, Case]:
    """Layers that exist and can be packed."""
    rng = np.random.default_rng(seed)
    found: dict[str, Case] = {}
    while len(found) < count:
        try:
            case = kind(rng)
        except (Unpackable, GraphError):
            continue
        found[f"{len(found)}: {case.code.summary} at {case.places()}"] = case
    return found


def check(found: dict[str, Case]) -> None:
    assert_right_on_host(found)
    if not has_qemu():
        pytest.skip("qemu-system-arm is not installed: only the C form was tried")
    assert wrong_on_m55(found, COMPILER) == []


KINDS = [convolution, depthwise, vector]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_some(kind: Make) -> None:
    check(cases(kind, 40, 1))


@pytest.mark.long
@pytest.mark.parametrize("seed", range(2, 12))
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_many(kind: Make, seed: int) -> None:
    check(cases(kind, 150, seed))
