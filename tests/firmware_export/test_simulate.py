"""Whole nets: the simulator against the tflite-micro wheel and LiteRT's reference kernels, byte for byte."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from graph_builder import Build, inputs_of, small_net
from oracles import litert, tflite_micro, without_fully_connected
from qdq_builder import dscnn, resnet

from firmware_export.check import check
from firmware_export.graph import Graph, GraphError
from firmware_export.passes import simplify
from firmware_export.read_onnx import read_onnx_bytes
from firmware_export.read_tflite import read_tflite
from firmware_export.simulate import simulate, simulate_trace
from firmware_export.write_tflite import write_tflite

NETS = {
    "small": lambda: small_net(1),
    "resnet": lambda: read_onnx_bytes(resnet(1).SerializeToString()),
    "resnet 12x12": lambda: read_onnx_bytes(resnet(2, size=12).SerializeToString()),
    "dscnn": lambda: read_onnx_bytes(dscnn(1).SerializeToString()),
    "dscnn 12x12": lambda: read_onnx_bytes(dscnn(2, size=12).SerializeToString()),
}
MLPERF = ("ad01_int8", "kws_ref_model", "pretrainedResnet_quant", "vww_96_int8")


def assert_same(graph: Graph, images: int) -> None:
    """simulate == TFLite Micro on the twin; == LiteRT on the twin whose fully connected layers are 1x1 convolutions."""
    twin, plain = write_tflite(graph), without_fully_connected(graph)
    check(plain)
    rewritten = write_tflite(plain)
    for seed in range(images):
        inputs = inputs_of(graph, seed)
        found = simulate(graph, *inputs)
        micro, reference = tflite_micro(twin, inputs, len(found)), litert(rewritten, inputs)
        for value, one, other in zip(found, micro, reference, strict=True):
            assert value.tobytes() == one.tobytes(), "TFLite Micro"
            assert value.tobytes() == other.tobytes(), "LiteRT BUILTIN_REF"


@pytest.mark.parametrize("name", NETS)
def test_whole_nets_answer_as_the_outside_runtimes_do(name: str) -> None:
    graph = simplify(NETS[name]())
    assert_same(graph, 40)
    answers = {tuple(simulate(graph, *inputs_of(graph, seed))[0].reshape(-1).tolist()) for seed in range(10)}
    assert len(answers) > 5, "answers depend on the inputs"


@pytest.mark.parametrize("value", [-128, 127])
@pytest.mark.parametrize("name", NETS)
def test_extreme_inputs(name: str, value: int) -> None:
    graph = simplify(NETS[name]())
    inputs = [np.full(array.shape, value, np.int8) for array in inputs_of(graph)]
    assert simulate(graph, *inputs)[0].tobytes() == tflite_micro(write_tflite(graph), inputs)[0].tobytes()


def test_the_trace_ends_with_the_outputs_and_has_every_node() -> None:
    graph = small_net()
    inputs = inputs_of(graph)
    trace = simulate_trace(graph, *inputs)
    assert [[value.shape for value in values] for values in trace] == [
        [graph.tensors[i].shape for i in n.outputs] for n in graph.nodes
    ]
    assert trace[-1][0].tobytes() == simulate(graph, *inputs)[0].tobytes()


def test_every_step_of_the_trace_is_what_a_shorter_net_answers() -> None:
    graph = small_net()
    inputs = inputs_of(graph)
    for place, node in enumerate(graph.nodes):
        part = simplify(Graph(graph.tensors, graph.nodes[: place + 1], graph.inputs, node.outputs))
        wanted = tflite_micro(write_tflite(part), inputs)[0]
        assert simulate_trace(graph, *inputs)[place][0].tobytes() == wanted.tobytes()


def test_two_inputs_and_two_outputs_keep_their_order() -> None:
    build = Build()
    a, b = build.activation((1, 4, 4, 2), name="a"), build.activation((1, 4, 4, 2), 0.03, 9, "b")
    y = build.node("add", (a, b), build.activation((1, 4, 4, 2), 0.06, -4), clamp=(-128, 127))
    z = build.conv(y, 3)
    graph = build.graph((b, a), (z, y))
    inputs = inputs_of(graph)
    found, wanted = simulate(graph, *inputs), tflite_micro(write_tflite(graph), inputs, 2)
    assert [value.tobytes() for value in found] == [value.tobytes() for value in wanted]


def test_inputs_are_not_changed() -> None:
    graph = small_net()
    (image,) = inputs_of(graph)
    before = image.copy()
    simulate(graph, image)
    assert np.array_equal(image, before)


@pytest.mark.parametrize(
    "image",
    [np.zeros((1, 8, 6, 2), np.int8), np.zeros((1, 8, 6, 3), np.uint8), np.zeros((8, 6, 3), np.int8)],
)
def test_a_wrong_input_is_refused(image: np.ndarray) -> None:
    with pytest.raises(GraphError, match=r"input 0 is .*; the model takes int8 \(1, 8, 6, 3\)"):
        simulate(small_net(), image)


def test_a_missing_input_is_refused() -> None:
    with pytest.raises(GraphError, match="0 inputs given; the model has 1"):
        simulate(small_net())


def mlperf(shared_data: Path, name: str) -> Path:
    path = shared_data / "mlperf_tiny_models" / f"{name}.tflite"
    if not path.is_file():
        pytest.skip(f"{path} not found")
    return path


@pytest.mark.parametrize("name", MLPERF)
def test_mlperf_models_and_their_rewritten_twins(shared_data: Path, name: str) -> None:
    """simulate == TFLite Micro on the original file == TFLite Micro on the file written from the graph."""
    path = mlperf(shared_data, name)
    graph = simplify(read_tflite(path))
    twin, original = write_tflite(graph), path.read_bytes()
    for seed in range(2):
        inputs = inputs_of(graph, seed)
        found = simulate(graph, *inputs)[0].tobytes()
        assert found == tflite_micro(original, inputs)[0].tobytes()
        assert found == tflite_micro(twin, inputs)[0].tobytes()


@pytest.mark.long
@pytest.mark.parametrize("name", MLPERF)
def test_mlperf_models_on_many_inputs(shared_data: Path, name: str) -> None:
    path = mlperf(shared_data, name)
    graph = simplify(read_tflite(path))
    original = path.read_bytes()
    for seed in range(200):
        inputs = inputs_of(graph, 1000 + seed)
        assert simulate(graph, *inputs)[0].tobytes() == tflite_micro(original, inputs)[0].tobytes()


@pytest.mark.long
@pytest.mark.parametrize("name", NETS)
def test_whole_nets_on_many_inputs(name: str) -> None:
    assert_same(simplify(NETS[name]()), 1000)
