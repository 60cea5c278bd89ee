"""QDQ ONNX files -> graph: patterns, layouts and edges, with onnxruntime as the oracle of what the file means."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from graph_builder import inputs_of
from onnx import TensorProto, helper, numpy_helper
from oracles import onnx_stored, onnxruntime_session
from qdq_builder import Qdq, dscnn, resnet

from firmware_export.graph import Graph
from firmware_export.passes import simplify
from firmware_export.read_onnx import read_onnx, read_onnx_bytes
from firmware_export.simulate import simulate
from firmware_export.write_tflite import write_tflite

TRIALS = 12


def read(model: onnx.ModelProto) -> Graph:
    return read_onnx_bytes(model.SerializeToString())


def operators(graph: Graph) -> list[str]:
    return [node.op for node in graph.nodes]


def assert_agrees(model: onnx.ModelProto, graph: Graph, steps: int = 1, share: float = 0.2) -> None:
    """onnxruntime's answers are within `steps`; at most `share` of the values differ at all (it rounds in float)."""
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime_session(model.SerializeToString())
    different = total = 0
    spread: set[int] = set()
    for seed in range(TRIALS):
        inputs = inputs_of(graph, seed)
        for found, wanted in zip(simulate(graph, *inputs), onnx_stored(session, graph, inputs), strict=True):
            assert found.shape == wanted.shape
            distance = np.abs(found.astype(np.int64) - wanted)
            assert distance.max() <= steps
            different, total = different + int(np.count_nonzero(distance)), total + distance.size
            spread |= set(found.reshape(-1).tolist())
    assert different <= share * total
    assert len(spread) > 3, "the answers vary, so that agreement says something"


def one(build: Qdq, output: str) -> tuple[onnx.ModelProto, Graph]:
    model = build.model(output)
    return model, read(model)


# Whole nets


@pytest.mark.parametrize("seed", range(3))
def test_a_residual_net(seed: int) -> None:
    model = resnet(seed)
    graph = read(model)
    kinds = ["conv2d"] * 3 + ["add"] + ["conv2d"] * 3 + ["add", "mean", "reshape", "fully_connected"]
    assert operators(graph) == kinds
    assert_agrees(model, graph, steps=2, share=0.5)


@pytest.mark.parametrize("seed", range(3))
def test_a_depthwise_net(seed: int) -> None:
    model = dscnn(seed)
    graph = read(model)
    assert operators(graph)[:5] == ["conv2d", "depthwise_conv2d", "conv2d", "depthwise_conv2d", "conv2d"]
    assert_agrees(model, graph, steps=2, share=0.5)


def test_no_transpose_and_no_float_is_left() -> None:
    graph = simplify(read(resnet()))
    assert all(tensor.dtype in ("int8", "int32") for tensor in graph.tensors)
    assert graph.tensors[graph.inputs[0]].shape == (1, 8, 8, 1)
    assert graph.tensors[graph.outputs[0]].shape == (1, 5)


def test_scales_and_zero_points_are_kept_as_they_are() -> None:
    net = Qdq((1, 2, 4, 4))
    x = net.input(scale=0.0123456789, zero_point=17)
    y = net.conv(x, 3, scale=0.456789, zero_point=-11)
    graph = read(net.model(y))
    source, result = graph.tensors[graph.inputs[0]], graph.tensors[graph.outputs[0]]
    assert (source.scale, source.zero_point) == (float(np.float32(0.0123456789)), 17)
    assert (result.scale, result.zero_point) == (float(np.float32(0.456789)), -11)
    weights = graph.tensors[graph.nodes[0].inputs[1]]
    stored = {i.name: numpy_helper.to_array(i) for i in net.initializers}
    (scales,) = [a for name, a in stored.items() if name.startswith("ws_")]
    assert weights.quantization is not None and np.array_equal(weights.quantization.scale, scales)


def test_edges_carry_the_names_of_the_file() -> None:
    net = Qdq((1, 1, 3, 3))
    graph = read(net.model(net.conv(net.input("camera"), 2), "scores", "camera"))
    assert graph.tensors[graph.inputs[0]].name == "camera"
    assert graph.tensors[graph.outputs[0]].name == "scores"


def test_two_inputs_keep_the_order_of_the_file() -> None:
    net = Qdq((1, 2, 4, 4))
    x, y = net.input("one"), net.quantized("two", 0.02, 5, (1, 2, 4, 4))
    model = net.model(net.add(y, x), input_name="two")
    model.graph.input.insert(0, helper.make_tensor_value_info("one", TensorProto.FLOAT, (1, 2, 4, 4)))
    graph = read(model)
    assert [graph.tensors[index].name for index in graph.inputs] == ["one", "two"]
    assert_agrees(model, graph)


