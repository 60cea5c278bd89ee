"""Several float operators that mean one, numbers that stay float, constant subgraphs: against onnxruntime."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx_agreement import agrees, kinds, read
from qdq_builder import Qdq

from firmware_export.graph import GraphError
from firmware_export.onnx_patterns import clamp_on, hard_swish_input

SHAPE = (1, 3, 4, 5)


def number(net: Qdq, value: float) -> str:
    return net.constant(np.float32(value), "number")


def of_input(step: Callable[[Qdq, str], str], scale: float = 0.05, zero_point: int = 4, out: float = 0.05) -> onnx.ModelProto:
    """A model of some float operators between two quantizers."""
    net = Qdq(SHAPE, 2)
    x = net.input(scale=scale, zero_point=zero_point)
    return net.model(net.quantized(step(net, x), out, -17, SHAPE))


# Hard swish and hard sigmoid


def gate(net: Qdq, x: str) -> str:
    """clip(x + 3, 0, 6)."""
    return net.node("Clip", [net.node("Add", [x, number(net, 3)]), number(net, 0), number(net, 6)])


def sixth_sigmoid(net: Qdq, x: str) -> str:
    return net.node("HardSigmoid", [x], alpha=1 / 6, beta=0.5)


SWISHES: dict[str, Callable[[Qdq, str], str]] = {
    "operator": lambda net, x: net.node("HardSwish", [x]),
    "gate last": lambda net, x: net.node("Mul", [x, sixth_sigmoid(net, x)]),
    "gate first": lambda net, x: net.node("Mul", [sixth_sigmoid(net, x), x]),
    "divided in the end": lambda net, x: net.node("Div", [net.node("Mul", [x, gate(net, x)]), number(net, 6)]),
    "divided gate": lambda net, x: net.node("Mul", [x, net.node("Div", [gate(net, x), number(net, 6)])]),
    "sixth of the gate": lambda net, x: net.node("Mul", [net.node("Mul", [number(net, 1 / 6), gate(net, x)]), x]),
    "halves and thirds": lambda net, x: net.node(
        "Div", [net.node("Mul", [net.node("Mul", [x, gate(net, x)]), number(net, 0.5)]), number(net, 3)]
    ),
}


@pytest.mark.parametrize("form", SWISHES)
def test_hard_swish(form: str) -> None:
    assert kinds(agrees(of_input(SWISHES[form]))) == ["hard_swish"]


@pytest.mark.parametrize(("alpha", "beta"), [(0.2, 0.5), (1 / 6, 0.4)])
def test_a_gate_of_another_slope_is_a_product(alpha: float, beta: float) -> None:
    graph = agrees(of_input(lambda net, x: net.node("Mul", [x, net.node("HardSigmoid", [x], alpha=alpha, beta=beta)])), steps=2)
    assert kinds(graph) == ["add", "mul", "mul"]


NO_SWISHES: dict[str, Callable[[Qdq, str], str]] = {
    "a fifth": lambda net, x: net.node("Div", [net.node("Mul", [x, gate(net, x)]), number(net, 5)]),
    "its own square": lambda net, x: net.node("Mul", [gate(net, x), gate(net, x)]),
}


@pytest.mark.parametrize("form", NO_SWISHES)
def test_what_only_looks_like_hard_swish_is_refused(form: str) -> None:
    with pytest.raises(GraphError, match="in float32; expected QuantizeLinear and DequantizeLinear before it"):
        read(of_input(NO_SWISHES[form]))


def test_hard_swish_looks_through_no_other_values() -> None:
    """x * gate(z) is no hard swish of x."""
    nodes = {
        "g": helper.make_node("HardSigmoid", ["z"], ["g"], alpha=1 / 6, beta=0.5),
        "y": helper.make_node("Mul", ["x", "g"], ["y"]),
    }
    assert hard_swish_input("y", nodes, {}) is None
    nodes["g"].input[0] = "x"
    assert hard_swish_input("y", nodes, {}) == "x"
    assert hard_swish_input("g", nodes, {}) is None and hard_swish_input("nothing", nodes, {}) is None


@pytest.mark.parametrize(("alpha", "beta"), [(1 / 6, 0.5), (0.2, 0.5), (0.3, 0.1), (1.0, 0.0), (0.05, -0.2)])
@pytest.mark.parametrize(("out", "zero_point"), [(1 / 256, -128), (1 / 200, 7)])
def test_hard_sigmoid(alpha: float, beta: float, out: float, zero_point: int) -> None:
    net = Qdq(SHAPE, 2)
    y = net.node("HardSigmoid", [net.input(scale=0.05, zero_point=4)], alpha=alpha, beta=beta)
    graph = agrees(net.model(net.quantized(y, out, zero_point, SHAPE)))
    assert kinds(graph) == ["add", "mul"]


def test_hard_sigmoid_that_falls_is_refused() -> None:
    with pytest.raises(GraphError, match="HardSigmoid with alpha -1"):
        read(of_input(lambda net, x: net.node("HardSigmoid", [x], alpha=-1.0)))


# Clamps in other words

CLAMPED: dict[str, tuple[Callable[[Qdq, str], str], int]] = {
    "relu as max": (lambda net, x: net.node("Max", [x, number(net, 0)]), 1),
    "relu as max of the other order": (lambda net, x: net.node("Max", [number(net, 0), x]), 1),
    "relu6 as min of max": (lambda net, x: net.node("Min", [net.node("Max", [x, number(net, 0)]), number(net, 6)]), 1),
    "relu6 as clip of relu": (lambda net, x: net.node("Clip", [net.node("Relu", [x]), "", number(net, 6)]), 1),
    "relu of relu": (lambda net, x: net.node("Relu", [net.node("Relu", [x])]), 1),
    "a clip wider than the range": (lambda net, x: net.node("Clip", [x, number(net, -100), number(net, 100)]), 0),
    "nothing": (lambda net, x: net.node("Identity", [x]), 0),
}


@pytest.mark.parametrize("form", CLAMPED)
def test_clamps(form: str) -> None:
    step, nodes = CLAMPED[form]
    net = Qdq(SHAPE, 2)
    x = net.input(scale=0.05, zero_point=4)
    y = net.conv(x, 3, activation="", scale=0.05, zero_point=4)
    z = net.quantized(step(net, y), 0.05, 4, SHAPE)
    model = net.model(z)
    assert kinds(agrees(model)) == ["conv2d"], "passes make the clamp a part of the convolution"
    assert len(read(model).nodes) == 1 + nodes


def test_where_saturation_is_the_clamp_nothing_is_left() -> None:
    """The quantizer starts the range at 0, so that Relu is what int8 does anyway; at 6 it ends it."""
    for activation in ("relu", (0.0, 6.0)):
        net = Qdq(SHAPE, 2)
        y = net.conv(net.input(), 3, activation=activation, scale=6 / 255, zero_point=-128)
        graph = agrees(net.model(y))
        assert kinds(graph) == ["conv2d"] and graph.nodes[0].integers("clamp") == (-128, 127)


def test_a_clamp_that_no_quantizer_follows_keeps_its_scale() -> None:
    net = Qdq(SHAPE, 2)
    x = net.input(scale=0.05, zero_point=4)
    relu = net.bare("Relu", x, SHAPE)
    y = net.same_scale("MaxPool", relu, (1, 3, 3, 4), kernel_shape=[2, 2])
    assert kinds(agrees(net.model(y)))[-1] == "max_pool2d"


def test_bounds_read() -> None:
    constants = {"zero": np.float32(0), "many": np.zeros(3, np.float32), "nan": np.float32("nan")}
    make = helper.make_node
    assert clamp_on(make("Max", ["x", "zero"], ["y"]), constants) == ((0.0, np.inf), "x")
    assert clamp_on(make("Min", ["zero", "x"], ["y"]), constants) == ((-np.inf, 0.0), "x")
    for inputs in (["x", "many"], ["x", "nan"], ["x", "z"], ["x"], ["x", "zero", "zero"]):
        assert clamp_on(make("Max", inputs, ["y"]), constants) is None
    assert clamp_on(make("Add", ["x", "zero"], ["y"]), constants) is None
    assert clamp_on(make("Relu", ["x"], ["y"]), {}) == ((0.0, np.inf), "x")


# Numbers that stay float


@pytest.mark.parametrize("value", [0.5, 3.0, -1.7, 1e-3])
@pytest.mark.parametrize("op_type", ["Add", "Sub", "Mul", "Div"])
def test_arithmetic_with_a_number(op_type: str, value: float) -> None:
    out = {"Mul": 0.05 * abs(value), "Div": 0.05 / abs(value)}.get(op_type, 0.06)
    graph = agrees(of_input(lambda net, x: net.node(op_type, [x, number(net, value)]), out=out))
    assert kinds(graph) == [{"Div": "mul"}.get(op_type, op_type.lower())]


def test_a_number_less_a_value() -> None:
    agrees(of_input(lambda net, x: net.node("Sub", [number(net, 1), x])))


def test_a_stored_divisor() -> None:
    def step(net: Qdq, x: str) -> str:
        inputs = [net.constant(np.array([57], np.int8)), number(net, 0.07), net.constant(np.int8(3))]
        return net.node("Div", [x, net.node("DequantizeLinear", inputs)])

    assert kinds(agrees(of_input(step, out=0.05 / 3.5))) == ["mul"]


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (lambda net, x: net.node("Div", [number(net, 1), x]), "supported: by one constant number"),
        (lambda net, x: net.node("Div", [x, number(net, 0)]), "by one constant number other than 0"),
        (lambda net, x: net.node("Div", [x, x]), "Div by 'input' .*; supported: by one constant number"),
        (lambda net, x: net.node("Mul", [x, number(net, float("inf"))]), "store it as integers"),
        (lambda net, x: net.node("Mul", [x, net.constant(np.ones((3, 1, 1), np.float32))]), "store it as integers"),
        (lambda net, x: net.node("Softmax", [number(net, 1)]), "float32 constant|both|not"),
    ],
)
def test_other_float_constants_are_refused(step: Callable[[Qdq, str], str], words: str) -> None:
    with pytest.raises(GraphError, match=words):
        read(of_input(step))


@pytest.mark.parametrize("slopes", [np.float32(0.25), np.array([[[0.1]], [[0.37]], [[-0.2]]], np.float32)])
def test_slopes_of_prelu_may_stay_float(slopes: np.ndarray) -> None:
    """onnxruntime's quantizer leaves them; one number is exact, several are rounded to 1/127 of the largest."""
    graph = agrees(of_input(lambda net, x: net.node("PRelu", [x, net.constant(slopes)])))
    assert kinds(graph) == ["prelu"]


