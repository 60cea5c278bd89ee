"""The .tflite writer: what is in the file, that runtimes take it, and that reading it gives the same graph."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from graph_builder import Build, inputs_of, quantized, small_net
from oracles import litert, tflite_micro
from qdq_builder import dscnn, resnet

from firmware_export.graph import Graph, GraphError, Node, Quantization, Tensor
from firmware_export.passes import simplify
from firmware_export.read_onnx import read_onnx_bytes
from firmware_export.read_tflite import read_tflite_bytes
from firmware_export.simulate import simulate
from firmware_export.write_tflite import TfliteWriter, write_tflite


def unpacked(data: bytes) -> Any:
    return schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0))


def builtins(data: bytes) -> list[str]:
    names = {code: name for name, code in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
    model = unpacked(data)
    return [names[model.operatorCodes[operator.opcodeIndex].builtinCode] for operator in model.subgraphs[0].operators]


def one_conv(**options: Any) -> Graph:
    build = Build(3)
    x = build.activation((1, 7, 8, 3), 0.02, options.pop("input_zero_point", -5), "x")
    return build.graph(x, build.conv(x, 4, **options))


def test_the_file_has_its_identifier_version_and_one_subgraph() -> None:
    data = write_tflite(small_net())
    assert data[4:8] == b"TFL3"
    model = unpacked(data)
    assert model.version == 3 and len(model.subgraphs) == 1
    assert model.buffers[0].data is None, "buffer 0 is the empty one"


def test_the_same_graph_gives_the_same_bytes() -> None:
    assert write_tflite(small_net(5)) == write_tflite(small_net(5))
    assert write_tflite(small_net(5)) != write_tflite(small_net(6))


def test_operator_codes_stand_once_and_in_both_fields() -> None:
    model = unpacked(write_tflite(small_net()))
    codes = [(code.builtinCode, code.deprecatedBuiltinCode, code.version) for code in model.operatorCodes]
    assert len(set(codes)) == len(codes)
    assert all(old == min(new, 127) for new, old, _ in codes)
    versions = {code: version for code, _, version in codes}
    assert versions[schema.BuiltinOperator.CONV_2D] == 3


def test_constants_start_at_multiples_of_sixteen() -> None:
    data = write_tflite(small_net())
    model = schema.Model.GetRootAs(data, 0)
    starts = []
    for index in range(model.BuffersLength()):
        buffer = model.Buffers(index)
        if not buffer.DataIsNone():
            starts.append(buffer._tab.Vector(buffer._tab.Offset(4)))
    assert len(starts) > 5 and all(start % 16 == 0 for start in starts)


def test_tensors_say_shape_type_and_quantization() -> None:
    graph = one_conv()
    tensors = {tensor.name.decode(): tensor for tensor in unpacked(write_tflite(graph)).subgraphs[0].tensors}
    x = tensors["x"]
    assert list(x.shape) == [1, 7, 8, 3] and x.type == schema.TensorType.INT8
    assert x.quantization.scale.dtype == np.float32 and list(x.quantization.zeroPoint) == [-5]
    weights = next(t for name, t in tensors.items() if name.startswith("w"))
    assert weights.quantization.quantizedDimension == 0 and len(weights.quantization.scale) == 4
    bias = next(t for name, t in tensors.items() if name.startswith("b"))
    assert bias.type == schema.TensorType.INT32 and list(bias.quantization.zeroPoint) == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("padding", "stride", "expected"),
    [
        ((0, 0, 0, 0), 1, ["CONV_2D"]),
        ((1, 1, 1, 1), 1, ["CONV_2D"]),
        ((1, 1, 0, 1), 2, ["CONV_2D"]),
        ((1, 1, 1, 1), 2, ["PAD", "CONV_2D"]),
        ((0, 1, 0, 1), 2, ["PAD", "CONV_2D"]),
        ((2, 2, 2, 2), 1, ["PAD", "CONV_2D"]),
        ((0, 2, 1, 0), 1, ["PAD", "CONV_2D"]),
    ],
)
def test_a_pad_is_added_only_where_the_padding_is_neither_same_nor_valid(
    padding: tuple[int, ...], stride: int, expected: list[str]
) -> None:
    """7x8 with stride 2 and a 3x3 kernel: SAME is one row above and below, one column to the right."""
    graph = one_conv(padding=padding, stride=stride)
    data = write_tflite(graph)
    assert builtins(data) == expected
    for seed in range(3):
        inputs = inputs_of(graph, seed)
        found = simulate(graph, *inputs)[0].tobytes()
        assert found == tflite_micro(data, inputs)[0].tobytes() == litert(data, inputs)[0].tobytes()


def test_the_pad_is_filled_with_the_zero_point() -> None:
    data = write_tflite(one_conv(padding=(1, 0, 0, 2), input_zero_point=77))
    padded = next(t for t in unpacked(data).subgraphs[0].tensors if t.name.endswith(b"padded"))
    assert list(padded.quantization.zeroPoint) == [77] and list(padded.shape) == [1, 8, 10, 3]


def pool_padding(fill: int | None) -> tuple[bytes, np.ndarray]:
    """A max pool behind the writer's own padding."""
    tensors = [quantized("x", (1, 4, 4, 1), 0.1, 0), quantized("y", (1, 3, 3, 1), 0.1, 0)]
    writer = TfliteWriter(Graph(tensors, [], (0,), (1,)))
    index, padding = writer.padded_input(0, (1, 1, 1, 1), (2, 2), (2, 2), fill=fill)
    options = schema.Pool2DOptionsT(padding=padding, strideH=2, strideW=2, filterHeight=2, filterWidth=2)
    writer.add("MAX_POOL_2D", (index,), (1,), options, 2)
    data = writer.finish()
    image = np.full((1, 4, 4, 1), -50, np.int8)
    answer = tflite_micro(data, [image])[0]
    assert litert(data, [image])[0].tobytes() == answer.tobytes()
    return data, answer[0, :, :, 0]