def test_two_outputs() -> None:
    net = Qdq((1, 2, 6, 6))
    x = net.conv(net.input(), 4)
    y = net.conv(x, 3)
    model = net.model(y)
    model.graph.output.append(helper.make_tensor_value_info(x, TensorProto.FLOAT, net.shapes[x]))
    graph = read(model)
    assert [graph.tensors[index].shape for index in graph.outputs] == [(1, 6, 6, 3), (1, 6, 6, 4)]
    assert_agrees(model, graph)


def test_stored_int8_edges_need_no_quantize_nodes() -> None:
    net = Qdq((1, 2, 4, 4))
    s, z = net.constant(np.float32(0.05)), net.constant(np.int8(3))
    x = net.node("DequantizeLinear", ["input", s, z])
    net.shapes[x], net.scales[x] = net.shape, (0.05, 3)
    y = net.conv(x, 3)
    model = net.model(y)
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.INT8
    quantize = next(node for node in model.graph.node if node.op_type == "QuantizeLinear")
    model.graph.node.remove(model.graph.node[-1])
    quantize.output[0] = "logits"
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.INT8
    graph = read(model)
    assert operators(graph) == ["conv2d"]
    inputs = inputs_of(graph)
    session = onnxruntime_session(model.SerializeToString())
    wanted = session.run(None, {"input": inputs[0].transpose(0, 3, 1, 2)})[0].transpose(0, 2, 3, 1)
    assert np.abs(simulate(graph, *inputs)[0].astype(int) - wanted).max() <= 1


def test_a_batch_without_a_number_is_one() -> None:
    net = Qdq((1, 1, 4, 4))
    model = net.model(net.conv(net.input(), 2))
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    assert read(model).tensors[0].shape == (1, 4, 4, 1)


def test_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(dscnn().SerializeToString())
    assert read_onnx(path).hash() == read(dscnn()).hash()


# Convolutions


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({"stride": 2, "pads": (0, 0, 1, 1)}, (1, 4, 4, 5)),
        ({"stride": 2, "pads": (1, 1, 1, 1)}, (1, 4, 4, 5)),
        ({"stride": 3, "pads": (0, 1, 2, 0)}, (1, 3, 3, 5)),
        ({"pads": (2, 0, 0, 1)}, (1, 8, 7, 5)),
        ({"dilation": 2, "pads": (2, 2, 2, 2)}, (1, 8, 8, 5)),
        ({"bias": False}, (1, 8, 8, 5)),
        ({"per_channel": False}, (1, 8, 8, 5)),
        ({"kernel": 1, "pads": (0, 0, 0, 0)}, (1, 8, 8, 5)),
        ({"kernel": 5}, (1, 8, 8, 5)),
    ],
)
def test_convolutions(options: dict[str, int], shape: tuple[int, ...]) -> None:
    net = Qdq((1, 3, 8, 8), seed=len(options))
    model, graph = one(net, net.conv(net.input(), 5, **options))
    assert graph.tensors[graph.outputs[0]].shape == shape
    assert_agrees(model, graph)


@pytest.mark.parametrize("multiplier", [1, 2])
def test_depthwise_convolutions(multiplier: int) -> None:
    net = Qdq((1, 6, 7, 5), seed=multiplier)
    model, graph = one(net, net.conv(net.input(), 6 * multiplier, group=6))
    assert operators(graph) == ["depthwise_conv2d"]
    assert_agrees(model, graph)


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER", "VALID"])
def test_auto_pad(mode: str) -> None:
    net = Qdq((1, 2, 7, 6))
    x = net.input()
    pads = {"SAME_UPPER": (1, 0, 1, 1), "SAME_LOWER": (1, 1, 1, 0), "VALID": (0, 0, 0, 0)}[mode]
    model = net.model(net.conv(x, 4, stride=2, pads=pads))
    (conv,) = [node for node in model.graph.node if node.op_type == "Conv"]
    (attribute,) = [a for a in conv.attribute if a.name == "pads"]
    conv.attribute.remove(attribute)
    conv.attribute.append(helper.make_attribute("auto_pad", mode))
    assert_agrees(model, read(model))


