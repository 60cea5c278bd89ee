"""Networks exported by PyTorch and quantized by onnxruntime, the whole way: the same answers, exact twin, exact C."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from bundle import Bundle
from example_cases import Case, differences
from onnxruntime_models import NETS, inputs_of_net, quantized
from oracles import Arrays, onnx_stored, onnxruntime_session, tflite_micro
from torch_nets import MobileNet, ShuffleNet, exported

from firmware_export.graph import Graph
from firmware_export.passes import simplify
from firmware_export.read_onnx import read_onnx
from firmware_export.simulate import simulate
from firmware_export.toolchain import host_toolchain
from firmware_export.write_tflite import write_tflite

IMAGES = 25
FILES = [(MobileNet, "QDQ"), (ShuffleNet, "QDQ"), (ShuffleNet, "QOperator")]
"""onnxruntime cannot write hard-swish networks in the QOperator form."""


def stored_inputs(graph: Graph, model: onnx.ModelProto, count: int) -> list[Arrays]:
    """Images as the graph takes them: int8, NHWC."""
    x = graph.tensors[graph.inputs[0]]
    images = [image.transpose(0, 2, 3, 1) for image in inputs_of_net(model, count, 9)]
    return [[np.clip(np.rint(v / np.float32(x.scale)) + x.zero_point, -128, 127).astype(np.int8)] for v in images]


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize(("kind", "form"), FILES)
def test_exported_networks(kind: type, form: str, dynamic: bool, tmp_path: Path) -> None:
    """At most one step from onnxruntime, in at most a tenth of the outputs."""
    model = exported(kind, dynamic)
    path = quantized(model, tmp_path, form, "QUInt8", "QInt8", per_channel=True)
    graph = simplify(read_onnx(path))
    session, twin = onnxruntime_session(path.read_bytes()), write_tflite(graph)
    distances = []
    for number, vector in enumerate(stored_inputs(graph, model, IMAGES)):
        found = simulate(graph, *vector)[0]
        distances.append(np.abs(found.astype(int) - onnx_stored(session, graph, vector)[0]))
        if number < 5:
            assert found.tobytes() == tflite_micro(twin, vector)[0].tobytes()
    assert np.max(distances) <= 1 and np.count_nonzero(distances) <= 0.1 * np.size(distances)


def test_computed_shapes_leave_the_same_operators(tmp_path: Path) -> None:
    found = []
    for dynamic in (False, True):
        path = quantized(exported(ShuffleNet, dynamic), tmp_path, "QDQ", "QInt8", "QInt8")
        found.append([node.op for node in simplify(read_onnx(path)).nodes])
    assert found[0] == found[1] and {"prelu", "transpose", "strided_slice", "tanh"} <= {*found[0]}


def test_the_generated_c_of_all_of_them(tmp_path: Path) -> None:
    """Simulator and compiled C agree on every byte."""
    files = [(exported(kind, False), form) for kind, form in FILES]
    files += [(build(), form) for build in NETS.values() for form in ("QDQ", "QOperator")]
    cases = []
    for place, (model, form) in enumerate(files):
        graph = simplify(read_onnx(quantized(model, tmp_path, form, "QUInt8", "QInt8", per_channel=True)))
        vectors = tuple(tuple(vector) for vector in stored_inputs(graph, model, 5))
        cases.append(Case(f"file {place}", graph, vectors, tuple(tuple(simulate(graph, *vector)) for vector in vectors)))
    bundle = Bundle(tmp_path, cases)
    for case, found in zip(cases, bundle.run_host(bundle.host_program(host_toolchain())), strict=True):
        assert differences(case, found) == ""
