"""Files made by onnxruntime's quantizer: somebody else's QDQ, read and answered as onnxruntime does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from float_net import CLASSES, float_onnx, images, quantized_by_onnxruntime, random_weights
from oracles import onnx_stored, onnxruntime_session, real, tflite_micro

from firmware_export.graph import Graph
from firmware_export.passes import simplify
from firmware_export.read_onnx import read_onnx
from firmware_export.simulate import simulate
from firmware_export.write_tflite import write_tflite

OPTIONS = {"per channel": {}, "per tensor": {"per_channel": False}}


@pytest.fixture(scope="module", params=OPTIONS)
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The quantized file."""
    folder = tmp_path_factory.mktemp("ort")
    return quantized_by_onnxruntime(float_onnx(random_weights()), images(50), folder, **OPTIONS[request.param])


@pytest.fixture(scope="module")
def graph(path: Path) -> Graph:
    """What the reader makes of it."""
    return simplify(read_onnx(path))


def stored_images(graph: Graph, count: int) -> list[np.ndarray]:
    source = graph.tensors[graph.inputs[0]]
    values = images(count, seed=7).transpose(0, 2, 3, 1)
    return [np.clip(np.rint(v[None] / source.scale) + source.zero_point, -128, 127).astype(np.int8) for v in values]


def test_every_operator_is_found(graph: Graph) -> None:
    expected = ["conv2d", "depthwise_conv2d", "conv2d", "mean", "reshape", "fully_connected"]
    assert [node.op for node in graph.nodes] == expected


def test_folded_relus_are_the_clamp(graph: Graph) -> None:
    """onnxruntime leaves no Relu where the range starts at 0: the zero point is -128 and saturation does it."""
    for node in graph.nodes[:3]:
        assert graph.tensors[node.outputs[0]].zero_point == -128
        assert node.integers("clamp") == (-128, 127)


def test_answers_are_those_of_onnxruntime_within_its_rounding(path: Path, graph: Graph) -> None:
    session = onnxruntime_session(path.read_bytes())
    same = total = agree = 0
    for image in stored_images(graph, 60):
        found, wanted = simulate(graph, image)[0].astype(int), onnx_stored(session, graph, [image])[0]
        assert np.abs(found - wanted).max() <= 3
        same, total = same + int(np.sum(found == wanted)), total + found.size
        agree += int(np.argmax(found) == np.argmax(wanted))
    assert same > 0.5 * total and agree >= 58


def test_the_float_model_is_met_closely(path: Path, graph: Graph) -> None:
    """Quantization costs a few steps; a wrong layout or scale would cost everything."""
    session = onnxruntime_session((path.parent / "float.onnx").read_bytes())
    result = graph.tensors[graph.outputs[0]]
    for image in stored_images(graph, 20):
        floats = session.run(None, {"input": real(graph.tensors[graph.inputs[0]], image).transpose(0, 3, 1, 2)})[0]
        answer = real(result, simulate(graph, image)[0])
        assert answer.shape == floats.shape == (1, CLASSES)
        assert np.abs(answer - floats).max() < 8 * result.scale


def test_the_twin_answers_exactly(graph: Graph) -> None:
    twin = write_tflite(graph)
    for image in stored_images(graph, 20):
        assert simulate(graph, image)[0].tobytes() == tflite_micro(twin, [image])[0].tobytes()