@pytest.mark.parametrize("per_channel", [True, False])
def test_float_weights_behind_a_quantizer_are_quantized_here(per_channel: bool) -> None:
    """As torch exports them: a float initializer, QuantizeLinear, DequantizeLinear."""
    net = Qdq((1, 3, 6, 6), seed=3)
    model = net.model(net.conv(net.input(), 4, per_channel=per_channel))
    plain = read(model)
    dequantize = next(n for n in model.graph.node if n.op_type == "DequantizeLinear" and n.input[0].startswith("w_"))
    scale = next(numpy_helper.to_array(i) for i in model.graph.initializer if i.name == dequantize.input[1])
    weights = next(i for i in model.graph.initializer if i.name == dequantize.input[0])
    real_weights = numpy_helper.to_array(weights) * (scale.reshape(-1, 1, 1, 1) if per_channel else scale)
    weights.CopyFrom(numpy_helper.from_array(real_weights.astype(np.float32), "float_weights"))
    quantize = helper.make_node("QuantizeLinear", ["float_weights", *dequantize.input[1:]], [dequantize.input[0]])
    quantize.attribute.extend([helper.make_attribute("axis", 0)] if per_channel else [])
    model.graph.node.insert(0, quantize)
    assert_agrees(model, read(model))
    assert read(model).hash() == plain.hash()


# Clamps


@pytest.mark.parametrize("zero_point", [-128, -20, 5])
@pytest.mark.parametrize("activation", ["", "relu", (0.0, 6.0), (-1.0, 1.0), (0.0, 4.0)])
def test_activations_between_operator_and_quantizer_become_clamps(activation: object, zero_point: int) -> None:
    net = Qdq((1, 3, 6, 6), seed=3)
    model, graph = one(net, net.conv(net.input(), 4, activation=activation, scale=0.06, zero_point=zero_point))
    assert operators(graph) == ["conv2d"]
    low, high = {"": (-128, 127), "relu": (zero_point, 127)}.get(str(activation), (None, None))
    if isinstance(activation, tuple):
        low, high = (max(-128, min(127, zero_point + round(bound / 0.06))) for bound in activation)
    assert graph.nodes[0].integers("clamp") == (low, high)
    assert_agrees(model, graph)


def test_saturation_is_the_clamp_where_the_range_is_exactly_zero_to_six() -> None:
    """Without any Clip in the file, the quantizer's own limits clamp to 0..6."""
    net = Qdq((1, 3, 6, 6), seed=3)
    bare, graph = one(net, net.conv(net.input(), 4, activation="", scale=6 / 255, zero_point=-128))
    net = Qdq((1, 3, 6, 6), seed=3)
    _, clipped = one(net, net.conv(net.input(), 4, activation=(0.0, 6.0), scale=6 / 255, zero_point=-128))
    assert graph.nodes[0].attributes == clipped.nodes[0].attributes
    assert graph.hash() == clipped.hash()
    assert_agrees(bare, graph)


def test_clip_with_attributes_as_before_opset_11() -> None:
    net = Qdq((1, 2, 4, 4))
    model = net.model(net.conv(net.input(), 3, activation=(0.0, 6.0), scale=0.05))
    (clip,) = [node for node in model.graph.node if node.op_type == "Clip"]
    del clip.input[1:]
    clip.attribute.extend([helper.make_attribute("min", 0.0), helper.make_attribute("max", 6.0)])
    assert read(model).nodes[0].integers("clamp") == (-128, -8)


def test_clip_with_one_bound_and_relu_behind_it() -> None:
    net = Qdq((1, 2, 4, 4))
    model = net.model(net.conv(net.input(), 3, activation=(-0.5, 2.0), scale=0.05, zero_point=0))
    (clip,) = [node for node in model.graph.node if node.op_type == "Clip"]
    clip.input[1] = ""
    assert read(model).nodes[0].integers("clamp") == (-128, 40)
    relu = helper.make_node("Relu", [clip.output[0]], ["rectified"])
    place = list(model.graph.node).index(clip) + 1
    model.graph.node[place].input[0] = "rectified"
    model.graph.node.insert(place, relu)
    assert read(model).nodes[0].integers("clamp") == (0, 40)


def test_a_relu_of_its_own() -> None:
    net = Qdq((1, 3, 5, 5), seed=2)
    x = net.conv(net.input(), 4, activation="", scale=0.05, zero_point=-10)
    y = net.quantized(net.node("Relu", [x]), 0.04, -128, net.shapes[x])
    model, graph = one(net, y)
    assert operators(graph) == ["conv2d", "relu"]
    assert_agrees(model, graph)


def test_a_relu_that_changes_nothing_leaves_no_node() -> None:
    net = Qdq((1, 3, 5, 5), seed=2)
    x = net.conv(net.input(), 4, scale=0.05, zero_point=-128)
    y = net.quantized(net.node("Relu", [x]), 0.05, -128, net.shapes[x])
    model, graph = one(net, y)
    assert operators(graph) == ["conv2d"]
    assert_agrees(model, graph)


