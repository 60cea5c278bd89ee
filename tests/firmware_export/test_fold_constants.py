"""What is computed when a model is read: shapes, sizes and weights made of constants. LiteRT computes them at run time."""

from __future__ import annotations

import importlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from graph_builder import Build, inputs_of
from movement_files import STORED, activation, equals_litert, numbers

from firmware_export.check import check
from firmware_export.graph import Graph, GraphError, Node, Quantization, Tensor
from firmware_export.passes import simplify
from firmware_export.passes.fold_constants import Folder, fold_constants
from firmware_export.read_tflite import read_tflite_bytes
from firmware_export.simulate import simulate
from firmware_export.write_tflite import TfliteWriter

Shape = tuple[int, ...]


class File:
    """A TFLite file operator by operator; methods give tensor indexes."""

    def __init__(self) -> None:
        self.tensors: list[Tensor] = []
        self.calls: list[tuple[Any, ...]] = []

    def add(self, tensor: Tensor) -> int:
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def constant(self, array: np.ndarray, quantization: Quantization | None = None) -> int:
        return self.add(Tensor("c", array.shape, str(array.dtype), quantization, array))

    def computed(self, shape: Shape, dtype: str = "int32", quantization: Quantization | None = None) -> int:
        return self.add(Tensor("t", shape, dtype, quantization))

    def call(self, builtin: str, inputs: tuple[int, ...], output: int, options: Any = None, version: int = 1) -> int:
        self.calls.append((builtin, inputs, (output,), options, version))
        return output

    def file(self, x: int, y: int) -> bytes:
        writer = TfliteWriter(Graph(self.tensors, [], (x,), (y,)))
        for call in self.calls:
            writer.add(*call)
        return writer.finish()


def flattened_by_its_shape() -> bytes:
    """What converters make of a flatten: SHAPE, one size of it, PACK with -1, RESHAPE."""
    build = File()
    x = build.add(activation((1, 4, 3, 2)))
    shape = build.call("SHAPE", (x,), build.computed((4,)), schema.ShapeOptionsT(outType=schema.TensorType.INT32))
    limits = tuple(build.constant(numbers(n)) for n in (0, 1, 1))
    batch = build.call("STRIDED_SLICE", (shape, *limits), build.computed(()), schema.StridedSliceOptionsT(shrinkAxisMask=1))
    rest = build.constant(np.array(24, np.int32))
    target = build.call("PACK", (batch, rest), build.computed((2,)), schema.PackOptionsT(valuesCount=2, axis=0))
    return build.file(x, build.call("RESHAPE", (x, target), build.add(activation((1, 24)))))


def test_a_shape_is_a_constant() -> None:
    graph = equals_litert(flattened_by_its_shape())
    assert [node.op for node in graph.nodes] == ["reshape"]
    assert graph.nodes[0].attributes == {"shape": (1, 24)}


def test_a_computed_size_of_a_slice() -> None:
    """CONCATENATION and SLICE of shapes give the size that a later SLICE takes."""
    build = File()
    x = build.add(activation((1, 4, 3, 2)))
    shape = build.call("SHAPE", (x,), build.computed((4,)), schema.ShapeOptionsT(outType=schema.TensorType.INT32))
    first = build.call("SLICE", (shape, build.constant(numbers(0)), build.constant(numbers(3))), build.computed((3,)), None, 2)
    size = build.call(
        "CONCATENATION", (first, build.constant(numbers(1))), build.computed((4,)), schema.ConcatenationOptionsT(axis=0)
    )
    y = build.call("SLICE", (x, build.constant(numbers(0, 0, 0, 1)), size), build.add(activation((1, 4, 3, 1))), None, 2)
    graph = equals_litert(build.file(x, y))
    assert [node.op for node in graph.nodes] == ["strided_slice"]
    assert graph.nodes[0].integers("size") == (1, 4, 3, 1)


def weights_made_of_floats(transposed: bool) -> bytes:
    """Float weights that a QUANTIZE, and maybe a TRANSPOSE, makes the int8 weights of a fully connected layer."""
    build, rng = File(), np.random.default_rng(3)
    stored = Quantization.per_tensor(0.02, 0)
    x = build.add(Tensor("x", (1, 6), "int8", STORED))
    values = build.constant(rng.uniform(-2.5, 2.5, (6, 4) if transposed else (4, 6)).astype(np.float32))
    shape = (6, 4) if transposed else (4, 6)
    weights = build.call("QUANTIZE", (values,), build.computed(shape, "int8", stored), schema.QuantizeOptionsT())
    if transposed:
        perm = build.constant(numbers(1, 0))
        weights = build.call("TRANSPOSE", (weights, perm), build.computed((4, 6), "int8", stored), None, 2)
    y = build.add(Tensor("y", (1, 4), "int8", Quantization.per_tensor(0.25, 3)))
    build.call("FULLY_CONNECTED", (x, weights, -1), y, schema.FullyConnectedOptionsT(), 4)
    return build.file(x, y)


