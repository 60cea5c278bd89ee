"""The QOperator form operator by operator, against onnxruntime's own kernels; and what is wrong with such nodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from onnx_agreement import kinds, read
from oracles import from_onnx, onnxruntime_session, tflite_micro, to_onnx
from qoperator_builder import IMAGE, Stored

from firmware_export.graph import Graph, GraphError
from firmware_export.onnx_qoperator import CONCAT, FORMS, QOPERATORS, expanded
from firmware_export.simulate import simulate
from firmware_export.write_tflite import write_tflite

Shape = tuple[int, ...]


def conv(net: Stored, axis: int | None = 0, weights: str = "int8", **attributes: Any) -> Shape:
    pads = {"kernel_shape": [3, 3], "pads": [1, 0, 1, 1]}
    parts = net.weights((6, 3, 3, 3), axis, weights)
    inputs = ["x", *net.pair(0.05, 3), *parts, *net.pair(0.4, -7), net.bias(6)]
    net.node("QLinearConv", inputs, "y", **pads, **attributes)
    return 1, 6, 5, 3


def depthwise(net: Stored) -> Shape:
    inputs = ["x", *net.pair(0.05, 3), *net.weights((3, 1, 3, 3)), *net.pair(0.1, -7)]
    net.node("QLinearConv", inputs, "y", kernel_shape=[3, 3], group=3)
    return 1, 3, 3, 2


def matmul(net: Stored, axis: int | None = 1) -> Shape:
    net.shape = (1, 12)
    net.node("QLinearMatMul", ["x", *net.pair(0.05, 3), *net.weights((12, 7), axis), *net.pair(0.2, -7)], "y")
    return 1, 7


def gemm(net: Stored, transposed: int = 1, bias: bool = True) -> Shape:
    net.shape = (1, 12)
    weights = net.weights((7, 12) if transposed else (12, 7), 0 if transposed else 1)
    inputs = ["x", *net.pair(0.05, 3), *weights, net.bias(7) if bias else "", *net.pair(0.3, -7)]
    net.node("QGemm", inputs, "y", transB=transposed)
    return 1, 7


def binary(op_type: str, constant: bool = False) -> Callable[[Stored], Shape]:
    def build(net: Stored) -> Shape:
        other, scale = ("x", 0.05), 0.1 if op_type == "Add" else 0.3
        second = [other[0], *net.pair(0.05, 3)]
        if constant:
            data = net.rng.integers(-128, 128, (3, 1, 1)) + net.offset
            second = [net.constant(data.astype(net.dtype)), *net.pair(0.02, -9)]
        net.node(f"QLinear{op_type}", ["x", *net.pair(0.05, 3), *second, *net.pair(scale, -7)], "y")
        return net.shape

    return build


def unary(op_type: str, out: tuple[float, int], shape: Shape = IMAGE, **attributes: Any) -> Callable[[Stored], Shape]:
    def build(net: Stored) -> Shape:
        net.node(f"QLinear{op_type}", ["x", *net.pair(0.05, 3), *net.pair(*out)], "y", **attributes)
        return shape

    return build


def concat(net: Stored) -> Shape:
    net.node("MaxPool", ["x"], "pool", kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    groups = [*net.pair(0.06, 5), "x", *net.pair(0.05, 3), "pool", *net.pair(0.05, 3)]
    net.node("QLinearConcat", groups, "y", axis=1)
    return 1, 6, 5, 4


NETS: dict[str, tuple[Callable[[Stored], Shape], int]] = {
    "conv": (conv, 1),
    "conv per tensor": (lambda net: conv(net, None), 1),
    "conv with a stride": (lambda net: (conv(net, strides=[2, 1]), (1, 6, 3, 3))[1], 1),
    "conv with uint8 weights": (lambda net: conv(net, None, "uint8"), 1),
    "depthwise": (depthwise, 1),
    "matmul": (matmul, 1),
    "matmul per tensor": (lambda net: matmul(net, None), 1),
    "gemm": (gemm, 1),
    "gemm, weights not transposed": (lambda net: gemm(net, 0), 1),
    "gemm without bias": (lambda net: gemm(net, bias=False), 1),
    "sum": (binary("Add"), 1),
    "sum with a constant": (binary("Add", True), 1),
    "product": (binary("Mul"), 1),
    "product with a constant": (binary("Mul", True), 1),
    "average": (unary("AveragePool", (0.04, 0), (1, 3, 4, 3), kernel_shape=[2, 2]), 2),
    "average that counts padding": (
        unary("AveragePool", (0.05, 3), (1, 3, 6, 5), kernel_shape=[2, 2], pads=[1] * 4, count_include_pad=1),
        1,
    ),
    "average of everything": (unary("GlobalAveragePool", (0.02, 3), (1, 3, 1, 1)), 1),
    "leaky relu": (unary("LeakyRelu", (0.04, -20), alpha=0.1), 1),
    "sigmoid": (unary("Sigmoid", (1 / 256, -128)), 1),
    "softmax": (unary("Softmax", (1 / 256, -128), axis=1, opset=17), 1),
    "softmax over the columns": (unary("Softmax", (1 / 255, -128), axis=3, opset=17), 1),
    "concatenation": (concat, 1),
}


def answers(model: onnx.ModelProto, graph: Graph, dtype: str, steps: int) -> None:
    """onnxruntime within `steps`, TFLite Micro exactly; stored values in and out."""
    session, twin = onnxruntime_session(model.SerializeToString()), write_tflite(graph)
    shape = graph.tensors[graph.inputs[0]].shape
    limits = np.iinfo(dtype)
    for seed in range(4):
        values = np.random.default_rng(seed).integers(limits.min, limits.max + 1, shape).astype(dtype)
        wanted = from_onnx(session.run(None, {"x": to_onnx(values)})[0])
        (found,) = simulate(graph, values)
        assert found.dtype == wanted.dtype == np.dtype(dtype) and found.shape == wanted.shape
        assert np.abs(found.astype(int) - wanted).max() <= steps
        assert found.tobytes() == tflite_micro(twin, [values])[0].tobytes()


PAIRS = [(name, dtype) for name in NETS for dtype in ("int8", "uint8") if "uint8" not in name or dtype == "uint8"]
"""onnxruntime takes uint8 weights only with uint8 activations."""


@pytest.mark.parametrize(("name", "dtype"), PAIRS)
def test_against_onnxruntime(name: str, dtype: str) -> None:
    build, steps = NETS[name]
    net = Stored(dtype)
    model = net.model(build(net))
    answers(model, read(model), dtype, steps)


def test_every_operator_has_a_net() -> None:
    used: set[str] = set()
    for build, _ in NETS.values():
        net = Stored("int8")
        build(net)
        used |= {node.op_type for node in net.nodes}
    assert used - {"MaxPool"} == set(QOPERATORS)


MOVES: dict[str, tuple[Callable[[Stored, str], str], Shape]] = {
    "MaxPool": (lambda net, x: net.node("MaxPool", [x], "moved", kernel_shape=[2, 2], strides=[2, 2]), (1, 3, 2, 2)),
    "Transpose": (lambda net, x: net.node("Transpose", [x], "moved", perm=[0, 1, 3, 2]), (1, 3, 4, 5)),
    "Flatten": (lambda net, x: net.node("Flatten", [x], "moved"), (1, 60)),
    "Reshape": (lambda net, x: net.node("Reshape", [x, net.constant(np.array([1, 60], np.int64))], "moved"), (1, 60)),
    "Identity": (lambda net, x: net.node("Identity", [x], "moved"), IMAGE),
    "Relu": (lambda net, x: net.node("Relu", [x], "moved"), IMAGE),
    "Clip": (
        lambda net, x: net.node(
            "Clip", [x, *(net.constant(np.array(v + net.offset).astype(net.dtype)) for v in (-90, 77))], "moved"
        ),
        IMAGE,
    ),
    "Clip below": (
        lambda net, x: net.node("Clip", [x, net.constant(np.array(5 + net.offset).astype(net.dtype))], "moved"),
        IMAGE,
    ),
    "Concat": (lambda net, x: net.node("Concat", [x, x], "moved", axis=2), (1, 3, 10, 4)),
    "Gather": (lambda net, x: net.node("Gather", [x, net.constant(np.int64(1))], "moved", axis=1), (1, 5, 4)),
    "Slice": (
        lambda net, x: net.node("Slice", [x, *(net.constant(np.array([v], np.int64)) for v in (1, 4, 2))], "moved"),
        (1, 3, 3, 4),
    ),
    "Pad without value": (
        lambda net, x: net.node("Pad", [x, net.constant(np.array([0, 0, 1, 0, 0, 0, 0, 2], np.int64))], "moved"),
        (1, 3, 6, 6),
    ),
    "Pad with value": (
        lambda net, x: net.node(
            "Pad",
            [x, net.constant(np.array([0, 0, 1, 0, 0, 0, 0, 2], np.int64)), net.constant(np.array(77).astype(net.dtype))],
            "moved",
        ),
        (1, 3, 6, 6),
    ),
}


@pytest.mark.parametrize(
    ("name", "dtype"), [(name, dtype) for name in MOVES for dtype in ("int8", "uint8") if (name, dtype) != ("Relu", "uint8")]
)
def test_moves_of_stored_integers(name: str, dtype: str) -> None:
    """Bytes are moved and chosen without a look at their scale: every one equals onnxruntime's."""
    move, shape = MOVES[name]
    net = Stored(dtype)
    first = net.node("QLinearLeakyRelu", ["x", *net.pair(0.05, 3), *net.pair(0.05, 3)], "first", alpha=1.0)
    net.nodes.append(helper.make_node("Identity", [move(net, first)], ["y"]))
    model = net.model(shape)
    answers(model, read(model), dtype, 0)


