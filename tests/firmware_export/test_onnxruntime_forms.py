"""onnxruntime's quantizer in both forms and all types: read, answered as onnxruntime does, and exactly as TFLite Micro does."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnxruntime_models import NETS, inputs_of_net, quantized
from oracles import Arrays, onnx_stored, onnxruntime_session, tflite_micro

from firmware_export.graph import Graph, GraphError
from firmware_export.passes import simplify
from firmware_export.read_onnx import read_onnx
from firmware_export.simulate import simulate
from firmware_export.write_tflite import write_tflite

IMAGES = 25
MOST_STEPS = {"small_cnn": 2, "moving_net": 3}
"""Largest difference to onnxruntime, in steps of the output: it rounds in float, and once; a change of scale here twice."""
MOST_DIFFERENT = 0.7
"""Share of the outputs that may differ at all."""
SYMMETRIC = {"extra_options": {"WeightSymmetric": True}}
TYPES: dict[str, tuple[str, str, dict[str, object]]] = {
    "int8 per channel": ("QInt8", "QInt8", {"per_channel": True}),
    "int8": ("QInt8", "QInt8", {}),
    "uint8 activations": ("QUInt8", "QInt8", {"per_channel": True}),
    "uint8 both": ("QUInt8", "QUInt8", SYMMETRIC),
    "symmetric": ("QInt8", "QInt8", {"extra_options": {"ActivationSymmetric": True}}),
}


def stored_inputs(graph: Graph, model: onnx.ModelProto, count: int) -> list[Arrays]:
    """Images as the graph takes them: int8, NHWC."""
    x = graph.tensors[graph.inputs[0]]
    images = [image.transpose(0, 2, 3, 1) for image in inputs_of_net(model, count, 9)]
    return [[np.clip(np.rint(v / np.float32(x.scale)) + x.zero_point, -128, 127).astype(np.int8)] for v in images]


def distances(path: Path, graph: Graph, vectors: list[Arrays]) -> np.ndarray:
    """Steps between this graph's outputs and onnxruntime's."""
    session = onnxruntime_session(path.read_bytes())
    found = [simulate(graph, *vector)[0].astype(np.int64) - onnx_stored(session, graph, vector)[0] for vector in vectors]
    return np.abs(np.concatenate(found))


@pytest.mark.parametrize("types", TYPES)
@pytest.mark.parametrize("form", ["QDQ", "QOperator"])
@pytest.mark.parametrize("name", NETS)
def test_quantized_nets(name: str, form: str, types: str, tmp_path: Path) -> None:
    activations, weights, options = TYPES[types]
    model = NETS[name]()
    path = quantized(model, tmp_path, form, activations, weights, **options)
    graph = simplify(read_onnx(path))
    assert all(tensor.dtype in ("int8", "int32") for tensor in graph.tensors)
    vectors = stored_inputs(graph, model, IMAGES)
    steps = distances(path, graph, vectors)
    assert steps.max() <= MOST_STEPS[name] and np.count_nonzero(steps) <= MOST_DIFFERENT * steps.size
    twin = write_tflite(graph)
    for vector in vectors[:5]:
        assert simulate(graph, *vector)[0].tobytes() == tflite_micro(twin, vector)[0].tobytes()


@pytest.mark.parametrize("name", NETS)
def test_both_forms_mean_the_same_operators(name: str, tmp_path: Path) -> None:
    """The quantizer keeps the scale of an average pool in one form only, and gives softmax two scales."""
    kinds = []
    for form in ("QDQ", "QOperator"):
        path = quantized(NETS[name](), tmp_path, form, "QUInt8", "QInt8")
        kinds.append([node.op for node in simplify(read_onnx(path)).nodes if node.op != "quantize"])
    assert kinds[0] == kinds[1] and len(kinds[0]) > 10


def test_the_forms_are_what_they_are_called(tmp_path: Path) -> None:
    path = quantized(NETS["small_cnn"](), tmp_path, "QOperator", "QUInt8", "QInt8")
    types = Counter(node.op_type for node in onnx.load(path).graph.node)
    assert types["QLinearConv"] == 5 and types["QGemm"] == types["QLinearMatMul"] == types["QLinearSoftmax"] == 1
    assert types["Conv"] == 0 and types["MaxPool"] == types["Flatten"] == 1


def test_uint8_is_int8_with_another_zero(tmp_path: Path) -> None:
    """The same ranges give the same integers less 128; per-tensor weights of both types too."""
    graphs = []
    for activations in ("QInt8", "QUInt8"):
        path = quantized(NETS["small_cnn"](), tmp_path, "QDQ", activations, "QInt8")
        graphs.append(read_onnx(path))
    one, other = graphs
    assert [node.op for node in one.nodes] == [node.op for node in other.nodes]
    for a, b in zip(one.tensors, other.tensors, strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        if a.quantization is not None and b.quantization is not None and a.quantization.axis is None and not a.is_constant:
            assert a.scale == pytest.approx(b.scale, rel=1e-6) and abs(a.zero_point - b.zero_point) <= 1


@pytest.mark.parametrize("form", ["QDQ", "QOperator"])
def test_weights_with_zero_points_are_refused_with_the_way_out(form: str, tmp_path: Path) -> None:
    path = quantized(NETS["small_cnn"](), tmp_path, form, "QUInt8", "QUInt8")
    with pytest.raises(GraphError, match=r"zero points of the weights .*weight_type=QuantType\.QInt8"):
        read_onnx(path)


@pytest.mark.parametrize("quantizer", ["dynamic", "16 bits"])
def test_other_quantizations_are_refused_with_the_way_out(quantizer: str, tmp_path: Path) -> None:
    from onnxruntime.quantization import quantize_dynamic

    words: str
    if quantizer == "dynamic":
        onnx.save(NETS["small_cnn"](), tmp_path / "float.onnx")
        quantize_dynamic(tmp_path / "float.onnx", tmp_path / "int8.onnx")
        words = r"quantized dynamically, .*use onnxruntime's quantize_static"
    else:
        quantized(NETS["small_cnn"](), tmp_path, "QDQ", "QInt16", "QInt8")
        words = r"16 bits"
    with pytest.raises(GraphError, match=words):
        read_onnx(tmp_path / "int8.onnx")


OPTIONS: dict[str, dict[str, object]] = {
    "float weights behind quantizers": {"AddQDQPairToWeight": True},
    "a pair for each reader": {"DedicatedQDQPair": True},
    "kept activations": {"QDQKeepRemovableActivations": True},
    "onnxruntime's own quantizers": {"UseQDQContribOps": True},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options_of_the_quantizer(name: str, tmp_path: Path) -> None:
    """Other ways to write the same net give the same bytes."""
    plain = simplify(read_onnx(quantized(NETS["small_cnn"](), tmp_path, "QDQ", "QInt8", "QInt8")))
    graph = simplify(read_onnx(quantized(NETS["small_cnn"](), tmp_path, "QDQ", "QInt8", "QInt8", extra_options=OPTIONS[name])))
    for vector in stored_inputs(graph, NETS["small_cnn"](), 5):
        one, other = simulate(plain, *vector)[0].astype(int), simulate(graph, *vector)[0].astype(int)
        assert np.abs(one - other).max() <= (2 if "kept" in name else 0)


def with_bytes_at_the_edges(path: Path) -> onnx.ModelProto:
    """The QOperator file without the quantizers at its ends: it takes and gives uint8."""
    model = onnx.load(path)
    graph = model.graph
    for node, edge, place in ((graph.node[0], graph.input[0], "output"), (graph.node[-1], graph.output[0], "input")):
        assert node.op_type == ("QuantizeLinear" if place == "output" else "DequantizeLinear")
        edge.name, edge.type.tensor_type.elem_type = getattr(node, place)[0], onnx.TensorProto.UINT8
    del graph.node[-1], graph.node[0]
    return model


def test_uint8_at_the_edges_is_fed_and_answered_as_uint8(tmp_path: Path) -> None:
    model = with_bytes_at_the_edges(quantized(NETS["small_cnn"](), tmp_path, "QOperator", "QUInt8", "QInt8"))
    target = tmp_path / "bytes.onnx"
    onnx.save(model, target)
    graph = simplify(read_onnx(target))
    assert [graph.tensors[index].dtype for index in (*graph.inputs, *graph.outputs)] == ["uint8", "uint8"]
    session, twin = onnxruntime_session(target.read_bytes()), write_tflite(graph)
    rng = np.random.default_rng(0)
    for _ in range(10):
        image = rng.integers(0, 256, (1, 10, 7, 3)).astype(np.uint8)
        (wanted,) = session.run(None, {session.get_inputs()[0].name: image.transpose(0, 3, 1, 2)})
        (found,) = simulate(graph, image)
        assert found.dtype == np.uint8 and np.abs(found.astype(int) - wanted).max() <= 2
        assert found.tobytes() == tflite_micro(twin, [image])[0].tobytes()
