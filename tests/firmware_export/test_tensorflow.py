"""TensorFlow's view of the twin: its interpreter answers as LiteRT does, and its converter gives a Keras net of the same
weights the same scales. TensorFlow is an optional extra and runs in a process of its own."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from float_net import SIZE, float_onnx, images, quantized_by_onnxruntime, random_weights
from oracles import litert, tflite_micro

from firmware_export.graph import Graph, Tensor
from firmware_export.passes import simplify
from firmware_export.read_onnx import read_onnx
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
COUNT = 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Our twin of an onnxruntime-quantized net, and what TensorFlow makes of it and of the float weights."""
    folder = tmp_path_factory.mktemp("tensorflow")
    weights, calibration = random_weights(), images(100)
    graph = simplify(read_onnx(quantized_by_onnxruntime(float_onnx(weights), calibration, folder)))
    (folder / "twin.tflite").write_bytes(write_tflite(graph))
    rng = np.random.default_rng(0)
    np.save(folder / "inputs.npy", rng.integers(-128, 128, (COUNT, 1, SIZE, SIZE, 1)).astype(np.int8))
    np.savez(folder / "weights.npz", **weights)
    np.save(folder / "calibration.npy", calibration.transpose(0, 2, 3, 1))
    program = Path(__file__).with_name("tensorflow_check.py")
    result = subprocess.run([sys.executable, str(program), str(folder)], capture_output=True, text=True, timeout=500)
    assert result.returncode == 0, result.stderr[-3000:]
    return folder


@pytest.fixture(scope="module")
def graph(folder: Path) -> Graph:
    """The graph that the twin was written from."""
    return read_tflite(folder / "twin.tflite")


@pytest.fixture(scope="module")
def keras(folder: Path) -> Graph:
    """The file of TensorFlow's converter, read by our reader."""
    return simplify(read_tflite(folder / "keras.tflite"))


def test_tensorflows_interpreter_answers_the_twin_as_litert_does(folder: Path) -> None:
    twin = (folder / "twin.tflite").read_bytes()
    answers = np.load(folder / "answers.npy", allow_pickle=False)
    inputs = np.load(folder / "inputs.npy", allow_pickle=False)
    assert len(answers) == COUNT
    for image, answer in zip(inputs, answers, strict=True):
        assert answer.tobytes() == litert(twin, [image])[0].tobytes()


def test_its_answers_are_the_simulators_up_to_the_last_layers_rounding(folder: Path, graph: Graph) -> None:
    """The last layer is FULLY_CONNECTED, which the reference kernel rounds in its own way: a step now and then."""
    answers = np.load(folder / "answers.npy", allow_pickle=False)
    inputs = np.load(folder / "inputs.npy", allow_pickle=False)
    distances = [np.abs(simulate(graph, x)[0].astype(int) - y) for x, y in zip(inputs, answers, strict=True)]
    assert np.max(distances) <= 1 and np.count_nonzero(distances) <= 0.01 * np.size(distances)


def quantized_outputs(graph: Graph) -> list[Tensor]:
    """Input, and the output of every layer but reshapes, in order."""
    ends = [node.outputs[0] for node in graph.nodes if node.op != "reshape"]
    return [graph.tensors[index] for index in (*graph.inputs, *ends)]


def test_the_converter_makes_the_same_layers(graph: Graph, keras: Graph) -> None:
    kinds = [[node.op for node in g.nodes if node.op != "reshape"] for g in (graph, keras)]
    assert kinds[0] == kinds[1] == ["conv2d", "depthwise_conv2d", "conv2d", "mean", "fully_connected"]


def test_the_converter_gives_activations_the_same_scales(graph: Graph, keras: Graph) -> None:
    pairs = list(zip(quantized_outputs(graph), quantized_outputs(keras), strict=True))
    assert len(pairs) == 6
    for ours, theirs in pairs:
        assert ours.scale == pytest.approx(theirs.scale, rel=1e-6), ours.name
        assert ours.zero_point == theirs.zero_point, ours.name


def weighted(graph: Graph) -> list[Tensor]:
    nodes = [node for node in graph.nodes if node.op in ("conv2d", "depthwise_conv2d")]
    return [graph.tensors[node.inputs[1]] for node in nodes]


def test_the_converter_gives_weights_the_same_scales_and_bytes(graph: Graph, keras: Graph) -> None:
    for ours, theirs in zip(weighted(graph), weighted(keras), strict=True):
        assert ours.quantization is not None and theirs.quantization is not None
        assert ours.shape == theirs.shape and ours.quantization.axis == theirs.quantization.axis
        assert np.allclose(ours.quantization.scale, theirs.quantization.scale, rtol=1e-5)
        assert ours.data is not None and theirs.data is not None
        distance = np.abs(ours.data.astype(int) - theirs.data.astype(int))
        assert distance.max() <= 1 and np.count_nonzero(distance) <= 0.02 * distance.size


def test_both_files_answer_nearly_alike(graph: Graph, keras: Graph) -> None:
    for image in _images():
        one, other = simulate(graph, image)[0].astype(int), simulate(keras, image)[0].astype(int)
        assert np.abs(one - other).max() <= 3


def _images() -> list[np.ndarray]:
    values = images(20, seed=3).transpose(0, 2, 3, 1)
    return [(np.rint(value[None] * 255) - 128).astype(np.int8) for value in values]


def test_the_converters_file_is_exact_too(folder: Path, keras: Graph) -> None:
    original = (folder / "keras.tflite").read_bytes()
    for image in _images():
        assert simulate(keras, image)[0].tobytes() == tflite_micro(original, [image])[0].tobytes()