@pytest.mark.parametrize("transposed", [False, True])
def test_weights_are_quantized_when_read(transposed: bool) -> None:
    """Every stored weight by hand: nearest step, halves away from zero, saturated."""
    graph = read_tflite_bytes(weights_made_of_floats(transposed))
    (node,) = graph.nodes
    data = graph.tensors[node.inputs[1]].data
    assert node.op == "fully_connected" and data is not None and data.dtype == np.int8
    floats = next(t.data for t in graph.tensors if t.dtype == "float32")
    assert floats is not None
    steps = (floats.T if transposed else floats).astype(np.float64) / float(np.float32(0.02))
    nearest = np.sign(steps) * np.floor(np.abs(steps) + 0.5)
    assert np.abs(nearest).max() <= 127 and np.array_equal(data, nearest)
    equals_litert_but_rounding(weights_made_of_floats(transposed), graph)


def equals_litert_but_rounding(model: bytes, graph: Graph) -> None:
    """LiteRT's reference fully connected layer rounds once, ours twice."""
    from oracles import litert

    for seed in range(3):
        inputs = inputs_of(graph, seed)
        assert np.abs(litert(model, inputs)[0].astype(int) - simulate(graph, *inputs)[0]).max() <= 1


def test_what_is_left_over_can_be_written() -> None:
    """No constant that was only folded is in the simplified graph."""
    graph = simplify(read_tflite_bytes(flattened_by_its_shape()))
    assert len(graph.tensors) == 2 and all(not tensor.is_constant for tensor in graph.tensors)


# The pass


def test_a_graph_without_such_nodes_stays() -> None:
    build = Build()
    x = build.activation((1, 4, 4, 2))
    graph = build.graph(x, build.conv(x, 3))
    assert fold_constants(graph) is graph


def constant_branch(op: str, **attributes: Any) -> Graph:
    """x + op(constant): the sum reads what the pass computes."""
    build = Build(5)
    x = build.activation((1, 3, 4, 2), 0.05, 4)
    data = build.rng.integers(-128, 128, (1, 3, 4, 2)).astype(np.int8)
    c = build.tensor(replace(build.tensors[x], name="c", data=data))
    y = build.node(op, (c,), build.activation((1, 3, 4, 2), 0.05, 4), **attributes)
    return build.graph(x, build.node("add", (x, y), build.activation((1, 3, 4, 2), 0.1, 0), clamp=(-128, 127)))


@pytest.mark.parametrize(
    ("op", "attributes"),
    [
        ("relu", {"clamp": (4, 100)}),
        ("transpose", {"perm": (0, 1, 2, 3)}),
        ("max_pool2d", {"kernel": (1, 1), "stride": (1, 1), "padding": (0,) * 4, "clamp": (-50, 50)}),
    ],
)
def test_an_operator_on_a_constant(op: str, attributes: dict[str, Any]) -> None:
    """Operators that expect computed inputs are folded too; the sum then has a constant side."""
    graph = constant_branch(op, **attributes)
    constant, node = graph.tensors[1], graph.nodes[0]
    alone = Graph(
        [replace(constant, data=None), graph.tensors[node.outputs[0]]], [replace(node, inputs=(0,), outputs=(1,))], (0,), (1,)
    )
    assert constant.data is not None
    expected = simulate(alone, constant.data)[0]
    folded = fold_constants(graph)
    assert [left.op for left in folded.nodes] == ["add"]
    found = folded.tensors[node.outputs[0]].data
    assert found is not None and np.array_equal(found, expected)
    assert graph.tensors[node.outputs[0]].data is None, "the given graph is not changed"


def test_a_convolution_of_constants() -> None:
    """Its weights stay constants while its image is taken as computed."""
    build = Build(7)
    x = build.activation((1, 3, 3, 2), 0.05, 4)
    y = build.conv(x, 2)
    graph = build.graph(x, y)
    image = build.rng.integers(-128, 128, (1, 3, 3, 2)).astype(np.int8)
    expected = simulate(graph, image)[0]
    constant = replace(graph, tensors=[replace(graph.tensors[x], data=image), *graph.tensors[1:]])
    found = Folder().fold(constant, graph.nodes[0])
    assert found is not None and found[0].data is not None and np.array_equal(found[0].data, expected)


def test_several_outputs_and_chains() -> None:
    """split of a constant, then pack of its parts: nothing is left to compute."""
    data = np.arange(8, dtype=np.int32)
    tensors = [Tensor("c", (8,), "int32", None, data)]
    tensors += [Tensor("t", shape, "int32") for shape in ((4,), (4,), (2, 4))]
    nodes = [Node("split", (0,), (1, 2), {"axis": 0, "sizes": (4, 4)}), Node("pack", (2, 1), (3,), {"axis": 0})]
    folded = fold_constants(Graph(tensors, nodes, (), (3,)))
    assert folded.nodes == []
    assert folded.tensors[3].data is not None and folded.tensors[3].data.tolist() == [[4, 5, 6, 7], [0, 1, 2, 3]]


