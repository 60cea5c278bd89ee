"""The four int8 models of MLPerf Tiny, where the shared data sets are: simulator = generated C = tflite-micro wheel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from oracles import tflite_micro

from firmware_export.emit import emit
from firmware_export.graph import Graph
from firmware_export.hostlib import HostNetwork
from firmware_export.operators import operator_of
from firmware_export.plan import plan
from firmware_export.read_tflite import read_tflite
from firmware_export.simulate import simulate

MACS = {
    "ad01_int8.tflite": 264_192,
    "kws_ref_model.tflite": 2_656_768,
    "pretrainedResnet_quant.tflite": 12_501_632,
    "vww_96_int8.tflite": 7_489_664,
}
"""As published for the models."""
INPUTS, LONG_INPUTS = 5, 1000


@pytest.fixture(params=sorted(MACS))
def model(request: pytest.FixtureRequest, shared_data: Path) -> Path:
    path = shared_data / "mlperf_tiny_models" / request.param
    if not path.is_file():
        pytest.skip(f"{path.name} is not among the shared data sets")
    return path


def compiled(graph: Graph, folder: Path) -> HostNetwork:
    for name, text in emit(graph, plan(graph), selftest=False).items():
        (folder / name).write_text(text)
    return HostNetwork(folder)


def random_inputs(graph: Graph, count: int) -> np.ndarray:
    shape = graph.tensors[graph.inputs[0]].shape
    return np.random.default_rng(0).integers(-128, 128, (count, *shape[1:])).astype(np.int8)


def compare(path: Path, folder: Path, count: int) -> None:
    graph = read_tflite(path)
    inputs = random_inputs(graph, count)
    found = compiled(graph, folder).run(inputs)[0].reshape(count, -1)
    for place in range(count):
        one = inputs[place : place + 1]
        assert np.array_equal(found[place], simulate(graph, one)[0].reshape(-1))
        assert np.array_equal(found[place], tflite_micro(path.read_bytes(), [one])[0].reshape(-1))
    assert len(np.unique(found, axis=0)) > 1


def test_macs(model: Path) -> None:
    graph = read_tflite(model)
    assert sum(operator_of(node).macs(graph, node) for node in graph.nodes) == MACS[model.name]


def test_answers(model: Path, tmp_path: Path) -> None:
    compare(model, tmp_path, INPUTS)


@pytest.mark.long
def test_many_answers(model: Path, tmp_path: Path) -> None:
    compare(model, tmp_path, LONG_INPUTS)