# Values that nothing quantizes


def test_moves_between_an_operator_and_its_quantizer() -> None:
    """Each reader has its own scale, so that the operator is made for each."""
    net = Qdq((1, 4, 4, 6), 3)
    turned = net.node("Transpose", [net.node("LeakyRelu", [net.input(zero_point=3)], alpha=0.1)], perm=[0, 1, 3, 2])
    one, other = (
        net.node("Slice", [turned, *(net.constant(np.array([v], np.int64)) for v in (first, first + 2, 1))]) for first in (0, 2)
    )
    x = net.quantized(net.node("Relu", [one]), 1 / 300, -128, (1, 2, 6, 4))
    y = net.quantized(other, 1 / 250, -5, (1, 2, 6, 4))
    graph = agrees(net.model(net.quantized(net.node("Concat", [x, y], axis=1), 1 / 250, -5, (1, 4, 6, 4))))
    assert kinds(graph).count("leaky_relu") == 2


def test_swish_by_a_sigmoid_that_stays_float() -> None:
    graph = agrees(of_input(lambda net, x: net.node("Mul", [x, net.node("Sigmoid", [x])])), steps=1)
    assert kinds(graph) == ["logistic", "mul"]


@pytest.mark.parametrize("op_type", ["Sigmoid", "Softmax", "Tanh", "HardSigmoid"])
def test_a_bounded_function_as_output_has_its_natural_scale(op_type: str) -> None:
    net = Qdq((1, 12), 3)
    y = net.node(op_type, [net.gemm(net.input(), 6)])
    net.shapes[y] = (1, 6)
    graph = agrees(net.model(y))
    assert graph.tensors[graph.outputs[0]].scale == pytest.approx(1 / {"Tanh": 128, "HardSigmoid": 255}.get(op_type, 256))


