"""Files of TensorFlow's converter with elementwise and reducing operators: read, and answered as TFLite Micro does."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from oracles import litert, tflite_micro
from second_implementation import compute

from firmware_export.graph import Graph
from firmware_export.passes import simplify
from firmware_export.read_tflite import read_tflite
from firmware_export.simulate import simulate
from firmware_export.write_tflite import write_tflite

pytestmark = [
    pytest.mark.tensorflow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        importlib.util.find_spec("tensorflow") is None,
        reason="the optional extra tensorflow is not installed (pip install -r requirements-tensorflow.txt)",
    ),
]
FILES = {
    "constant_first": ["sub"],
    "extremes": ["minimum", "maximum"],
    "gated": ["mean", "logistic", "mul"],
    "hard_swish": ["hard_swish"],
    "leaky_relu": ["leaky_relu"],
    "logistic": ["logistic"],
    "mean_of_two_axes": ["mean"],
    "normalized": ["mean", "sub"],
    "prelu": ["prelu"],
    "products": ["mul", "mul"],
    "reductions": ["reduce_max", "sum", "sub"],
    "relu_0_to_1": ["minimum", "relu"],
    "relu_n1_to_1": ["relu"],
    "sums": ["add", "sub", "mul", "sub"],
    "tanh": ["tanh"],
}
NOT_IN_TFLITE_MICRO = ("relu_n1_to_1",)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that TensorFlow writes."""
    folder = tmp_path_factory.mktemp("elementwise")
    program = Path(__file__).with_name("tensorflow_elementwise.py")
    result = subprocess.run([sys.executable, str(program), str(folder)], capture_output=True, text=True, timeout=500)
    assert result.returncode == 0, result.stderr[-3000:]
    assert {path.stem for path in folder.glob("*.tflite")} == FILES.keys()
    return folder


def vectors_for(graph: Graph) -> list[list[np.ndarray]]:
    """Random inputs, and both ends of int8."""
    shapes = [graph.tensors[index].shape for index in graph.inputs]
    rng = np.random.default_rng(5)
    vectors = [[rng.integers(-128, 128, shape).astype(np.int8) for shape in shapes] for _ in range(6)]
    return vectors + [[np.full(shape, value, np.int8) for shape in shapes] for value in (-128, 127)]


@pytest.mark.parametrize("name", sorted(FILES))
def test_operators(folder: Path, name: str) -> None:
    graph = read_tflite(folder / f"{name}.tflite")
    assert [node.op for node in graph.nodes] == FILES[name]


@pytest.mark.parametrize("name", sorted(FILES))
def test_answers(folder: Path, name: str) -> None:
    data = (folder / f"{name}.tflite").read_bytes()
    outside = litert if name in NOT_IN_TFLITE_MICRO else tflite_micro
    graph = read_tflite(folder / f"{name}.tflite")
    for vector in vectors_for(graph):
        expected = outside(data, vector)[0]
        for own in (graph, simplify(graph)):
            assert np.array_equal(simulate(own, *vector)[0], expected)
        assert np.array_equal(compute(graph, vector)[0], expected)


@pytest.mark.parametrize("name", sorted(FILES))
def test_twins(folder: Path, name: str) -> None:
    """What is written again runs in TFLite Micro, also where the original does not."""
    graph = simplify(read_tflite(folder / f"{name}.tflite"))
    twin = write_tflite(graph)
    for vector in vectors_for(graph):
        assert np.array_equal(tflite_micro(twin, vector)[0], simulate(graph, *vector)[0])