# What is refused


def shape_of(output: Tensor, x: Shape = (1, 4, 3, 2)) -> bytes:
    build = File()
    source = build.add(activation(x))
    shape = build.call("SHAPE", (source,), build.add(output))
    return build.file(source, build.call("RESHAPE", (source, shape), build.add(activation(x))))


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (Tensor("s", (3,), "int32"), r"operator 0 \(SHAPE\): writes int32 \(3,\); the shape of .* is int32 or int64 \(4,\)"),
        (Tensor("s", (4,), "int8", STORED), r"writes int8 \(4,\)"),
        (Tensor("s", (4,), "int32", None, numbers(1, 2, 3, 4)), "writes tensor 's', which already has a value"),
    ],
)
def test_shapes_that_are_none(output: Tensor, message: str) -> None:
    with pytest.raises(GraphError, match=message):
        read_tflite_bytes(shape_of(output))


def test_a_shape_may_be_int64() -> None:
    graph = read_tflite_bytes(shape_of(Tensor("s", (4,), "int64")))
    assert graph.tensors[graph.outputs[0]].shape == (1, 4, 3, 2)


def constant_call(builtin: str, arrays: list[np.ndarray], output: Tensor, options: Any = None) -> bytes:
    """One operator on constants, beside a model that is otherwise whole."""
    build = File()
    x = build.add(activation((1, 4)))
    constants = tuple(build.constant(array, STORED if array.dtype == np.int8 else None) for array in arrays)
    build.call(builtin, constants, build.add(output), options)
    return build.file(x, build.call("RELU", (x,), build.add(activation((1, 4))), None, 2))


EIGHT = np.zeros((2, 4), np.int8)


@pytest.mark.parametrize(
    ("builtin", "arrays", "output", "message"),
    [
        (
            "TRANSPOSE",
            [EIGHT, numbers(1, 0)],
            Tensor("t", (4, 3), "int8", STORED),
            r"transpose of constants makes .*the model says",
        ),
        ("TRANSPOSE", [EIGHT, numbers(1, 0)], Tensor("t", (4, 2), "int32"), "'t' has no quantization"),
        (
            "TRANSPOSE",
            [EIGHT, numbers(1, 0)],
            Tensor("t", (4, 2), "int8", Quantization.per_tensor(1, 0)),
            "supported: the same",
        ),
        ("TILE", [EIGHT, numbers(60000, 60000)], Tensor("t", (4, 2), "int8", STORED), "supported: up to 67,108,864 elements"),
        ("SOFTMAX", [numbers(1, 2)], Tensor("t", (2,), "int32"), "supported: computed tensors|supported: int8"),
        ("CONCATENATION", [EIGHT, numbers(1, 2)], Tensor("t", (2, 4), "int8", STORED), "is a constant; supported: computed"),
    ],
)
def test_constants_that_do_not_fit(builtin: str, arrays: list[np.ndarray], output: Tensor, message: str) -> None:
    with pytest.raises(GraphError, match=message):
        read_tflite_bytes(constant_call(builtin, arrays, output))


def test_folding_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small file cannot make a large memory: the elements of all folded results are counted."""
    monkeypatch.setattr(importlib.import_module("firmware_export.passes.fold_constants"), "MAX_FOLDED", 100)
    folder = Folder()
    tensors = [Tensor("c", (10,), "int32", None, np.zeros(10, np.int32)), Tensor("t", (40,), "int32")]
    node = Node("tile", (0,), (1,), {"repeats": (4,)})
    graph = Graph(tensors, [node], (), (1,))
    assert folder.fold(graph, node) is not None and folder.fold(graph, node) is not None
    with pytest.raises(GraphError, match="constants of more than 100 elements are computed"):
        folder.fold(graph, node)


def test_a_float_model_with_constants_is_still_refused() -> None:
    """A float constant may be moved about; an operator that computes with it says what to do."""
    build = File()
    x = build.add(Tensor("x", (1, 6), "float32"))
    c = build.constant(np.ones((4, 6), np.int8), Quantization.per_tensor(0.1, 0))
    weights = build.call("DEQUANTIZE", (c,), build.computed((4, 6), "float32"), schema.DequantizeOptionsT())
    y = build.call("FULLY_CONNECTED", (x, weights, -1), build.computed((1, 4), "float32"), schema.FullyConnectedOptionsT())
    with pytest.raises(GraphError, match="float model: FULLY_CONNECTED computes the float32 tensor"):
        read_tflite_bytes(build.file(x, y))


def test_an_unfolded_node_is_not_accepted() -> None:
    with pytest.raises(GraphError, match=r"operator 0 \(transpose\) reads constants only; expected a constant in its place"):
        check(constant_branch("transpose", perm=(0, 1, 2, 3)))