# Constant subgraphs


def flattened_by_shape(net: Qdq, x: str, outputs: int) -> str:
    """What a tracer writes for x.view(x.shape[0], -1)."""
    batch = net.node("Gather", [net.node("Shape", [x]), net.constant(np.int64(0))], axis=0)
    first = net.node("Unsqueeze", [batch, net.constant(np.array([0], np.int64))])
    target = net.node("Concat", [first, net.constant(np.array([-1], np.int64))], axis=0)
    return net.bare("Reshape", x, (1, outputs), target)


def test_a_shape_that_is_computed() -> None:
    net = Qdq((1, 3, 4, 6), 3)
    x = net.conv(net.input(), 4)
    graph = agrees(net.model(net.gemm(flattened_by_shape(net, x, 96), 5)))
    assert kinds(graph) == ["conv2d", "reshape", "fully_connected"]


def test_arithmetic_on_shapes() -> None:
    """channels * height, and the rest, with casts, a slice, a product and Constant nodes."""
    net = Qdq((1, 3, 4, 6), 3)
    x = net.conv(net.input(), 2, scale=0.03)
    sizes = net.node("Slice", [net.node("Shape", [x]), *(net.constant(np.array([v], np.int64)) for v in (1, 3))])
    product = net.node("ReduceProd", [net.node("Cast", [sizes], to=TensorProto.FLOAT)], keepdims=1)
    product = net.node("Cast", [product], to=TensorProto.INT64)
    one = net.node("Constant", [], value=helper.make_tensor("one", TensorProto.INT64, [1], [1]))
    target = net.node("Concat", [one, product, net.node("Neg", [one])], axis=0)
    y = net.bare("Reshape", x, (1, 8, 6), target)
    graph = agrees(net.model(net.quantized(net.node("Tanh", [y]), 1 / 128, 0, (1, 8, 6))))
    assert "tanh" in kinds(graph)


