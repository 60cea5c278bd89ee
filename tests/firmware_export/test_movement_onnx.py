"""ONNX operators that move or requantize values, in QDQ form, against onnxruntime: same shapes, same values."""

from __future__ import annotations

import numpy as np
import onnx
from graph_builder import inputs_of
from oracles import onnx_stored, onnxruntime_session
from qdq_builder import Qdq

from firmware_export.graph import Graph
from firmware_export.passes import simplify
from firmware_export.read_onnx import read_onnx_bytes
from firmware_export.simulate import simulate


def agrees(model: onnx.ModelProto, steps: int = 0) -> Graph:
    """onnxruntime gives the same shapes, and values within `steps`; moved values are equal."""
    onnx.checker.check_model(model, full_check=True)
    graph, session = read_onnx_bytes(model.SerializeToString()), onnxruntime_session(model.SerializeToString())
    for seed in range(3):
        inputs = inputs_of(graph, seed)
        for found, wanted in zip(simulate(graph, *inputs), onnx_stored(session, graph, inputs), strict=True):
            assert found.shape == wanted.shape
            assert np.abs(found.astype(int) - wanted).max() <= steps
        assert [a.tobytes() for a in simulate(simplify(graph), *inputs)] == [a.tobytes() for a in simulate(graph, *inputs)]
    return graph


def test_quantized_again_with_another_scale() -> None:
    net = Qdq((1, 2, 4, 4))
    x = net.input()
    graph = agrees(net.model(net.quantized(x, 0.0123, 4, net.shapes[x])), steps=1)
    assert [node.op for node in graph.nodes] == ["quantize"]


def test_quantized_again_behind_a_flatten() -> None:
    """The order of a flattened image goes on to the weights behind the second scale."""
    net = Qdq((1, 3, 4, 5))
    x = net.bare("Flatten", net.input(), (1, 60))
    graph = agrees(net.model(net.gemm(net.quantized(x, 0.0123, 4, (1, 60)), 4)), steps=1)
    assert [node.op for node in graph.nodes] == ["reshape", "quantize", "fully_connected"]