def test_quantizing_again_alike_leaves_no_node() -> None:
    net = Qdq((1, 3, 5, 5), seed=2)
    x = net.conv(net.input(), 4)
    model, graph = one(net, net.quantized(x, *net.scales[x], net.shapes[x]))
    assert operators(graph) == ["conv2d"]
    assert_agrees(model, graph)


# Pools, add, matrix products


@pytest.mark.parametrize("behind", [True, False])
def test_max_pool_keeps_the_scale_with_or_without_a_quantizer(behind: bool) -> None:
    net = Qdq((1, 3, 8, 6), seed=2)
    x, attributes = net.conv(net.input(), 4), {"kernel_shape": [2, 2], "strides": [2, 2]}
    shape = (1, 4, 4, 3)
    y = net.same_scale("MaxPool", x, shape, **attributes) if behind else net.bare("MaxPool", x, shape, **attributes)
    model, graph = one(net, net.conv(y, 3))
    assert operators(graph) == ["conv2d", "max_pool2d", "conv2d"]
    assert_agrees(model, graph)


def test_average_pool() -> None:
    net = Qdq((1, 3, 8, 6), seed=2)
    x = net.conv(net.input(), 4)
    model, graph = one(net, net.same_scale("AveragePool", x, (1, 4, 4, 3), kernel_shape=[2, 2], strides=[2, 2]))
    assert operators(graph) == ["conv2d", "average_pool2d"]
    assert_agrees(model, graph)


@pytest.mark.parametrize("activation", ["", "relu", (0.0, 6.0)])
def test_add(activation: object) -> None:
    net = Qdq((1, 3, 5, 4), seed=9)
    x = net.input()
    model, graph = one(net, net.add(net.conv(x, 4), net.conv(x, 4, activation="", zero_point=12), activation))
    assert operators(graph)[-1] == "add"
    assert_agrees(model, graph)


def test_reduce_mean_over_height_and_width() -> None:
    net = Qdq((1, 3, 5, 4), seed=9)
    x = net.conv(net.input(), 6)
    axes = net.constant(np.array([2, 3], np.int64), "axes")
    kept = net.node("ReduceMean", [x, axes], keepdims=1)
    model, graph = one(net, net.quantized(kept, net.scales[x][0] / 2, -128, (1, 6, 1, 1)))
    assert operators(graph) == ["conv2d", "mean"]
    assert_agrees(model, graph)


def test_reduce_mean_that_drops_the_axes() -> None:
    net = Qdq((1, 3, 5, 4), seed=9)
    x = net.conv(net.input(), 6)
    dropped = net.node("ReduceMean", [x, net.constant(np.array([-1, -2], np.int64))], keepdims=0)
    model, graph = one(net, net.gemm(net.quantized(dropped, net.scales[x][0] / 2, -128, (1, 6)), 4))
    assert operators(graph) == ["conv2d", "mean", "fully_connected"]
    assert_agrees(model, graph)


@pytest.mark.parametrize(("zero_point", "expected"), [(-128, ["conv2d", "mean"]), (-20, ["conv2d", "mean", "relu"])])
def test_a_relu_behind_an_operator_that_cannot_clamp_is_a_node_where_it_does_something(
    zero_point: int, expected: list[str]
) -> None:
    net = Qdq((1, 3, 5, 4), seed=9)
    x = net.conv(net.input(), 6, activation="", zero_point=4)
    relu = net.node("Relu", [net.node("GlobalAveragePool", [x])])
    model, graph = one(net, net.quantized(relu, net.scales[x][0] / 3, zero_point, (1, 6, 1, 1)))
    assert operators(graph) == expected
    assert_agrees(model, graph, share=0.5)
    assert write_tflite(graph)


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("trans_b", [0, 1])
def test_gemm(trans_b: int, per_channel: bool) -> None:
    net = Qdq((1, 12), seed=4)
    model, graph = one(net, net.gemm(net.input(scale=0.05, zero_point=3), 7, trans_b, per_channel))
    assert operators(graph) == ["fully_connected"]
    assert_agrees(model, graph)


def test_softmax_behind_the_scores() -> None:
    net = Qdq((1, 12), seed=4)
    x = net.gemm(net.input(scale=0.002, zero_point=3), 7)
    y = net.quantized(net.node("Softmax", [x], axis=-1), 1 / 256, -128, (1, 7))
    model, graph = one(net, y)
    assert operators(graph) == ["fully_connected", "softmax"]
    assert_agrees(model, graph)


