"""Whole small ONNX files against onnxruntime, and against TFLite Micro through the twin."""

from __future__ import annotations

import numpy as np
import onnx
from graph_builder import inputs_of
from oracles import onnx_stored, onnxruntime_session, tflite_micro

from firmware_export.graph import Graph
from firmware_export.passes import simplify
from firmware_export.read_onnx import read_onnx_bytes
from firmware_export.simulate import simulate
from firmware_export.write_tflite import write_tflite


def read(model: onnx.ModelProto) -> Graph:
    """The graph of a model that is a sound ONNX file."""
    return read_onnx_bytes(model.SerializeToString())


def kinds(graph: Graph) -> list[str]:
    """The operators in order."""
    return [node.op for node in graph.nodes]


def agrees(model: onnx.ModelProto, steps: int = 1, varied: int = 3, vectors: int = 3) -> Graph:
    """The graph, simplified, after its answers were found within `steps` of onnxruntime's, and equal to TFLite Micro's.

    varied: at least so many values occur in the answers, so that agreement says something.
    """
    onnx.checker.check_model(model, full_check=True)
    data = model.SerializeToString()
    graph, session = read_onnx_bytes(data), onnxruntime_session(data)
    simple = simplify(read_onnx_bytes(data))
    twin = write_tflite(simple)
    seen: set[int] = set()
    for seed in range(vectors):
        inputs = inputs_of(graph, seed)
        answers = simulate(graph, *inputs)
        for found, wanted in zip(answers, onnx_stored(session, graph, inputs), strict=True):
            assert found.shape == wanted.shape
            assert np.abs(found.astype(int) - wanted).max() <= steps
            seen |= set(found.reshape(-1).tolist())
        assert [a.tobytes() for a in simulate(simple, *inputs)] == [a.tobytes() for a in answers]
        assert [a.tobytes() for a in tflite_micro(twin, inputs, len(answers))] == [a.tobytes() for a in answers]
    assert len(seen) >= varied
    return simple