# What is refused


def damaged(change: Callable[[Any], None], build: Callable[[Stored], Shape] = conv, dtype: str = "int8") -> str:
    net = Stored(dtype)
    model = net.model(build(net))
    change(model.graph)
    with pytest.raises(GraphError) as caught:
        read(model)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 600
    return str(caught.value)


def replaced(place: int, array: Any, node: int = 0) -> Callable[[Any], None]:
    """An input becomes another constant."""

    def change(graph: Any) -> None:
        graph.initializer.append(numpy_helper.from_array(np.asarray(array), "other"))
        graph.node[node].input[place] = "other"

    return change


def without(place: int, behind: bool = False) -> Callable[[Any], None]:
    """An input is left out, or it and all behind it."""

    def change(graph: Any) -> None:
        if behind:
            del graph.node[0].input[place:]
        else:
            graph.node[0].input[place] = ""

    return change


def renamed(place: int, name: str) -> Callable[[Any], None]:
    return lambda graph: graph.node[0].input.__setitem__(place, name)


def attribute(name: str, value: Any) -> Callable[[Any], None]:
    return lambda graph: graph.node[0].attribute.append(helper.make_attribute(name, value))


def one_output_more(graph: Any) -> None:
    graph.node[0].output.append("more")


def no_outputs(graph: Any) -> None:
    del graph.node[0].output[:]