def test_padding_with_another_value_takes_padv2() -> None:
    data, answer = pool_padding(-128)
    assert builtins(data) == ["PADV2", "MAX_POOL_2D"]
    assert np.all(answer == -50), "the padding never wins"
    data, answer = pool_padding(None)
    assert builtins(data) == ["PAD", "MAX_POOL_2D"]
    assert answer[1, 1] == -50 and answer[0, 0] == 0, "the zero point does"


def test_only_tensors_that_are_used_are_written() -> None:
    graph = one_conv()
    graph.tensors.insert(0, quantized("unused", (1, 2)))
    moved = Graph(graph.tensors, [replace(graph.nodes[0], inputs=(1, 2, 3), outputs=(4,))], (1,), (4,))
    names = [tensor.name for tensor in unpacked(write_tflite(moved)).subgraphs[0].tensors]
    assert b"unused" not in names and len(names) == 4


def same_model(one: Graph, other: Graph) -> bool:
    """The same up to attributes that an operator may leave out where they mean nothing."""
    tensors = [(t.name, t.shape, t.dtype, t.quantization, None if t.data is None else t.data.tobytes()) for t in one.tensors]
    others = [(t.name, t.shape, t.dtype, t.quantization, None if t.data is None else t.data.tobytes()) for t in other.tensors]
    nodes = [(node.op, node.inputs, node.outputs, essential(node)) for node in one.nodes]
    other_nodes = [(node.op, node.inputs, node.outputs, essential(node)) for node in other.nodes]
    return (tensors, nodes, one.inputs, one.outputs) == (others, other_nodes, other.inputs, other.outputs)


def essential(node: Node) -> dict[str, Any]:
    return {key: value for key, value in node.attributes.items() if not (key == "clamp" and value == (-128, 127))}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("net", [resnet, dscnn])
def test_writing_and_reading_gives_the_same_graph(net: Any, seed: int) -> None:
    graph = simplify(read_onnx_bytes(net(seed).SerializeToString()))
    again = simplify(read_tflite_bytes(write_tflite(graph)))
    assert same_model(again, graph)
    assert write_tflite(again) == write_tflite(graph)


def test_a_convolution_without_bias() -> None:
    graph = one_conv(bias=False)
    data = write_tflite(graph)
    inputs = inputs_of(graph)
    assert tflite_micro(data, inputs)[0].tobytes() == simulate(graph, *inputs)[0].tobytes()
    assert simulate(read_tflite_bytes(data), *inputs)[0].tobytes() == simulate(graph, *inputs)[0].tobytes()


def test_a_clamp_that_tflite_does_not_have_is_refused() -> None:
    with pytest.raises(
        GraphError, match=r"clamp 3\.\.9 .* none of TFLite's fused activations \(NONE, RELU, RELU6, RELU_N1_TO_1\)"
    ):
        write_tflite(one_conv(clamp=(3, 9)))


def test_a_type_that_tflite_does_not_have_is_refused() -> None:
    writer = TfliteWriter(Graph([Tensor("x", (1,), "uint64", None)], [], (0,), (0,)))
    with pytest.raises(GraphError, match="'x' is uint64, which cannot be written"):
        writer.finish()


def test_constants_and_activations_added_by_an_operator_come_behind_the_graph() -> None:
    graph = one_conv()
    writer = TfliteWriter(graph)
    constant = writer.add_constant("axes", np.array([1, 2], np.int32))
    extra = writer.add_activation("between", (1, 2), "int8", Quantization.per_tensor(0.5, 3))
    assert (constant, extra) == (len(graph.tensors), len(graph.tensors) + 1)
    assert writer.tensor(constant).is_constant and writer.tensor(extra).zero_point == 3
    assert writer.tensor(0) is graph.tensors[0]


def test_names_of_any_kind_are_written() -> None:
    graph = one_conv()
    graph.tensors[0] = replace(graph.tensors[0], name='*/ "x" \\ é ☃')
    assert read_tflite_bytes(write_tflite(graph)).tensors[0].name == '*/ "x" \\ é ☃'
