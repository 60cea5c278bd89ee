"""Products of computed matrices: ONNX's MatMul against onnxruntime, TFLite's against LiteRT, sums by hand, refusals."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from ai_edge_litert import schema_py_generated as schema
from graph_builder import Build, inputs_of
from oracles import litert, onnx_stored, onnxruntime_session, tflite_micro
from qdq_builder import Qdq
from qoperator_builder import Stored

from firmware_export.graph import Graph, GraphError, Node, Quantization, Tensor
from firmware_export.operators import operator_of
from firmware_export.read_onnx import read_onnx_bytes
from firmware_export.read_tflite import read_tflite_bytes
from firmware_export.simulate import simulate
from firmware_export.write_tflite import TfliteWriter, write_tflite

Shape = tuple[int, ...]


def second_input(net: Qdq, shape: Shape, scale: float = 0.03, zero_point: int = 5) -> str:
    """Another float input of the model, quantized."""
    net.shapes["other"] = shape
    return net.quantized("other", scale, zero_point, shape)


def finished(net: Qdq, value: str) -> onnx.ModelProto:
    """The model with its second input declared."""
    model = net.model(value)
    if "other" in net.shapes:
        model.graph.input.append(onnx.helper.make_tensor_value_info("other", onnx.TensorProto.FLOAT, net.shapes["other"]))
    return model


def product(a: Shape, b: Shape, relu: bool = False, constant: int | None = None) -> onnx.ModelProto:
    """MatMul of an input and another input, or a constant with one scale, in either place."""
    net = Qdq(a if constant != 0 else b, seed=4)
    x = net.input()
    if constant is None:
        other = second_input(net, b)
    else:
        other, _ = net.weights(b if constant else a, 0.01, per_channel=False)
    y = net.node("MatMul", [other, x] if constant == 0 else [x, other])
    y = net.clamped(y, "relu") if relu else y
    shape = np.matmul(np.zeros(a), np.zeros(b)).shape
    return finished(net, net.quantized(y, 0.02 * np.sqrt(a[-1]), -20, shape))


def assert_agrees(model: onnx.ModelProto) -> Graph:
    """onnxruntime, which rounds in float, gives the same values within a step; the twin gives the same bytes."""
    onnx.checker.check_model(model, full_check=True)
    graph, session = read_onnx_bytes(model.SerializeToString()), onnxruntime_session(model.SerializeToString())
    twin = write_tflite(graph)
    for seed in range(3):
        arrays = inputs_of(graph, seed)
        found, (wanted,) = simulate(graph, *arrays), onnx_stored(session, graph, arrays)
        assert found[0].shape == wanted.shape
        assert np.abs(found[0].astype(int) - wanted).max() <= 1
        assert tflite_micro(twin, arrays)[0].tobytes() == found[0].tobytes()
    return graph


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((1, 7), (1, 7, 5)),
        ((1, 4, 7), (1, 7, 5)),
        ((1, 3, 4, 7), (1, 3, 7, 5)),
        ((1, 1, 4, 7), (1, 3, 7, 5)),
        ((1, 3, 4, 7), (1, 1, 7, 5)),
        ((1, 3, 4, 7), (1, 7, 5)),
        ((1, 4, 7), (1, 3, 7, 5)),
        ((1, 2, 3, 4, 7), (1, 1, 3, 7, 5)),
    ],
)
def test_onnx_of_two_inputs(a: Shape, b: Shape) -> None:
    graph = assert_agrees(product(a, b))
    assert [node.op for node in graph.nodes].count("batch_matmul") == 1


@pytest.mark.parametrize("shape", [(1, 6, 4, 6), (1, 3, 6, 6), (1, 6, 6, 6)])
def test_onnx_images_times_a_constant(shape: Shape) -> None:
    """Also where channels and width are the same number: the product is along the width, as ONNX has it."""
    graph = assert_agrees(product(shape, (6, 6), constant=1))
    assert [node.op for node in graph.nodes] == ["transpose", "batch_matmul", "transpose"]


@pytest.mark.parametrize(("a", "b"), [((1, 4, 7), (1, 7, 5)), ((1, 3, 4, 7), (1, 3, 7, 5)), ((4, 7), (1, 7, 5))])
def test_onnx_constant_matrices(a: Shape, b: Shape) -> None:
    assert_agrees(product(a, b, constant=0))
    if a[0] == 1:
        assert_agrees(product(a, b, constant=1))


def test_constant_matrix_behind_a_sequence_stays_fully_connected() -> None:
    assert [node.op for node in assert_agrees(product((1, 4, 7), (7, 5), constant=1)).nodes] == ["fully_connected"]


@pytest.mark.parametrize(("a", "b"), [((1, 4, 7), (1, 7, 5)), ((1, 3, 4, 7), (1, 3, 7, 5))])
def test_onnx_relu_is_a_node_of_its_own(a: Shape, b: Shape) -> None:
    graph = assert_agrees(product(a, b, relu=True))
    assert graph.nodes[-1].op == "relu" and graph.nodes[-1].attributes["clamp"] == (-20, 127)


def attention(heads: int = 2, steps: int = 5, depth: int = 4) -> onnx.ModelProto:
    """softmax(q k^T) v of one input, heads along the channels."""
    net = Qdq((1, heads, steps, depth), seed=6)
    x = net.input()
    keys = net.same_scale("Transpose", x, (1, heads, depth, steps), perm=[0, 1, 3, 2])
    scores = net.quantized(net.node("MatMul", [x, keys]), 0.01, -30, (1, heads, steps, steps))
    return net.model(net.quantized(net.node("MatMul", [scores, x]), 0.02, -40, (1, heads, steps, depth)))


def test_attention() -> None:
    """The transposes around neighbouring products are there and right."""
    graph = assert_agrees(attention())
    assert [node.op for node in graph.nodes].count("batch_matmul") == 2


def test_onnx_refusals() -> None:
    net = Qdq((1, 4, 7), seed=4)
    x = net.input()
    weights, _ = net.weights((1, 7, 5), 0.01, axis=2)
    model = net.model(net.quantized(net.node("MatMul", [x, weights]), 0.05, 3, (1, 4, 5)))
    with pytest.raises(GraphError, match="quantized per channel; expected one scale"):
        read_onnx_bytes(model.SerializeToString())
    net = Qdq((1, 4, 7), seed=4)
    model = finished(net, net.quantized(net.node("MatMul", [net.input(), second_input(net, (1, 6, 5))]), 0.05, 3, (1, 4, 5)))
    with pytest.raises(GraphError, match="matrices of 4x7 and 6x5"):
        read_onnx_bytes(model.SerializeToString())


def matrices(a: Shape, b: Shape, **attributes: Any) -> Graph:
    """One product of scales 0.5, 0.25 and 1."""
    tensors = [
        Tensor("a", a, "int8", Quantization.per_tensor(0.5, 3)),
        Tensor("b", b, "int8", Quantization.per_tensor(0.25, -4)),
        Tensor("y", (), "int8", Quantization.per_tensor(1.0, 7)),
    ]
    node = Node("batch_matmul", (0, 1), (2,), {"adj_x": 0, "adj_y": 0, "clamp": (-128, 127)} | attributes)
    graph = Graph(tensors, [node], (0, 1), (2,))
    tensors[2] = replace(tensors[2], shape=operator_of(node).infer(graph, node)[0].shape)
    return graph


def test_by_hand() -> None:
    """(2 * 12 - 4 * 4) / 8 = 1 and (2 * 5 - 4 * 16) / 8 = -6.75, stored with zero point 7."""
    found = simulate(matrices((1, 2), (2, 2)), np.array([[5, -1]], np.int8), np.array([[8, 1], [0, 12]], np.int8))[0]
    assert found.tolist() == [[7 + 1, 7 - 7]]


def test_adjoints_are_transposed_inputs() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.integers(-128, 128, (1, 3, 5)).astype(np.int8), rng.integers(-128, 128, (1, 5, 4)).astype(np.int8)
    plain = simulate(matrices(a.shape, b.shape), a, b)[0]
    for x in (0, 1):
        for y in (0, 1):
            inputs = [np.ascontiguousarray(v.swapaxes(1, 2)) if flag else v for v, flag in ((a, x), (b, y))]
            graph = matrices(inputs[0].shape, inputs[1].shape, adj_x=x, adj_y=y)
            assert simulate(graph, *inputs)[0].tobytes() == plain.tobytes()


def test_a_transposed_product_is_the_product_of_transposes() -> None:
    rng = np.random.default_rng(3)
    graph = matrices((1, 6, 5), (1, 5, 4))
    shapes = [(1, 4, 5), (1, 5, 6), (1, 4, 6)]
    swapped = [replace(graph.tensors[place], shape=shape) for place, shape in zip((1, 0, 2), shapes, strict=True)]
    turned = Graph(swapped, graph.nodes, (0, 1), (2,))
    a, b = rng.integers(-128, 128, (1, 6, 5)).astype(np.int8), rng.integers(-128, 128, (1, 5, 4)).astype(np.int8)
    other = simulate(turned, b.swapaxes(1, 2).copy(), a.swapaxes(1, 2).copy())[0]
    assert np.array_equal(simulate(graph, a, b)[0], other.swapaxes(1, 2))


def test_batches_are_separate_products() -> None:
    rng = np.random.default_rng(4)
    a, b = rng.integers(-128, 128, (1, 3, 2, 5)).astype(np.int8), rng.integers(-128, 128, (1, 1, 5, 4)).astype(np.int8)
    whole = simulate(matrices(a.shape, b.shape), a, b)[0]
    for batch in range(3):
        assert np.array_equal(simulate(matrices((1, 2, 5), (1, 5, 4)), a[:, batch], b[:, 0])[0], whole[:, batch])


def test_macs_and_steps() -> None:
    graph = matrices((1, 3, 2, 5), (1, 1, 5, 4), adj_y=0)
    operator, node = operator_of(graph.nodes[0]), graph.nodes[0]
    assert operator.macs(graph, node) == 3 * 2 * 5 * 4
    fields = operator.emit(graph, node).fields
    assert fields["axes[0]"] == "{3, 10, 0}" and fields["rank"] == "1"
    assert (fields["a.step"], fields["a.depth_step"], fields["b.step"], fields["b.depth_step"]) == ("5", "1", "1", "4")


def test_two_constants_are_refused() -> None:
    graph = matrices((1, 4, 5), (1, 5, 6))
    for place in range(2):
        shape = graph.tensors[place].shape
        graph.tensors[place] = replace(graph.tensors[place], data=np.zeros(shape, np.int8))
    with pytest.raises(GraphError, match="both matrices are constants"):
        operator_of(graph.nodes[0]).infer(graph, graph.nodes[0])


def test_chain_of_products_in_tflite() -> None:
    """(x x^T) x, one input read three times."""
    build = Build()
    x = build.activation((1, 6, 4), 0.02, 3)
    square = build.activation((1, 6, 6), 0.05, -8)
    cube = build.activation((1, 6, 4), 0.3, 4)
    build.node("batch_matmul", (x, x), square, adj_x=0, adj_y=1, clamp=(-128, 127))
    build.node("batch_matmul", (square, x), cube, adj_x=0, adj_y=0, clamp=(-128, 127))
    graph = build.graph(x, cube)
    model, arrays = write_tflite(graph), inputs_of(graph)
    again = read_tflite_bytes(model)
    assert [node.attributes["adj_y"] for node in again.nodes] == [1, 0]
    wanted = simulate(graph, *arrays)[0].tobytes()
    assert simulate(again, *arrays)[0].tobytes() == litert(model, arrays)[0].tobytes() == wanted


def computed_weights(activation: int = 0, *, bias: bool = False, keep: bool = True) -> bytes:
    """FULLY_CONNECTED of [1, 3, 5] with weights [1, 5] that are another input."""
    build = Build(5)
    x, w = build.activation((1, 3, 5), 0.05, 4), build.activation((1, 5), 0.03, -9)
    y = build.activation((1, 3, 1) if keep else (3, 1), 0.08, -20)
    writer = TfliteWriter(build.graph((x, w), y))
    options = schema.FullyConnectedOptionsT()
    options.keepNumDims, options.fusedActivationFunction = keep, activation
    start = writer.add_constant("bias", np.zeros(1, np.int32), Quantization.per_tensor(0.0015, 0)) if bias else -1
    writer.add("FULLY_CONNECTED", (x, w, start), (y,), options, 4)
    return writer.finish()


@pytest.mark.parametrize(("activation", "operators"), [(0, ["batch_matmul"]), (1, ["batch_matmul", "relu"])])
def test_fully_connected_with_computed_weights(activation: int, operators: list[str]) -> None:
    model = computed_weights(activation)
    graph = read_tflite_bytes(model)
    assert [node.op for node in graph.nodes] == operators
    for seed in range(3):
        arrays = inputs_of(graph, seed)
        assert tflite_micro(model, arrays)[0].tobytes() == simulate(graph, *arrays)[0].tobytes()


def test_computed_weights_that_are_no_product() -> None:
    with pytest.raises(GraphError, match="are computed and there is a bias; supported: constant weights, or no bias"):
        read_tflite_bytes(computed_weights(bias=True))
    with pytest.raises(GraphError, match=r"output \(3, 1\); supported: \[out, in\], \[..., in\] and \[..., out\]"):
        read_tflite_bytes(computed_weights(keep=False))


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("shape", [(1, 5, 5), (1, 3, 5, 5)])
def test_qlinear_matmul_of_two_computed_matrices(dtype: str, shape: Shape) -> None:
    """x times leaky(x) on stored integers; onnxruntime rounds both in another way, and the product sums that up."""
    net = Stored(dtype, shape)
    pairs = {name: net.pair(scale, point) for name, scale, point in (("x", 0.05, 3), ("leaky", 0.04, -20), ("y", 0.2, 9))}
    net.node("QLinearLeakyRelu", ["x", *pairs["x"], *pairs["leaky"]], "leaky", alpha=0.2)
    net.node("QLinearMatMul", ["x", *pairs["x"], "leaky", *pairs["leaky"], *pairs["y"]], "y")
    model = net.model(shape).SerializeToString()
    graph, session = read_onnx_bytes(model), onnxruntime_session(model)
    assert "batch_matmul" in [node.op for node in graph.nodes]
    for seed in range(3):
        stored = np.random.default_rng(seed).integers(-128, 128, shape) + net.offset
        (wanted,) = session.run(None, {"x": stored.astype(dtype)})
        fed = to_ours(stored).astype(graph.tensors[graph.inputs[0]].dtype)
        found = simulate(graph, fed)[0]
        distance = np.abs(found.astype(int) - to_ours(wanted).astype(int))
        assert distance.max() <= 3 and distance.mean() < 0.5


def to_ours(array: np.ndarray) -> np.ndarray:
    """Images from NCHW to NHWC."""
    return np.ascontiguousarray(array.transpose(0, 2, 3, 1)) if array.ndim == 4 else array
