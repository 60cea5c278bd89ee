"""Whole networks exported for Cortex-M3 and M0+: their kernels in one planned buffer, overlapping as the kernels allow."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from packed_cases import trained_weights
from plain_core_cases import CORES

from firmware_export.emit import emit
from firmware_export.geometry import same_padding
from firmware_export.graph import Graph, Node, Quantization, Tensor
from firmware_export.hostlib import HostNetwork
from firmware_export.passes import simplify
from firmware_export.plan import Plan, plan
from firmware_export.read_tflite import read_tflite
from firmware_export.simulate import simulate_trace
from firmware_export.target import GOALS, Target


def convolution(
    rng: np.random.Generator, tensors: list[Tensor], op: str, source: int, outputs: int, kernel: int, stride: int
) -> Node:
    """Adds a convolution behind the tensor `source`, with weights like trained ones and a ReLU."""
    x = tensors[source]
    channels = x.shape[3]
    shape = (1, kernel, kernel, channels) if op == "depthwise_conv2d" else (outputs, kernel, kernel, channels)
    axis = 3 if op == "depthwise_conv2d" else 0
    weights = trained_weights(rng, shape, axis)
    assert weights.quantization is not None
    bias_scale = (0.02 * weights.quantization.scale).astype(np.float32)
    bias = rng.integers(-2000, 2000, outputs).astype(np.int32)
    bias_quantization = Quantization(bias_scale, np.zeros(outputs, np.int64), 0)
    size = tuple(-(-x.shape[i] // stride) for i in (1, 2))
    first = len(tensors)
    tensors += [
        weights,
        Tensor("bias", (outputs,), "int32", bias_quantization, bias),
        Tensor(f"y{first}", (1, *size, outputs), "int8", Quantization.per_tensor(0.02, -128), None),
    ]
    padding = same_padding(x.shape[1:3], (kernel, kernel), (stride, stride))
    attributes = {"stride": (stride, stride), "dilation": (1, 1), "padding": padding, "clamp": (-128, 127)}
    return Node(op, (source, first, first + 1), (first + 2,), attributes)


@cache
def small_network() -> Graph:
    """Convolutions of every kind one behind the other."""
    rng = np.random.default_rng(150)
    tensors = [Tensor("x", (1, 13, 14, 3), "int8", Quantization.per_tensor(0.02, -128), None)]
    nodes = []
    for op, outputs, kernel, stride in (
        ("conv2d", 8, 3, 2), ("depthwise_conv2d", 8, 3, 1), ("conv2d", 16, 1, 1), ("depthwise_conv2d", 16, 3, 2),
        ("conv2d", 12, 1, 1), ("conv2d", 7, 3, 1),
    ):  # fmt: skip
        source = nodes[-1].outputs[0] if nodes else 0
        nodes.append(convolution(rng, tensors, op, source, outputs, kernel, stride))
    return Graph(tensors=tensors, nodes=nodes, inputs=(0,), outputs=(nodes[-1].outputs[0],))


def network(graph: Graph, made: Plan, folder: Path) -> HostNetwork:
    for name, text in emit(graph, made, selftest=False).items():
        (folder / name).write_text(text)
    return HostNetwork(folder, optimize="2")


def assert_same(graph: Graph, made: Plan, folder: Path, count: int = 3) -> None:
    rng = np.random.default_rng(151)
    built = network(graph, made, folder)
    for _ in range(count):
        inputs = [rng.integers(-128, 128, graph.tensors[index].shape).astype(np.int8) for index in graph.inputs]
        answers = simulate_trace(graph, *inputs)[-1]
        np.testing.assert_array_equal(np.asarray(built.run(*inputs)[0]).reshape(-1), answers[0].reshape(-1))


@pytest.mark.parametrize("goal", GOALS)
@pytest.mark.parametrize("core_class", CORES)
def test_small_network(core_class: str, goal: str, tmp_path: Path) -> None:
    graph = small_network()
    made = plan(graph, Target(core_class, goal))
    functions = {code.function for code in made.codes}
    assert any("conv2d_trio" in function for function in functions)
    assert goal == "ram" or any("depthwise_trio" in function for function in functions)
    assert_same(graph, made, tmp_path)


@pytest.mark.parametrize("name, most", [("kws_ref_model", 16_000), ("ad01_int8", 3_400)])
@pytest.mark.parametrize("core_class", CORES)
def test_reference_models(name: str, most: int, core_class: str, shared_data: Path, tmp_path: Path) -> None:
    """The buffer, scratch included, is small: layers write over their inputs."""
    graph = simplify(read_tflite(shared_data / "mlperf_tiny_models" / f"{name}.tflite"))
    made = plan(graph, Target(core_class, "balanced"))
    assert made.size <= most
    assert_same(graph, made, tmp_path, 2)
