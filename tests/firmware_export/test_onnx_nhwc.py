"""Files whose images are [n, h, w, c] at the edges, as converters from TensorFlow write them: their order is ours already."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx_agreement import kinds, read
from oracles import onnxruntime_session, real, tflite_micro
from qdq_builder import Qdq
from qoperator_builder import Stored

from firmware_export.graph import Graph
from firmware_export.passes import simplify
from firmware_export.simulate import simulate
from firmware_export.write_tflite import write_tflite

SHAPE = (1, 5, 7, 3)
"""As the file declares it: height 5, width 7, three channels."""
TO_NCHW, TO_NHWC = [0, 3, 1, 2], [0, 2, 3, 1]


def turned(net: Qdq, x: str, perm: list[int]) -> str:
    return net.bare("Transpose", x, tuple(net.shapes[x][axis] for axis in perm), perm=perm)


def declared(model: onnx.ModelProto, shape: tuple[int, ...]) -> onnx.ModelProto:
    """The output's shape as the file has it."""
    for dim, size in zip(model.graph.output[0].type.tensor_type.shape.dim, shape, strict=True):
        dim.dim_value = size
    return model


def equals(model: onnx.ModelProto, steps: int = 1) -> Graph:
    """onnxruntime is fed and asked without any change of order."""
    onnx.checker.check_model(model, full_check=True)
    session, graph = onnxruntime_session(model.SerializeToString()), simplify(read(model))
    x, y, twin = graph.tensors[graph.inputs[0]], graph.tensors[graph.outputs[0]], write_tflite(graph)
    for seed in range(3):
        values = np.random.default_rng(seed).integers(-128, 128, x.shape).astype(np.int8)
        wanted = session.run(None, {"input": real(x, values)})[0]
        (found,) = simulate(graph, values)
        assert found.shape == wanted.shape
        assert np.abs(found - np.clip(np.rint(wanted / y.scale) + y.zero_point, -128, 127)).max() <= steps
        assert found.tobytes() == tflite_micro(twin, [values])[0].tobytes()
    return graph


def test_images_are_nhwc_at_both_edges() -> None:
    net = Qdq(SHAPE, 1)
    y = net.conv(turned(net, net.input(), TO_NCHW), 4, stride=2)
    model = net.model(net.same_scale("Transpose", y, (1, 3, 4, 4), perm=TO_NHWC))
    graph = equals(model)
    assert kinds(graph) == ["conv2d"]
    assert graph.tensors[graph.inputs[0]].shape == SHAPE and graph.tensors[graph.outputs[0]].shape == (1, 3, 4, 4)


def test_a_transpose_before_the_first_quantizer() -> None:
    net = Qdq(SHAPE, 1)
    x = net.quantized(net.node("Transpose", ["input"], perm=TO_NCHW), 1 / 255, -128, (1, 3, 5, 7))
    graph = equals(net.model(net.gemm(net.global_pool(net.conv(x, 4)), 3)), steps=2)
    assert kinds(graph)[0] == "conv2d" and graph.tensors[graph.inputs[0]].shape == SHAPE


def test_a_transpose_before_the_last_quantizer() -> None:
    net = Qdq(SHAPE, 1)
    x = turned(net, net.input(), TO_NCHW)
    weights, _ = net.weights((4, 3, 1, 1), net.gain(x, 3))
    y = net.node("Transpose", [net.node("Conv", [x, weights])], perm=TO_NHWC)
    graph = equals(net.model(net.quantized(y, 0.04, 3, (1, 5, 7, 4))))
    assert kinds(graph) == ["conv2d"]


def test_an_input_that_something_else_reads_too_is_turned() -> None:
    """Then it has one layout only, and the Transpose stays; the input's own order is told by its shape."""
    net = Qdq(SHAPE, 1)
    x = net.input()
    y = net.conv(turned(net, x, TO_NCHW), 3, 1, pads=(0, 0, 0, 0), activation="")
    model = net.model(net.add(net.same_scale("Transpose", y, SHAPE, perm=TO_NHWC), x))
    graph = read(model)
    assert kinds(graph).count("transpose") == 2 and graph.tensors[graph.inputs[0]].shape == (1, 7, 3, 5)


@pytest.mark.parametrize("perm", [[0, 2, 3, 1], [0, 3, 2, 1], [0, 1, 3, 2]])
def test_other_transposes_of_an_input_stay(perm: list[int]) -> None:
    net = Qdq(SHAPE, 1)
    x = turned(net, net.input(), perm)
    assert "transpose" in kinds(read(net.model(net.conv(x, 4))))


def test_a_dense_layer_behind_a_flattened_nhwc_image() -> None:
    """The order of the file behind the Transpose is ours: nothing is reordered wrongly."""
    net = Qdq(SHAPE, 1)
    y = net.conv(turned(net, net.input(), TO_NCHW), 4)
    flat = net.bare("Reshape", turned(net, y, TO_NHWC), (1, 140), net.constant(np.array([1, 140], np.int64)))
    equals(net.model(net.gemm(flat, 3)), steps=2)


def test_an_output_that_is_only_transposed_input() -> None:
    net = Qdq(SHAPE, 1)
    model = net.model(net.quantized(net.node("Transpose", [net.input()], perm=TO_NHWC), 0.02, 0, (1, 7, 3, 5)))
    assert "transpose" in kinds(read(model))


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_stored_integers_at_the_edges(dtype: str) -> None:
    net = Stored(dtype, SHAPE)
    net.node("Transpose", ["x"], "t", perm=TO_NCHW)
    inputs = ["t", *net.pair(0.05, 3), *net.weights((6, 3, 3, 3)), *net.pair(0.4, -7), net.bias(6)]
    net.node("QLinearConv", inputs, "c", kernel_shape=[3, 3])
    net.node("Transpose", ["c"], "y", perm=TO_NHWC)
    model = net.model((1, 3, 5, 6))
    graph, session = simplify(read(model)), onnxruntime_session(model.SerializeToString())
    assert "transpose" not in kinds(graph)
    limits: Any = np.iinfo(dtype)
    values = np.random.default_rng(0).integers(limits.min, limits.max + 1, SHAPE).astype(dtype)
    wanted = session.run(None, {"x": values})[0]
    found = simulate(graph, values)[0]
    assert found.dtype == wanted.dtype and np.abs(found.astype(int) - wanted).max() <= 1


def test_an_output_with_another_declared_shape_is_refused() -> None:
    net = Qdq(SHAPE, 1)
    y = net.conv(turned(net, net.input(), TO_NCHW), 4)
    model = net.model(net.same_scale("Transpose", y, (1, 5, 7, 4), perm=TO_NHWC))
    with pytest.raises(Exception, match="is declared with another shape than its operators make: \\(1, 5, 7, 4\\)"):
        read(declared(model, (1, 4, 5, 7)))


def test_two_inputs_of_both_kinds() -> None:
    net = Qdq(SHAPE, 1)
    x = turned(net, net.input(), TO_NCHW)
    other = net.quantized("other", 0.02, 5, (1, 3, 5, 7))
    model = net.model(net.add(x, other))
    model.graph.input.append(helper.make_tensor_value_info("other", TensorProto.FLOAT, (1, 3, 5, 7)))
    graph = read(model)
    assert [graph.tensors[index].shape for index in graph.inputs] == [SHAPE, SHAPE] and kinds(graph) == ["add"]