def named_like_ours(graph: Any) -> None:
    """A value that has the name that the reader would give."""
    graph.node.add().CopyFrom(helper.make_node("Identity", ["x"], ["dequantized/1"]))
    graph.node.insert(0, graph.node.pop())


DAMAGE: dict[str, tuple[Callable[[Any], None], str]] = {
    "no inputs": (without(0, True), "without a value (input 0); expected one"),
    "no scale": (without(1), "without a scale (input 1)"),
    "no zero point": (without(2), "without a zero point (input 2)"),
    "no weights": (without(3, True), "without a value (input 3)"),
    "no output scale": (without(6, True), "without a scale (input 6)"),
    "no output zero point": (without(7), "without a zero point (input 7)"),
    "scale 0": (replaced(1, np.float32(0)), "supported: finite scales above 0"),
    "scale NaN": (replaced(6, np.float32("nan")), "supported: finite scales above 0"),
    "weight scale infinite": (replaced(4, np.full(6, np.inf, np.float32)), "supported: finite scales above 0"),
    "scale of integers": (replaced(1, np.int8(3)), "the scale is int8"),
    "output scale per channel": (replaced(6, np.ones(6, np.float32)), "6 scales and 1 zero points"),
    "zero point of floats": (replaced(2, np.float32(0)), "is float32"),
    "zero point of another type": (replaced(2, np.uint8(131)), "stored as int8, its zero point is uint8"),
    "zero points of 16 bits": (replaced(2, np.int16(3)), "16 bits"),
    "weights of floats": (replaced(3, np.ones((6, 3, 3, 3), np.float32)), "is float32, its zero point int8"),
    "weights of another rank": (replaced(3, np.ones((6, 27), np.int8)), "supported: 2-D convolution"),
    "weights off the middle": (replaced(5, np.full(6, 1, np.int8)), "weight_type=QuantType.QInt8"),
    "weight scales of another count": (replaced(4, np.ones(5, np.float32)), "5 scales and 6 zero points"),
    "bias of floats": (replaced(8, np.ones(6, np.float32)), "is float32"),
    "bias too long": (replaced(8, np.ones(7, np.int32)), "supported: constant int32 (6,)"),
    "bias of bytes": (replaced(8, np.ones(6, np.int8)), "supported: constant int32 (6,)"),
    "computed scale": (renamed(1, "x"), "is not a constant of the model"),
    "computed weight scale": (renamed(4, "x"), "the scale 'x' is not a constant of the model"),
    "computed weights": (renamed(3, "x"), "the activation 'x' is quantized per channel"),
    "unknown value": (renamed(0, "nowhere"), "dequantizes 'nowhere', which nothing before it has quantized"),
    "reads itself": (renamed(0, "y"), "dequantizes 'y', which nothing before it has quantized"),
    "channels last": (attribute("channels_last", 1), "with channels_last; supported: NCHW"),
    "a graph as attribute": (attribute("body", helper.make_graph([], "g", [], [])), "attribute 'body' is of type GRAPH"),
    "groups of 0": (attribute("group", 0), "0 groups"),
    "no outputs": (no_outputs, "has no output"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_named(name: str) -> None:
    change, words = DAMAGE[name]
    assert words in damaged(change)


CONCATS: dict[str, tuple[Callable[[Any], None], str]] = {
    "two inputs": (lambda graph: graph.node[1].input.__delitem__(slice(2, None)), "with 2 inputs|reads the stored"),
    "half a group": (lambda graph: graph.node[1].input.__delitem__(slice(7, None)), "with 7 inputs; expected 2 and 3"),
    "no axis": (lambda graph: graph.node[1].attribute.__delitem__(slice(None)), "Concat without an axis"),
    "axis 9": (lambda graph: setattr(graph.node[1].attribute[0], "i", 9), "axis 9 of a tensor with 4 dimensions"),
    "different sizes": (lambda graph: graph.node[0].attribute.pop(), "concatenated|sizes|shape"),
}


@pytest.mark.parametrize("name", CONCATS)
def test_damaged_concatenations_are_named(name: str) -> None:
    import re

    change, words = CONCATS[name]
    net = Stored("int8")
    model = net.model(concat(net))
    change(model.graph)
    with pytest.raises(GraphError) as caught:
        read(model)
    assert re.search(words, str(caught.value)), str(caught.value)


def test_integers_that_an_operator_cannot_read_are_named() -> None:
    net = Stored("int8")
    net.node("QLinearSigmoid", ["x", *net.pair(0.05, 3), *net.pair(1 / 256, -128)], "first")
    net.node("Sigmoid", ["first"], "y")
    with pytest.raises(GraphError, match="Sigmoid reads the stored int8 'first'; expected a DequantizeLinear before it"):
        read(net.model(IMAGE))


def test_integers_of_different_scales_cannot_be_joined_bare() -> None:
    net = Stored("int8")
    net.node("QLinearSigmoid", ["x", *net.pair(0.05, 3), *net.pair(1 / 256, -128)], "first")
    net.node("Concat", ["first", "x"], "y", axis=1)
    with pytest.raises(GraphError, match="integers of different scales"):
        read(net.model((1, 6, 5, 4)))


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_an_input_that_is_moved_before_its_scale_is_told(dtype: str) -> None:
    """The scale is that with which the moved bytes are read."""
    net = Stored(dtype)
    net.node("MaxPool", ["x"], "pool", kernel_shape=[2, 2])
    net.node("Transpose", ["pool"], "turned", perm=[0, 1, 3, 2])
    net.node("QLinearSigmoid", ["turned", *net.pair(0.05, 3), *net.pair(1 / 256, -128)], "y")
    model = net.model((1, 3, 3, 4))
    answers(model, read(model), dtype, 1)


def test_a_bound_of_integers_that_is_a_float_is_named() -> None:
    net = Stored("int8")
    net.node("QLinearSigmoid", ["x", *net.pair(0.05, 3), *net.pair(1 / 256, -128)], "first")
    net.node("Clip", ["first", net.constant(np.float32(0.5))], "y")
    with pytest.raises(GraphError, match="a bound of Clip on integers is float32"):
        read(net.model(IMAGE))


def test_weights_that_are_clipped_in_the_file() -> None:
    """Some quantizers write a narrow range so."""
    net = Stored("int8")
    data, scale, zero = net.weights((6, 3, 3, 3))
    clipped = net.node("Clip", [data, *(net.constant(np.int8(v)) for v in (-100, 100))], "clipped")
    inputs = ["x", *net.pair(0.05, 3), clipped, scale, zero, *net.pair(0.4, -7), net.bias(6)]
    net.node("QLinearConv", inputs, "y", kernel_shape=[3, 3])
    model = net.model((1, 6, 3, 2))
    graph = read(model)
    answers(model, graph, "int8", 1)
    assert max(int(np.abs(tensor.data).max()) for _, tensor in graph.constants() if tensor.dtype == "int8") == 100


def test_moved_integers_without_a_scale_are_named() -> None:
    """Nothing says what the input's bytes stand for."""
    net = Stored("int8")
    net.node("MaxPool", ["x"], "y", kernel_shape=[2, 2])
    with pytest.raises(GraphError, match="MaxPool reads the stored int8 'x'"):
        read(net.model((1, 3, 4, 3)))


def test_names_that_the_reader_makes_do_not_meet_the_files() -> None:
    net = Stored("int8")
    shape = conv(net)
    net.initializers.append(numpy_helper.from_array(np.int8(1), "dequantized/1"))
    assert kinds(read(net.model(shape))) == ["conv2d"]


def test_more_outputs_than_the_operator_has_change_nothing() -> None:
    net = Stored("int8")
    model = net.model(conv(net))
    model.graph.node[0].output.append("more")
    assert kinds(read(model)) == ["conv2d"]


def test_the_expansion_of_a_convolution() -> None:
    node = helper.make_node("QLinearConv", list("abcdefghi"), ["y"], strides=[2, 2])
    constants = {"b": np.float32(0.5), "e": np.array([0.25, 2], np.float32)}
    names = iter("123456789")
    parts = list(expanded(node, constants, lambda word: word + next(names)))
    assert [part.op_type for part in parts] == [
        "DequantizeLinear", "DequantizeLinear", "Constant", "DequantizeLinear", "Conv", "QuantizeLinear",
    ]  # fmt: skip
    assert list(parts[1].input) == ["d", "e", "f"] and parts[1].attribute[0].i == 0
    assert numpy_helper.to_array(parts[2].attribute[0].t).tolist() == [0.125, 1.0]
    assert list(parts[4].input) == [parts[0].output[0], parts[1].output[0], parts[3].output[0]]
    assert list(parts[5].input[1:]) == ["g", "h"] and list(parts[5].output) == ["y"]
    assert CONCAT not in FORMS and set(QOPERATORS) == {*FORMS, CONCAT}