def test_weights_that_are_transposed_in_the_file() -> None:
    """Per channel: the scales' axis moves with the weights."""
    for per_channel in (True, False):
        net = Qdq((1, 12), 3)
        weights, scale = net.weights((5, 12), 0.02, per_channel)
        bias = net.bias(5, np.float32(net.scales[x := net.input()][0]) * scale)
        moved = net.node("Transpose", [weights], perm=[1, 0])
        y = net.quantized(net.node("Gemm", [x, moved, bias]), 0.05, 3, (1, 5))
        assert kinds(agrees(net.model(y))) == ["fully_connected"]


def test_weights_that_are_reshaped_in_the_file() -> None:
    net = Qdq((1, 3, 4, 6), 3)
    weights, _ = net.weights((4, 27), 0.02)
    shaped = net.node("Reshape", [weights, net.constant(np.array([4, 3, 3, 3], np.int64))])
    y = net.quantized(net.node("Conv", [net.input(), shaped]), 0.05, 3, (1, 4, 2, 4))
    assert kinds(agrees(net.model(y))) == ["conv2d"]


def test_weights_whose_channels_are_mixed_are_refused() -> None:
    net = Qdq((1, 3, 4, 6), 3)
    weights, _ = net.weights((4, 27), 0.02)
    shaped = net.node("Reshape", [weights, net.constant(np.array([2, 6, 3, 3], np.int64))])
    y = net.quantized(net.node("Conv", [net.input(), shaped]), 0.05, 3, (1, 2, 2, 4))
    with pytest.raises(GraphError, match="mixes the channels of its 4 scales"):
        read(net.model(y))


def test_float_weights_computed_before_they_are_quantized() -> None:
    net = Qdq((1, 3, 4, 6), 3)
    real = net.node("Mul", [net.constant(net.rng.normal(0, 1, (4, 3, 1, 1)).astype(np.float32)), number(net, 0.5)])
    scale, zero = number(net, 0.01), net.constant(np.int8(0))
    weights = net.node("DequantizeLinear", [net.node("QuantizeLinear", [real, scale, zero]), scale, zero])
    y = net.quantized(net.node("Conv", [net.input(), weights]), 0.02, 3, (1, 4, 4, 6))
    assert kinds(agrees(net.model(y))) == ["conv2d"]


@pytest.mark.parametrize(("index", "axis", "shape"), [(1, 1, (1, 4, 5)), (-1, 2, (1, 3, 5)), (0, 3, (1, 3, 4))])
def test_one_index_of_an_axis(index: int, axis: int, shape: tuple[int, ...]) -> None:
    """The axis is dropped, so that what is left is in the file's order."""
    net = Qdq(SHAPE, 2)
    y = net.same_scale("Gather", net.input(), shape, net.constant(np.int64(index)), axis=axis)
    assert kinds(agrees(net.model(y), steps=0))[0] == "strided_slice"


def test_neighbouring_indexes_of_an_axis() -> None:
    net = Qdq(SHAPE, 2)
    y = net.same_scale("Gather", net.input(), (1, 3, 2, 5), net.constant(np.array([1, 2], np.int64)), axis=2)
    assert kinds(agrees(net.model(y), steps=0)) == ["strided_slice"]


