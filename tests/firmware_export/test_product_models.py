"""Whole models of the operators that sum products: an autoencoder, self-attention, a classifier of sequences.

Exported, compiled, run on this computer and on an emulated Cortex-M4; their answers are those of the simulator, TFLite Micro
and nearly onnxruntime's.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from bundle import Bundle, Emulator
from example_cases import Case, cases_of, differences
from graph_builder import Build, inputs_of
from oracles import onnx_stored, onnxruntime_session, tflite_micro
from qdq_builder import SUM_RMS, Qdq
from second_implementation import compute

from firmware_export.export import export_model
from firmware_export.graph import Graph
from firmware_export.hostlib import HostNetwork
from firmware_export.model_file import read_model
from firmware_export.passes import simplify
from firmware_export.simulate import simulate, simulate_trace
from firmware_export.target import Target
from firmware_export.toolchain import arm_toolchain
from firmware_export.write_tflite import write_tflite
from recipes.recipe import FirmwareExportSection

VECTORS = 4


def up(net: Qdq, x: str, channels: int, relu: bool) -> str:
    """ConvTranspose 4x4 that doubles height and width."""
    _, c, h, w = net.shapes[x]
    weights, scale = net.weights((c, channels, 4, 4), net.gain(x, 4 * c), axis=1)
    inputs = [x, weights, net.bias(channels, np.float32(net.scales[x][0]) * scale)]
    y = net.node("ConvTranspose", inputs, kernel_shape=[4, 4], strides=[2, 2], pads=[1, 1, 1, 1])
    y = net.clamped(y, "relu") if relu else y
    y = net.quantized(y, 5 * SUM_RMS / 255, -128 if relu else 2, (1, channels, 2 * h, 2 * w))
    net.rms[y] = SUM_RMS * (0.7 if relu else 1.0)
    return y


def autoencoder() -> onnx.ModelProto:
    """[1, 2, 8, 8] -> 3 channels of 2x2 -> [1, 2, 8, 8]."""
    net = Qdq((1, 2, 8, 8), seed=11)
    x = net.conv(net.input(), 4, stride=2, pads=(0, 0, 1, 1))
    x = net.conv(x, 3, stride=2, pads=(0, 0, 1, 1))
    return net.model(up(net, up(net, x, 4, relu=True), 2, relu=False))


def self_attention() -> onnx.ModelProto:
    """softmax(x x^T) x for two heads of [6, 4], then a sum with x."""
    net = Qdq((1, 2, 6, 4), seed=12)
    x = net.input()
    keys = net.same_scale("Transpose", x, (1, 2, 4, 6), perm=[0, 1, 3, 2])
    scores = net.quantized(net.node("MatMul", [x, keys]), 4 / 255, -128, (1, 2, 6, 6))
    shares = net.quantized(net.node("Softmax", [scores], axis=-1), 1 / 256, -128, (1, 2, 6, 6))
    mixed = net.quantized(net.node("MatMul", [shares, x]), 1 / 255, -128, (1, 2, 6, 4))
    return net.model(net.add(mixed, x))


def sequence_classifier() -> Graph:
    """LSTM, its last output, a fully connected layer and softmax."""
    lstm, build = next(case.graph for case in cases_of("lstm") if case.label.endswith("many steps")), Build(13)
    places = [build.tensor(tensor) for tensor in lstm.tensors]
    build.node("lstm", tuple(places[:-1]), places[-1], **lstm.nodes[0].attributes)
    shape, y = lstm.tensors[-1].shape, lstm.tensors[-1]
    last = build.activation((1, shape[2]), y.scale, y.zero_point)
    part = {"begin": (0, shape[1] - 1, 0), "stride": (1, 1, 1), "size": (1, 1, shape[2]), "shape": (1, shape[2])}
    build.node("strided_slice", (places[-1],), last, **part)
    classes = build.fully_connected(last, 4)
    shares = build.activation((1, 4), 1 / 256, -128)
    return build.graph(places[0], build.node("softmax", (classes,), shares, beta=1.0))


FILES: dict[str, Callable[[], bytes]] = {
    "autoencoder.onnx": lambda: autoencoder().SerializeToString(),
    "self_attention.onnx": lambda: self_attention().SerializeToString(),
    "sequence_classifier.tflite": lambda: write_tflite(sequence_classifier()),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("product_models")
    for name, make in FILES.items():
        (folder / name).write_bytes(make())
    return {name: folder / name for name in FILES}


@pytest.fixture(scope="module")
def cases(models: dict[str, Path]) -> tuple[Case, ...]:
    """The simplified models with random inputs and the simulator's answers."""
    found = []
    for name, path in models.items():
        graph = simplify(read_model(path))
        vectors = tuple(tuple(inputs_of(graph, seed)) for seed in range(VECTORS))
        found.append(Case(name, graph, vectors, tuple(tuple(simulate(graph, *vector)) for vector in vectors)))
    return tuple(found)


def test_operators(cases: tuple[Case, ...]) -> None:
    operators = [{node.op for node in case.graph.nodes} for case in cases]
    assert operators[0] == {"conv2d", "transpose_conv"}
    assert {"batch_matmul", "softmax", "add"} <= operators[1]
    assert {"lstm", "strided_slice", "fully_connected", "softmax"} <= operators[2]


def test_outside_oracle_and_plain_loops(cases: tuple[Case, ...]) -> None:
    for case in cases:
        twin = write_tflite(case.graph)
        assert differences(case, [tuple(tflite_micro(twin, list(vector))) for vector in case.vectors]) == ""
        assert differences(case, [tuple(compute(case.graph, list(vector))) for vector in case.vectors]) == ""


@pytest.mark.parametrize("name", ["autoencoder.onnx", "self_attention.onnx"])
def test_onnxruntime_is_near(models: dict[str, Path], name: str) -> None:
    """Differences of one step may grow from layer to layer, not beyond a few steps, and hardly anywhere."""
    graph, session = read_model(models[name]), onnxruntime_session(models[name].read_bytes())
    distances = []
    for seed in range(VECTORS):
        arrays = inputs_of(graph, seed)
        (wanted,) = onnx_stored(session, graph, arrays)
        distances.append(np.abs(simulate(graph, *arrays)[0].astype(int) - wanted))
    assert np.max(distances) <= 4 and np.mean(distances) < 0.3


@pytest.mark.parametrize("name", sorted(FILES))
def test_exported_c(models: dict[str, Path], name: str, tmp_path: Path) -> None:
    """Every layer's bytes, answers in turn, and the known answers that are built in."""
    info = export_model(models[name], tmp_path, FirmwareExportSection(), Target())
    graph, network = simplify(read_model(models[name])), HostNetwork(tmp_path, "network")
    assert network.selftest() and info
    for seed in (0, 1, 0):
        arrays = inputs_of(graph, seed)
        assert network.run(*arrays)[0].tobytes() == simulate(graph, *arrays)[0].tobytes()
    for found, wanted in zip(network.trace(*arrays), simulate_trace(graph, *arrays), strict=True):
        assert [value.tobytes() for value in found] == [value.tobytes() for value in wanted]


def test_cortex_m4(cases: tuple[Case, ...], tmp_path: Path) -> None:
    bundle = Bundle(tmp_path, cases)
    emulator = Emulator(bundle.arm_program(arm_toolchain("zig"), "cortex-m4"), "cortex-m4")
    for index, (case, layout) in enumerate(zip(bundle.cases, bundle.plans, strict=True)):
        assert differences(case, [emulator.run(index, case.graph, layout, vector) for vector in case.vectors]) == ""