# Flatten and reshape in front of a matrix product


@pytest.mark.parametrize("behind", [True, False], ids=["quantized", "bare"])
@pytest.mark.parametrize("trans_b", [0, 1])
@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("size", [(4, 3, 5), (4, 1, 1), (1, 3, 5)])
def test_flatten_of_an_image_reorders_the_weights(
    size: tuple[int, int, int], per_channel: bool, trans_b: int, behind: bool
) -> None:
    channels, height, width = size
    net = Qdq((1, 2, height, width), seed=7)
    x = net.conv(net.input(), channels)
    shape = (1, channels * height * width)
    flat = net.same_scale("Flatten", x, shape) if behind else net.bare("Flatten", x, shape)
    model, graph = one(net, net.gemm(flat, 5, trans_b, per_channel))
    assert operators(graph) == ["conv2d", "reshape", "fully_connected"]
    assert_agrees(model, graph, steps=2, share=0.3)


@pytest.mark.parametrize(
    ("op_type", "target", "attributes"),
    [
        ("Reshape", [1, -1], {}),
        ("Reshape", [0, -1], {}),
        ("Reshape", [1, 60], {"allowzero": 1}),
        ("Flatten", None, {"axis": 1}),
        ("Flatten", None, {"axis": -3}),
    ],
)
def test_ways_to_flatten(op_type: str, target: list[int] | None, attributes: dict[str, int]) -> None:
    net = Qdq((1, 2, 3, 5), seed=7)
    x = net.conv(net.input(), 4)
    constants = [] if target is None else [net.constant(np.array(target, np.int64))]
    flat = net.bare(op_type, x, (1, 60), *constants, **attributes)
    model, graph = one(net, net.gemm(flat, 5))
    assert_agrees(model, graph, steps=2, share=0.3)


def test_flatten_in_two_steps() -> None:
    net = Qdq((1, 2, 3, 5), seed=7)
    x = net.conv(net.input(), 4)
    half = net.bare("Reshape", x, (1, 4, 15), net.constant(np.array([1, 4, 15], np.int64)))
    flat = net.same_scale("Flatten", half, (1, 60))
    model, graph = one(net, net.gemm(flat, 5))
    assert operators(simplify(graph)) == ["conv2d", "reshape", "fully_connected"]
    assert_agrees(model, graph, steps=2, share=0.3)


def test_squeeze_and_unsqueeze_of_a_pooled_image() -> None:
    net = Qdq((1, 2, 6, 5), seed=7)
    x = net.global_pool(net.conv(net.input(), 8), flatten=False)
    axes = net.constant(np.array([2, 3], np.int64))
    back = net.constant(np.array([2, 3], np.int64))
    x = net.bare("Unsqueeze", net.bare("Squeeze", x, (1, 8), axes), (1, 8, 1, 1), back)
    x = net.bare("Squeeze", x, (1, 8), net.constant(np.array([-1, -2], np.int64)))
    model, graph = one(net, net.gemm(x, 5))
    assert_agrees(model, graph, share=0.5)


def test_dropout_and_identity_vanish() -> None:
    net = Qdq((1, 2, 6, 5), seed=7)
    x = net.global_pool(net.conv(net.input(), 8))
    x = net.bare("Identity", net.bare("Dropout", x, (1, 8)), (1, 8))
    model, graph = one(net, net.gemm(x, 5))
    assert operators(graph) == ["conv2d", "mean", "reshape", "fully_connected"]
    assert_agrees(model, graph, share=0.5)


def test_relu_between_flatten_and_matrix_product_keeps_the_order() -> None:
    net = Qdq((1, 2, 3, 5), seed=7)
    x = net.conv(net.input(), 4, activation="", zero_point=-3)
    flat = net.same_scale("Flatten", x, (1, 60))
    y = net.quantized(net.node("Relu", [flat]), net.scales[x][0], -128, (1, 60))
    model, graph = one(net, net.gemm(y, 5))
    assert operators(graph) == ["conv2d", "reshape", "relu", "fully_connected"]
    assert_agrees(model, graph, steps=2, share=0.3)


def test_reshapes_between_images_that_move_no_channel() -> None:
    net = Qdq((1, 2, 4, 6), seed=7)
    x = net.conv(net.input(), 4)
    wide = net.bare("Reshape", x, (1, 4, 2, 12), net.constant(np.array([1, 4, 2, 12], np.int64)))
    model, graph = one(net, net.conv(wide, 3))
    assert operators(graph) == ["conv2d", "reshape", "conv2d"]
    assert_agrees(model, graph)
