"""Joining and dividing along an axis: TFLite files against LiteRT, ONNX files against onnxruntime, twins, single answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from ai_edge_litert import schema_py_generated as schema
from graph_builder import Build
from movement_files import activation, equals_litert, numbers, one_operator
from oracles import litert, tflite_micro
from qdq_builder import Qdq
from test_movement_onnx import agrees

from firmware_export.emit import emit
from firmware_export.graph import Graph, GraphError
from firmware_export.hostlib import HostNetwork
from firmware_export.operators import operator_of
from firmware_export.plan import plan
from firmware_export.read_onnx import read_onnx_bytes
from firmware_export.read_tflite import read_tflite_bytes
from firmware_export.simulate import simulate, simulate_trace
from firmware_export.write_tflite import TfliteWriter, write_tflite


@pytest.mark.parametrize("axis", [0, 1, 2, 3, -1, -2])
def test_concatenations(axis: int) -> None:
    """Several sizes along any axis but the batch, where one input is all a model can have."""
    ours = axis % 4
    sizes = (1,) if ours == 0 else (2, 1, 4)
    shapes = [tuple(n if place == ours else (1, 3, 4, 2)[place] for place in range(4)) for n in sizes]
    out = tuple(sum(sizes) if place == ours else (1, 3, 4, 2)[place] for place in range(4))
    options = schema.ConcatenationOptionsT(axis=axis)
    graph = equals_litert(one_operator("CONCATENATION", [activation(shape) for shape in shapes], [out], options, 2))
    assert graph.nodes[0].attributes == {"axis": ours}


@pytest.mark.parametrize("axis", [0, 1, 2, 3, -1, -4])
def test_packs(axis: int) -> None:
    out = np.stack([np.zeros((1, 4, 3))] * 2, axis).shape
    model = one_operator("PACK", [activation((1, 4, 3))] * 2, [out], schema.PackOptionsT(valuesCount=2, axis=axis), 2)
    assert equals_litert(model).nodes[0].attributes == {"axis": axis % 4}


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_unpacks(axis: int) -> None:
    shape = (1, 4, 3)
    parts = [np.moveaxis(np.zeros(shape), axis, 0)[0].shape] * shape[axis]
    model = one_operator("UNPACK", [activation(shape)], parts, schema.UnpackOptionsT(num=len(parts), axis=axis), 2)
    assert equals_litert(model).nodes[0].attributes == {"axis": axis % 3}


@pytest.mark.parametrize(
    ("axis", "count", "part"), [(1, 3, (1, 2, 4)), (-1, 2, (1, 6, 2)), (2, 4, (1, 6, 1)), (0, 1, (1, 6, 4))]
)
def test_splits(axis: int, count: int, part: tuple[int, ...]) -> None:
    options = schema.SplitOptionsT(numSplits=count)
    equals_litert(one_operator("SPLIT", [np.array(axis, np.int32), activation((1, 6, 4))], [part] * count, options, 2))


@pytest.mark.parametrize(("sizes", "given"), [((1, 5), (1, 5)), ((2, 3, 1), (2, -1, 1)), ((6,), (-1,)), ((1, 1, 4), (1, 1, 4))])
def test_splits_of_other_sizes(sizes: tuple[int, ...], given: tuple[int, ...]) -> None:
    options = schema.SplitVOptionsT(numSplits=len(sizes))
    inputs = [activation((1, 6, 4)), numbers(*given), np.array(1, np.int32)]
    graph = equals_litert(one_operator("SPLIT_V", inputs, [(1, n, 4) for n in sizes], options, 2))
    assert graph.nodes[0].attributes == {"axis": 1, "sizes": sizes}


def relu_concatenation() -> bytes:
    options = schema.ConcatenationOptionsT(axis=1, fusedActivationFunction=schema.ActivationFunctionType.RELU)
    return one_operator("CONCATENATION", [activation((1, 2))] * 2, [(1, 4)], options, 2)


REFUSED = [
    (relu_concatenation(), "CONCATENATION with a fused activation; supported: NONE"),
    (
        one_operator("CONCATENATION", [activation((1, 2))] * 2, [(1, 4)], schema.ConcatenationOptionsT(axis=2)),
        "axis 2 of a tensor",
    ),
    (one_operator("CONCATENATION", [activation((1, 2))] * 2, [(1, 4)]), r"writes int8 \(1, 4\).*its inputs make int8 \(2, 2\)"),
    (one_operator("PACK", [activation((1, 2))] * 2, [(2, 1, 2)], schema.PackOptionsT(axis=3)), "axis 3 of a tensor with 3"),
    (one_operator("PACK", [activation((1, 2))] * 2, [(2, 1, 2)], schema.SplitOptionsT()), "the options are SplitOptions"),
    (one_operator("UNPACK", [activation((1, 2))], [(1,)] * 3, schema.UnpackOptionsT(axis=1)), "3 outputs of axis 1 of"),
    (one_operator("SPLIT", [numbers(1, 0), activation((1, 6))], [(1, 3)] * 2), r"SPLIT along the axes \(1, 0\); expected one"),
    (one_operator("SPLIT", [numbers(1), activation((1, 5))], [(1, 2)] * 2), r"sizes \(2, 2\) along axis 1 of \(1, 5\)"),
    (one_operator("SPLIT", [activation((1,)), activation((1, 6))], [(1, 3)] * 2), "is computed; supported: a constant"),
    (
        one_operator("SPLIT_V", [activation((1, 6)), numbers(-1, -1), numbers(1)], [(1, 3)] * 2),
        "expected pieces that make up the whole",
    ),
    (
        one_operator("SPLIT_V", [activation((1, 6)), numbers(3), numbers(1)], [(1, 3)] * 2),
        r"sizes is \(3,\); expected 2 integers",
    ),
]


@pytest.mark.parametrize(("model", "message"), REFUSED, ids=range(len(REFUSED)))
def test_refused_files(model: bytes, message: str) -> None:
    with pytest.raises(GraphError, match=message):
        read_tflite_bytes(model)


@pytest.mark.parametrize("count", [2, 10, 11, 19, 20, 64])
def test_a_twin_joins_at_most_ten_at_once(count: int) -> None:
    build = Build(1)
    inputs = tuple(build.activation((1, 1 + place % 3, 2)) for place in range(count))
    total = sum(1 + place % 3 for place in range(count))
    y = build.node("concatenation", inputs, build.activation((1, total, 2)), axis=1)
    graph = build.graph(inputs, y)
    writer = TfliteWriter(graph)
    operator_of(graph.nodes[0]).write_tflite(graph, graph.nodes[0], writer)
    joins = [len(operator.inputs) for operator in writer._operators]
    assert max(joins) <= 10 and sum(joins) - (len(joins) - 1) == count
    values = [np.full((1, 1 + place % 3, 2), place, np.int8) for place in range(count)]
    expected = np.concatenate(values, 1)
    assert np.array_equal(simulate(graph, *values)[0], expected)
    assert np.array_equal(tflite_micro(write_tflite(graph), values)[0], expected)


def divided_and_joined() -> Graph:
    """split - convolutions - concatenation - unpack - pack in another order; one output of the split is read by nobody."""
    build = Build(4)
    x = build.activation((1, 6, 5, 6), 0.04, 9)
    parts = [build.activation((1, 6, 5, n), 0.04, 9) for n in (2, 3, 1)]
    build.node("split", (x,), parts[0], axis=3, sizes=(2, 3, 1))
    build.nodes[-1] = type(build.nodes[-1])("split", (x,), tuple(parts), build.nodes[-1].attributes)
    left, right = (build.conv(part, 2, scale=0.7) for part in parts[:2])
    joined = build.node("concatenation", (left, right, left), build.activation((1, 6, 5, 6), 0.7, -3), axis=3)
    rows = [build.activation((1, 5, 6), 0.7, -3) for _ in range(6)]
    build.node("unpack", (joined,), rows[0], axis=1)
    build.nodes[-1] = type(build.nodes[-1])("unpack", (joined,), tuple(rows), build.nodes[-1].attributes)
    packed = build.node("pack", (rows[5], rows[0], rows[3]), build.activation((1, 5, 3, 6), 0.7, -3), axis=2)
    return build.graph(x, (packed, rows[2]))


def test_several_outputs_in_a_whole_model(tmp_path: Path) -> None:
    """Planned, emitted, compiled, traced; TFLite Micro and LiteRT agree."""
    graph = divided_and_joined()
    layout, twin = plan(graph), write_tflite(graph)
    for name, text in emit(graph, layout, "joined", selftest=False).items():
        (tmp_path / name).write_text(text)
    compiled, rng = HostNetwork(tmp_path, "joined"), np.random.default_rng(2)
    for _ in range(3):
        image = rng.integers(-128, 128, (1, 6, 5, 6)).astype(np.int8)
        expected = simulate(graph, image)
        assert [found.tobytes() for found in compiled.run(image)] == [value.tobytes() for value in expected]
        assert [found.tobytes() for found in tflite_micro(twin, [image], 2)] == [value.tobytes() for value in expected]
        assert {found.tobytes() for found in litert(twin, [image])} == {value.tobytes() for value in expected}
        traced = simulate_trace(graph, image)
        assert [[v.tobytes() for v in layer] for layer in compiled.trace(image)] == [
            [v.tobytes() for v in layer] for layer in traced
        ]


def test_the_model_reads_back() -> None:
    graph = divided_and_joined()
    again = read_tflite_bytes(write_tflite(graph))
    assert [(node.op, node.attributes) for node in again.nodes] == [(node.op, node.attributes) for node in graph.nodes]


# ONNX


@pytest.mark.parametrize("axis", [1, 2, 3, -1])
@pytest.mark.parametrize("scales", [(0.02, 0.02, 0.02), (0.02, 0.03, 0.025)])
def test_onnx_concat(axis: int, scales: tuple[float, float, float]) -> None:
    """Inputs with other scales than the output are requantized before they are joined."""
    net = Qdq((1, 3, 4, 5))
    first = net.conv(net.input(), 3, scale=scales[0], zero_point=-128)
    second = net.conv(first, 3, scale=scales[1], zero_point=-128)
    shape = tuple(2 * n if place == axis % 4 else n for place, n in enumerate((1, 3, 4, 5)))
    y = net.quantized(net.node("Concat", [first, second], axis=axis), scales[2], -128, shape)
    graph = agrees(net.model(y), steps=1)
    requantized = [node.op for node in graph.nodes].count("quantize")
    assert requantized == (0 if len(set(scales)) == 1 else 2)


def test_onnx_concat_of_a_value_and_itself() -> None:
    net = Qdq((1, 2, 3, 3))
    x = net.input()
    graph = agrees(net.model(net.same_scale("Concat", x, (1, 6, 3, 3), x, x, axis=1)))
    assert graph.nodes[0].inputs == (graph.inputs[0],) * 3


@pytest.mark.parametrize(
    ("attributes", "message"), [({}, "Concat without an axis"), ({"axis": 4}, "axis 4 of a tensor with 4")]
)
def test_onnx_concat_refusals(attributes: dict[str, int], message: str) -> None:
    net = Qdq((1, 2, 3, 3))
    x = net.input()
    model: onnx.ModelProto = net.model(net.same_scale("Concat", x, (1, 4, 3, 3), x, **attributes))
    with pytest.raises(GraphError, match=message):
        read_onnx_bytes(model.SerializeToString())


def test_onnx_concat_of_flattened_images() -> None:
    """They are brought into the file's order first, each image once."""
    net = Qdq((1, 2, 3, 3))
    x = net.bare("Flatten", net.input(), (1, 18))
    graph = agrees(net.model(net.same_scale("Concat", x, (1, 36), x, axis=1)))
    assert [node.op for node in graph.nodes].count("transpose") == 1 and graph.nodes[-1].op == "concatenation"


@pytest.mark.parametrize("name", ["parts", "transpose", "requantize"])
def test_a_network_may_not_be_named_like_a_file_of_the_runtime(name: str) -> None:
    """Its header would be taken for the runtime's."""
    graph = divided_and_joined()
    with pytest.raises(GraphError, match=f"network name '{name}' is that of a file of the runtime; choose another"):
        emit(graph, plan(graph), name)