def test_other_indexes_are_refused() -> None:
    net = Qdq(SHAPE, 2)
    y = net.same_scale("Gather", net.input(), (1, 3, 2, 5), net.constant(np.array([2, 0], np.int64)), axis=2)
    with pytest.raises(GraphError, match=r"Gather of the indexes \[2, 0\]; supported: one index, or neighbours"):
        read(net.model(y))


def test_the_shape_of_a_float_value_follows_from_shapes_that_are_known() -> None:
    net = Qdq(SHAPE, 2)
    pending = net.node(
        "Add", [net.node("Transpose", [net.node("Sigmoid", [net.input()])], perm=[0, 1, 3, 2]), number(net, 0.5)]
    )
    batch = net.node("Slice", [net.node("Shape", [pending]), *(net.constant(np.array([v], np.int64)) for v in (0, 2))])
    target = net.node("Concat", [batch, net.constant(np.array([-1], np.int64))], axis=0)
    y = net.quantized(net.node("Reshape", [pending, target]), 1.5 / 255, -128, (1, 3, 20))
    assert kinds(agrees(net.model(y)))[0] == "logistic"


def test_the_shape_of_an_unstored_convolution_is_refused() -> None:
    net = Qdq(SHAPE, 2)
    weights, _ = net.weights((3, 3, 1, 1), 0.02)
    pending = net.node("Conv", [net.input(), weights])
    target = net.node("Shape", [pending])
    y = net.quantized(net.node("Reshape", [pending, target]), 1 / 256, -128, SHAPE)
    with pytest.raises(GraphError, match=r"the shape of .* is not known before it is quantized"):
        read(net.model(y))


# Values between operators that nothing quantizes


def test_an_operator_reads_a_clamped_value() -> None:
    """The clamp keeps the scale of what it reads, so that no QuantizeLinear is needed between it and a convolution."""
    net = Qdq(SHAPE, 2)
    x = net.input(scale=0.05, zero_point=4)
    relu = net.bare("Relu", net.bare("Transpose", x, (1, 3, 5, 4), perm=[0, 1, 3, 2]), (1, 3, 5, 4))
    graph = agrees(net.model(net.conv(relu, 4)), steps=1)
    assert kinds(graph) == ["transpose", "relu", "conv2d"] or kinds(graph) == ["relu", "transpose", "conv2d"]


def test_a_matmul_of_flattened_weights_of_three_dimensions() -> None:
    """Weights that are no matrix cannot be reordered: the flattened image is brought into the file's order."""
    net = Qdq((1, 3, 4, 6), 3)
    flat = net.bare("Reshape", net.input(), (1, 1, 72), net.constant(np.array([1, 1, 72], np.int64)))
    weights, _ = net.weights((1, 72, 5), 0.01, per_channel=False)
    y = net.quantized(net.node("MatMul", [flat, weights]), 0.05, 3, (1, 1, 5))
    assert "transpose" in kinds(agrees(net.model(y)))


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (lambda net, x: net.node("Relu", [net.weights(SHAPE)[0]]), "quantizes the constant .* again"),
        (lambda net, x: net.node("Flatten", [net.node("Relu", [net.weights(SHAPE)[0]])]), "constant"),
        (lambda net, x: net.node("Add", [net.node("LeakyRelu", [x]), net.node("Sigmoid", [x])]), "reads .* in float32"),
        (lambda net, x: net.node("Where", [x, x, x]), "Where computes: not supported"),
        (lambda net, x: net.node("Gather", [x, net.node("Cast", [x], to=TensorProto.INT64)]), "the index .* is not a constant"),
    ],
)
def test_chains_that_are_refused(step: Callable[[Qdq, str], str], words: str) -> None:
    with pytest.raises(GraphError, match=words):
        read(of_input(step))


def test_shapes_that_do_not_broadcast_are_refused() -> None:
    net = Qdq(SHAPE, 2)
    pending = net.node(
        "Add", [net.input(), net.node("DequantizeLinear", [net.constant(np.zeros((7,), np.int8)), number(net, 1)])]
    )
    y = net.quantized(net.node("Reshape", [pending, net.node("Shape", [pending])]), 0.1, 0, SHAPE)
    with pytest.raises(GraphError, match="expected shapes that broadcast"):
        read(net.model(y))


def test_inputs_of_other_types_are_refused() -> None:
    net = Qdq(SHAPE, 2)
    model = net.model(net.conv(net.input(), 3))
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.INT64
    with pytest.raises(GraphError, match="model input 'input' is int64; supported: float32, int8 and uint8"):
        read(model)
