"""Mutated model files: whatever is in them, a graph or a GraphError comes out, in time and within the memory limit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from mutate import mutated, verdicts
from mutate_structure import mutated_onnx, mutated_tflite
from product_models import autoencoder, self_attention, sequence_classifier
from qdq_builder import Qdq, dscnn, resnet
from qoperator_builder import Stored

from firmware_export.read_onnx import read_onnx_bytes
from firmware_export.write_tflite import write_tflite

FEW, MANY = 250, 5_000
"""Files for each format and each way of mutating."""


def pools_and_softmax() -> bytes:
    """The operators that the two nets do not have."""
    net = Qdq((1, 2, 8, 8), 5)
    x = net.conv(net.input(), 4, stride=2, pads=(1, 1, 1, 1), activation="")
    x = net.quantized(net.node("Relu", [x]), 0.03, -100, net.shapes[x])
    x = net.same_scale("MaxPool", x, (1, 4, 2, 2), kernel_shape=[2, 2], strides=[2, 2])
    x = net.same_scale("AveragePool", x, (1, 4, 1, 1), kernel_shape=[2, 2])
    x = net.gemm(net.bare("Flatten", x, (1, 4)), 3)
    return net.model(net.quantized(net.node("Softmax", [x], axis=1), 1 / 256, -128, (1, 3))).SerializeToString()


def patterns() -> bytes:
    """Subgraphs that are computed while they are read, float forms of one operator, numbers, groups, flattened images."""
    net = Qdq((1, 4, 4, 6), 6)
    x = net.conv(net.input(), 4, group=2)
    gate = net.node("Clip", [net.node("Add", [x, net.constant(np.float32(3))]), *(net.constant(np.float32(v)) for v in (0, 6))])
    product = net.node("Div", [net.node("Mul", [x, gate]), net.constant(np.float32(6))])
    x = net.quantized(product, 0.05, -120, (1, 4, 4, 6))
    x = net.quantized(net.node("HardSigmoid", [x], alpha=0.2, beta=0.4), 1 / 256, -128, (1, 4, 4, 6))
    x = net.quantized(net.node("PRelu", [x, net.constant(np.float32(0.1))]), 1 / 200, -100, (1, 4, 4, 6))
    batch = net.node("Gather", [net.node("Shape", [x]), net.constant(np.int64(0))], axis=0)
    first = net.node("Unsqueeze", [batch, net.constant(np.array([0], np.int64))])
    target = net.node("Concat", [first, net.constant(np.array([-1], np.int64))], axis=0)
    flat = net.bare("Reshape", x, (1, 96), target)
    net.shapes[sigmoid := net.quantized(net.node("Sigmoid", [flat]), 1 / 256, -128, (1, 96))] = (1, 96)
    return net.model(net.gemm(sigmoid, 3)).SerializeToString()


def qoperators(dtype: str) -> bytes:
    """Every operator of the QOperator form that fits one chain, on stored integers at the edges."""
    net = Stored(dtype, (1, 3, 8, 6))
    inputs = ["x", *net.pair(0.05, 3), *net.weights((6, 3, 3, 3)), *net.pair(0.4, -7), net.bias(6)]
    net.node("QLinearConv", inputs, "conv", kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    net.node("MaxPool", ["conv"], "pool", kernel_shape=[2, 2], strides=[2, 2])
    net.node("QLinearLeakyRelu", ["pool", *net.pair(0.4, -7), *net.pair(0.3, -20)], "leaky", alpha=0.1)
    net.node("QLinearSigmoid", ["leaky", *net.pair(0.3, -20), *net.pair(1 / 256, -128)], "gate")
    net.node("QLinearMul", ["leaky", *net.pair(0.3, -20), "gate", *net.pair(1 / 256, -128), *net.pair(0.2, 5)], "product")
    groups = [*net.pair(0.3, 0), "product", *net.pair(0.2, 5), "leaky", *net.pair(0.3, -20)]
    net.node("QLinearConcat", groups, "joined", axis=1)
    net.node("QLinearAveragePool", ["joined", *net.pair(0.3, 0), *net.pair(0.2, 1)], "average", kernel_shape=[2, 1])
    net.node("QLinearGlobalAveragePool", ["average", *net.pair(0.2, 1), *net.pair(0.1, 2)], "whole")
    net.node("Flatten", ["whole"], "flat")
    net.node("QGemm", ["flat", *net.pair(0.1, 2), *net.weights((7, 12)), net.bias(7), *net.pair(0.3, -7)], "dense", transB=1)
    net.node("QLinearMatMul", ["dense", *net.pair(0.3, -7), *net.weights((7, 5), 1), *net.pair(0.3, 0)], "second")
    net.node("QLinearAdd", ["second", *net.pair(0.3, 0), "second", *net.pair(0.3, 0), *net.pair(0.6, 0)], "sum")
    net.node("QLinearSoftmax", ["sum", *net.pair(0.6, 0), *net.pair(1 / 256, -128)], "y", axis=1, opset=17)
    return net.model((1, 5)).SerializeToString()


def edges_and_signals() -> bytes:
    """An image as [n, h, w, c], a channel shuffle, a reduction that drops an edge, a convolution of one dimension."""
    net = Qdq((1, 4, 6, 4), 7)
    x = net.bare("Transpose", net.input(), (1, 4, 4, 6), perm=[0, 3, 1, 2])
    x = net.conv(x, 6)
    parts = net.bare("Reshape", x, (1, 2, 3, 4, 6), net.constant(np.array([1, 2, 3, 4, 6], np.int64)))
    turned = net.bare("Transpose", parts, (1, 3, 2, 4, 6), perm=[0, 2, 1, 3, 4])
    whole = net.bare("Reshape", turned, (1, 6, 4, 6), net.constant(np.array([1, 6, 4, 6], np.int64)))
    signal = net.node("ReduceMean", [whole, net.constant(np.array([2], np.int64))], keepdims=0)
    signal = net.quantized(signal, 0.02, -100, (1, 6, 6))
    weights, _ = net.weights((4, 6, 3), 0.02)
    y = net.node("Conv", [signal, weights], kernel_shape=[3], pads=[1, 1], strides=[1])
    y = net.same_scale("MaxPool", net.quantized(y, 0.02, 3, (1, 4, 6)), (1, 4, 3), kernel_shape=[2], strides=[2])
    part = net.node("Gather", [y, net.constant(np.int64(1))], axis=2)
    net.shapes[tanh := net.quantized(net.node("Tanh", [part]), 1 / 128, 0, (1, 4))] = (1, 4)
    return net.model(tanh).SerializeToString()


def seeds(kind: str) -> list[bytes]:
    models = [resnet(), dscnn(), autoencoder(), self_attention()]
    files = [*(model.SerializeToString() for model in models), pools_and_softmax()]
    if kind == "onnx":
        return [*files, patterns(), edges_and_signals(), qoperators("int8"), qoperators("uint8")]
    return [*(write_tflite(read_onnx_bytes(file)) for file in files), write_tflite(sequence_classifier())]


WAYS: dict[str, tuple[str, Callable[[bytes, int], bytes]]] = {
    "onnx bytes": ("onnx", mutated),
    "onnx fields": ("onnx", mutated_onnx),
    "tflite bytes": ("tflite", mutated),
    "tflite fields": ("tflite", mutated_tflite),
}


def run(way: str, count: int, first: int, folder: Path, exact: bool = False) -> Counter[str]:
    """Writes `count` mutated files and reads each; fails if one ends in another way than it may."""
    kind, mutate = WAYS[way]
    originals = seeds(kind)
    files = []
    for seed in range(first, first + count):
        path = folder / f"{seed}.{kind}"
        try:
            path.write_bytes(mutate(originals[seed % len(originals)], seed))
        except (TypeError, AttributeError):  # the changed fields cannot be packed into a file at all
            continue
        files.append(path)
    assert len(files) > 0.9 * count
    found = verdicts(files, 5 + 0.2 * count, exact)
    wrong = {name: verdict for name, verdict in found.items() if not verdict.startswith(("graph", "refused: "))}
    assert not wrong, dict(list(wrong.items())[:5])
    unprintable = [verdict for verdict in found.values() if not verdict.isprintable()]
    assert not unprintable
    return Counter(verdict.split(":")[0] for verdict in found.values())


@pytest.mark.parametrize("way", WAYS)
def test_mutated_files(way: str, tmp_path: Path) -> None:
    outcomes = run(way, FEW, 0, tmp_path)
    assert outcomes["refused"] > FEW / 4 and outcomes["graph"] > 10, "some are damaged, some are not"


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("way", WAYS)
def test_many_mutated_files(way: str, tmp_path: Path) -> None:
    run(way, MANY, 1_000_000, tmp_path)


@pytest.mark.parametrize("way", ["onnx fields", "tflite fields"])
def test_what_is_accepted_answers_as_tflite_micro_does(way: str, tmp_path: Path) -> None:
    """A changed stride, shape or scale that still makes a model makes one that is computed exactly."""
    outcomes = run(way, FEW // 2, 5_000, tmp_path, exact=True)
    assert outcomes["graph"] >= 3


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("way", ["onnx fields", "tflite fields"])
def test_much_of_what_is_accepted_answers_as_tflite_micro_does(way: str, tmp_path: Path) -> None:
    run(way, MANY, 2_000_000, tmp_path, exact=True)


def test_the_watch_sees_what_goes_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that fails otherwise, one that hangs and one that dies are told apart."""
    reader = tmp_path / "firmware_export"
    reader.mkdir()
    (reader / "__init__.py").write_text("")
    (reader / "graph.py").write_text("class GraphError(Exception): pass\n")
    for name in ("onnx_graph", "read_tflite"):
        (reader / f"{name}.py").write_text("")
    (reader / "passes.py").write_text("def simplify(graph): return graph\n")
    (reader / "plan.py").write_text("def plan(graph): pass\n")
    (reader / "write_tflite.py").write_text("def write_tflite(graph): pass\n")
    (reader / "model_file.py").write_text(
        "import os\nfrom firmware_export.graph import GraphError\n"
        "def read_model(path):\n"
        "    if path.stem == 'bad': raise RuntimeError('boom')\n"
        "    if path.stem == 'refused': raise GraphError('no')\n"
        "    if path.stem == 'large': bytearray(1 << 31)\n"
        "    if path.stem == 'slow':\n        while True: pass\n"
        "    if path.stem == 'dies': os._exit(7)\n"
    )
    import mutate

    program = tmp_path / "tests" / "x"
    program.mkdir(parents=True)
    source = Path(mutate.__file__).read_text().replace("TIME_LIMIT_S = 5", "TIME_LIMIT_S = 0.5")
    (program / "mutate.py").write_text(source)
    monkeypatch.setattr(mutate, "__file__", str(program / "mutate.py"))
    files = [Path(name) for name in ("good", "bad", "refused", "large", "slow", "dies", "after")]
    found = mutate.verdicts(files, timeout=30)
    assert found["good"] == "graph" and found["refused"] == "refused: no"
    assert found["bad"].startswith("RuntimeError: boom (model_file.py:")
    assert found["large"].startswith("MemoryError") and found["slow"] == "too slow"
    assert found["dies"].startswith("the process ended with 7") and found["after"].startswith("the process ended with 7")
