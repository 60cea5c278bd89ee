"""Files of TensorFlow's converter with LSTMs, transposed and grouped convolutions, attention: answered as TFLite Micro does."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from oracles import tflite_micro
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
    "any_batch": {"transpose_conv"},
    "attention": {"fully_connected", "batch_matmul", "softmax"},
    "doubled": {"transpose_conv", "relu"},
    "doubled_valid": {"transpose_conv"},
    "grouped": {"strided_slice", "conv2d", "concatenation"},
    "lstm": {"lstm"},
    "lstm_last": {"lstm", "strided_slice"},
    "lstm_twice": {"lstm"},
    "lstm_unrolled": {"reshape", "unpack", "fully_connected", "split", "logistic", "tanh", "mul", "add"},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that TensorFlow writes."""
    folder = tmp_path_factory.mktemp("products")
    program = Path(__file__).with_name("tensorflow_products.py")
    result = subprocess.run([sys.executable, str(program), str(folder)], capture_output=True, text=True, timeout=500)
    assert result.returncode == 0, result.stderr[-3000:]
    assert {path.stem for path in folder.glob("*.tflite")} == FILES.keys()
    return folder


def vectors_for(graph: Graph) -> list[np.ndarray]:
    """Random inputs, and both ends of int8."""
    shape = graph.tensors[graph.inputs[0]].shape
    rng = np.random.default_rng(5)
    ends = [np.full(shape, value, np.int8) for value in (-128, 127)]
    return [rng.integers(-128, 128, shape).astype(np.int8) for _ in range(6)] + ends


@pytest.mark.parametrize("name", sorted(FILES))
def test_answers_are_tflite_micros(folder: Path, name: str) -> None:
    """The converter's file and our twin of it, the simplified graph and the one as it was read."""
    original = (folder / f"{name}.tflite").read_bytes()
    read = read_tflite(folder / f"{name}.tflite")
    graph = simplify(read)
    assert {node.op for node in graph.nodes} == FILES[name]
    twin = write_tflite(graph)
    for vector in vectors_for(graph):
        wanted = tflite_micro(original, [vector])[0].tobytes()
        assert simulate(graph, vector)[0].tobytes() == wanted
        assert simulate(read, vector)[0].tobytes() == wanted
        assert tflite_micro(twin, [vector])[0].tobytes() == wanted


@pytest.mark.parametrize("name", sorted(FILES))
def test_the_second_implementation_agrees(folder: Path, name: str) -> None:
    graph = simplify(read_tflite(folder / f"{name}.tflite"))
    for vector in vectors_for(graph)[:2]:
        assert compute(graph, [vector])[0].tobytes() == simulate(graph, vector)[0].tobytes()


def test_answers_differ_between_inputs(folder: Path) -> None:
    """No file answers with one value whatever it is asked."""
    for name in FILES:
        graph = simplify(read_tflite(folder / f"{name}.tflite"))
        answers = {simulate(graph, vector)[0].tobytes() for vector in vectors_for(graph)}
        assert len(answers) > 4, name


def test_states_are_as_the_converter_scales_them(folder: Path) -> None:
    """A clip of 10, which no cell state of these scales reaches, and a power of two for each cell."""
    graph = simplify(read_tflite(folder / "lstm_twice.tflite"))
    exponents = [node.integer("cell_exponent") for node in graph.nodes]
    assert all(-16 < exponent < -8 for exponent in exponents)
    assert all(node.integer("cell_clip") == 32767 for node in graph.nodes)
