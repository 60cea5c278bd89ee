"""Whole models of the operators that sum products: an autoencoder, self-attention, a classifier of sequences.

Exported, compiled, run on this computer and on an emulated Cortex-M4; their answers are those of the simulator, TFLite Micro
and nearly onnxruntime's.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from bundle import Bundle, Emulator
from example_cases import Case, differences
from graph_builder import inputs_of
from oracles import onnx_stored, onnxruntime_session, tflite_micro
from product_models import autoencoder, self_attention, sequence_classifier
from second_implementation import compute

from firmware_export.export import export_model
from firmware_export.hostlib import HostNetwork
from firmware_export.model_file import read_model
from firmware_export.passes import simplify
from firmware_export.simulate import simulate, simulate_trace
from firmware_export.target import Target
from firmware_export.toolchain import arm_toolchain
from firmware_export.write_tflite import write_tflite
from recipes.recipe import FirmwareExportSection

VECTORS = 4


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
