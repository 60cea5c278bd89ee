"""QDQ ONNX files that are refused: each reason has its own sentence."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from qdq_builder import Qdq

from firmware_export.graph import Graph, GraphError
from firmware_export.read_onnx import read_onnx_bytes


def read(model: onnx.ModelProto) -> Graph:
    return read_onnx_bytes(model.SerializeToString())


def refusal(net: Qdq, output: str) -> str:
    with pytest.raises(GraphError) as caught:
        read(net.model(output))
    return str(caught.value)


def test_a_float_model_is_refused_with_the_way_out() -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3, 4, 4))
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 3, 4, 4))
    model = helper.make_model(helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y]))
    with pytest.raises(GraphError, match=r"float model: .*quantize it to int8 first"):
        read(model)


def test_a_missing_quantizer_is_named_with_both_operators() -> None:
    net = Qdq((1, 2, 4, 4))
    x = net.node("LeakyRelu", [net.conv(net.input(), 3)])
    net.shapes[x], net.scales[x] = (1, 3, 4, 4), (1 / 256, -128)
    assert "Conv reads" in (text := refusal(net, net.conv(x, 3))) and "float32" in text


def test_an_output_in_float_is_refused() -> None:
    net = Qdq((1, 12))
    x = net.gemm(net.input(), 4)
    y = net.node("LeakyRelu", [x])
    net.shapes[y] = (1, 4)
    assert "'logits' is computed in float32 by LeakyRelu" in refusal(net, y)


@pytest.mark.parametrize(
    ("op_type", "domain", "words"),
    [
        ("QLinearConv", "", "QLinearConv without a scale"),
        ("QLinearWhere", "com.microsoft", "QOperator form is not supported; supported: QGemm, QLinearAdd"),
        ("ConvInteger", "", "quantized dynamically, .*quantize_static with calibration data"),
        ("DynamicQuantizeLinear", "", "quantized dynamically"),
        ("BatchNormalization", "", "fold it into the convolution before quantizing"),
        ("MatMulNBits", "com.microsoft", "few bits and float activations"),
        ("FusedConv", "com.microsoft", "domain 'com.microsoft'"),
        ("Einsum", "", r"Einsum\) is not supported; supported: .*Conv"),
        ("If", "", r"If\) holds another graph; .* without control flow"),
    ],
)
def test_other_operators_are_refused_by_name(op_type: str, domain: str, words: str) -> None:
    net = Qdq((1, 2, 4, 4))
    x = net.input()
    net.nodes.append(helper.make_node(op_type, [x], ["other"], domain=domain))
    with pytest.raises(GraphError, match=words):
        read(net.model(net.conv(x, 3)))


@pytest.mark.parametrize(
    ("dtype", "words"), [(np.int16, "int16 .16 bits.; supported: 8 bits"), (np.int32, "is int32; supported")]
)
def test_other_activation_types_are_refused_with_the_way_out(dtype: type, words: str) -> None:
    net = Qdq((1, 2, 4, 4))
    s, z = net.constant(np.float32(0.1)), net.constant(dtype(3))
    y = net.node("DequantizeLinear", [net.node("QuantizeLinear", ["input", s, z]), s, z])
    net.shapes[y] = net.shape
    with pytest.raises(GraphError, match=words):
        read(net.model(y))


def test_integer_weights_under_float_activations_are_hybrid() -> None:
    net = Qdq((1, 2, 4, 4))
    w, _ = net.weights((3, 2, 1, 1))
    y = net.node("Conv", ["input", w])
    net.shapes[y] = (1, 3, 4, 4)
    assert "hybrid model" in (text := refusal(net, y)) and "quantize the activations too" in text


def test_asymmetric_weights_are_refused_with_the_way_out() -> None:
    net = Qdq((1, 2, 4, 4))
    inputs = [net.constant(np.ones((3, 2, 1, 1), np.uint8), "w"), net.constant(np.float32(0.1)), net.constant(np.uint8(127))]
    y = net.quantized(net.node("Conv", [net.input(), net.node("DequantizeLinear", inputs)]), 0.1, 0, (1, 3, 4, 4))
    assert "weight_type=QuantType.QInt8" in refusal(net, y)


def test_a_value_stored_as_another_type_is_refused() -> None:
    """uint8 with zero point 128 and int8 with 0 are the same numbers, but not the same bytes."""
    net = Qdq((1, 2, 4, 4))
    x = net.node("QuantizeLinear", ["input", net.constant(np.float32(0.1)), net.constant(np.uint8(128))])
    y = net.node("DequantizeLinear", [x, net.constant(np.float32(0.1)), net.constant(np.int8(0))])
    net.shapes[y] = net.shape
    assert "stored as uint8, its zero point is int8" in refusal(net, y)


def test_float_weights_are_refused() -> None:
    net = Qdq((1, 2, 4, 4))
    w = net.constant(np.ones((3, 2, 1, 1), np.float32), "w")
    y = net.quantized(net.node("Conv", [net.input(), w]), 0.1, 0, (1, 3, 4, 4))
    assert "float32 constant" in refusal(net, y)


def test_a_value_dequantized_with_another_scale_is_refused() -> None:
    net = Qdq((1, 2, 4, 4))
    x = net.node("QuantizeLinear", ["input", net.constant(np.float32(0.1)), net.constant(np.int8(0))])
    y = net.node("DequantizeLinear", [x, net.constant(np.float32(0.2)), net.constant(np.int8(0))])
    net.shapes[y] = net.shape
    assert "another scale than it was quantized with" in refusal(net, y)


def test_a_value_quantized_in_two_ways_is_refused() -> None:
    net = Qdq((1, 2, 4, 4))
    x = net.input()
    y = net.conv(x, 3, scale=0.5)
    value = next(node for node in net.nodes if node.op_type == "Relu").output[0]
    z = net.quantized(value, 0.25, 0, net.shapes[y])
    assert "quantized in two ways" in refusal(net, net.add(y, z))
    net = Qdq((1, 2, 4, 4))
    x, other = net.input(), net.quantized("input", 0.5, 0, net.shape)
    assert "quantized in two ways" in refusal(net, net.add(x, other))


def test_an_input_without_fixed_size_is_refused() -> None:
    net = Qdq((1, 2, 4, 4))
    model = net.model(net.conv(net.input(), 3))
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
    with pytest.raises(GraphError, match=r"dynamic shape .*fixed input shape"):
        read(model)


def test_a_declared_output_shape_that_is_wrong_is_refused() -> None:
    net = Qdq((1, 2, 4, 4))
    model = net.model(net.conv(net.input(), 3))
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 5
    with pytest.raises(GraphError, match="another shape than its operators make"):
        read(model)


def test_an_input_that_is_never_quantized_is_refused() -> None:
    net = Qdq((1, 2, 4, 4))
    model = net.model(net.conv(net.input(), 3))
    model.graph.input.append(helper.make_tensor_value_info("spare", TensorProto.FLOAT, (1, 2)))
    with pytest.raises(GraphError, match="'spare' is never quantized"):
        read(model)


def test_an_old_opset_is_refused() -> None:
    net = Qdq((1, 2, 4, 4))
    model = net.model(net.conv(net.input(), 3))
    model.opset_import[0].version = 9
    with pytest.raises(GraphError, match="opset 9; supported: 10"):
        read(model)
