"""Operators of two inputs: shapes, constants on either side, five dimensions, ONNX's layouts, identities."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from bundle import Bundle
from example_cases import Case, differences
from oracles import litert, onnx_stored, onnxruntime_session, tflite_micro
from qdq_builder import Qdq
from second_implementation import compute

from firmware_export.graph import Attribute, Graph, GraphError, Node, Quantization, Tensor
from firmware_export.operators import operator_of
from firmware_export.operators._broadcast import broadcast_shape, collapsed_axes
from firmware_export.read_onnx import read_onnx_bytes
from firmware_export.read_tflite import read_tflite_bytes
from firmware_export.simulate import simulate
from firmware_export.toolchain import host_toolchain
from firmware_export.write_tflite import write_tflite

NAMES = ("add", "sub", "mul", "minimum", "maximum", "prelu")
FIVE_DIMENSIONS = (
    ((1, 2, 3, 2, 2), (1, 2, 3, 2, 2)),
    ((1, 2, 1, 3, 1), (1, 1, 4, 1, 2)),
    ((1, 2, 3, 1, 2), (1, 1, 3, 4, 1)),
)
Shape = tuple[int, ...]


def graph_of(op: str, shapes: tuple[Shape, Shape], constant: int | None = None, seed: int = 0) -> Graph:
    """One node; scales that spread the results."""
    rng = np.random.default_rng(seed)
    scales = (0.05, 0.05, 0.05) if op in ("minimum", "maximum") else (0.05, 0.03, 0.06)
    zero_points = (4, 4, 4) if op in ("minimum", "maximum") else (4, -7, 11)
    a, b, y = (Quantization.per_tensor(s, z) for s, z in zip(scales, zero_points, strict=True))
    data = [rng.integers(-128, 128, shape).astype(np.int8) if constant == i else None for i, shape in enumerate(shapes)]
    tensors = [Tensor("a", shapes[0], "int8", a, data[0]), Tensor("b", shapes[1], "int8", b, data[1])]
    attributes: dict[str, Attribute] = {"clamp": (-128, 127)} if op in ("add", "sub", "mul") else {}
    tensors.append(Tensor("y", np.broadcast_shapes(*shapes), "int8", y))
    edges = tuple(i for i in range(2) if i != constant)
    return Graph(tensors, [Node(op, (0, 1), (2,), attributes)], edges, (2,))


def inputs_of(graph: Graph, seed: int = 77) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(-128, 128, graph.tensors[index].shape).astype(np.int8) for index in graph.inputs]


# Axes


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ((1, 3, 4, 5), (1, 3, 4, 5), [(60, 1, 1)]),
        ((1, 3, 4, 5), (5,), [(12, 5, 0), (5, 1, 1)]),
        ((1, 3, 4, 5), (1,), [(60, 1, 0)]),
        ((), (), [(1, 0, 0)]),
        ((1, 1), (1,), [(1, 0, 0)]),
        ((2, 1, 4), (1, 3, 1), [(2, 4, 0), (3, 0, 1), (4, 1, 0)]),
        ((1, 3, 4, 1), (1, 3, 4, 5), [(12, 1, 5), (5, 0, 1)]),
        ((1, 3, 1, 1), (1, 3, 4, 5), [(3, 1, 20), (20, 0, 1)]),
        ((4, 1, 5), (4, 6, 5), [(4, 5, 30), (6, 0, 5), (5, 1, 1)]),
        ((2, 1, 2, 1, 2, 1), (1, 2, 1, 2, 1, 2), [(2, 4, 0), (2, 0, 4), (2, 2, 0), (2, 0, 2), (2, 1, 0), (2, 0, 1)]),
    ],
)
def test_axes(a: Shape, b: Shape, expected: list[tuple[int, int, int]]) -> None:
    assert collapsed_axes(a, b) == expected


def test_axes_reach_every_pair_in_order() -> None:
    """Walked by hand over random shapes: numpy's own pairs come out."""
    rng = np.random.default_rng(5)
    for _ in range(200):
        full = tuple(int(rng.integers(1, 4)) for _ in range(rng.integers(0, 7)))
        a, b = (tuple(1 if rng.random() < 0.4 else size for size in full)[rng.integers(0, len(full) + 1) :] for _ in range(2))
        places = [np.arange(np.prod(shape, dtype=int)).reshape(shape) for shape in (a, b)]
        wanted = [values.ravel().tolist() for values in np.broadcast_arrays(*places)]
        axes = collapsed_axes(a, b)
        walked = [
            tuple(np.dot(index, [axis[side] for axis in axes]) for side in (1, 2))
            for index in np.ndindex(*(x[0] for x in axes))
        ]
        assert [list(side) for side in zip(*walked, strict=True)] == wanted
        assert broadcast_shape(a, b) == np.broadcast_shapes(a, b)


@pytest.mark.parametrize(("a", "b"), [((2,), (3,)), ((1, 4), (4, 3)), ((2, 3), (2,))])
def test_shapes_that_do_not_broadcast(a: Shape, b: Shape) -> None:
    with pytest.raises(GraphError, match="supported: shapes that broadcast, sizes equal or 1 from the last on"):
        broadcast_shape(a, b)


# Five dimensions and six


@pytest.mark.parametrize("name", NAMES)
def test_five_dimensions(name: str) -> None:
    """TFLite Micro and LiteRT where they take five, the second implementation in any case."""
    for shapes in FIVE_DIMENSIONS:
        if name == "prelu" and np.broadcast_shapes(*shapes) != shapes[0]:
            shapes = (np.broadcast_shapes(*shapes), shapes[1])
        graph = graph_of(name, shapes)
        vector = inputs_of(graph)
        found = simulate(graph, *vector)[0]
        assert np.array_equal(found, compute(graph, vector)[0])
        assert np.array_equal(found, litert(write_tflite(graph), vector)[0]), shapes
        assert np.array_equal(found, tflite_micro(write_tflite(graph), vector)[0]), shapes


def test_six_dimensions_in_c(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Every axis in turn: the deepest walk that the C does."""
    cases = []
    for place, name in enumerate(NAMES):
        for constant in (None, 0, 1):
            first = (1, 3, 2, 2, 4, 3) if name == "prelu" else (1, 3, 1, 2, 1, 3)
            graph = graph_of(name, (first, (1, 1, 2, 1, 4, 1)), constant, place)
            vector = tuple(inputs_of(graph))
            cases.append(Case(f"{name} {constant}", graph, (vector,), ((compute(graph, list(vector))[0],),)))
            assert np.array_equal(simulate(graph, *vector)[0], cases[-1].answers[0][0])
    bundle = Bundle(tmp_path_factory.mktemp("six"), cases)
    for case, found in zip(cases, bundle.run_host(bundle.host_program(host_toolchain())), strict=True):
        assert differences(case, found) == ""


# Constants


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("constant", [0, 1])
def test_a_constant_computes_what_an_input_does(name: str, constant: int) -> None:
    fixed = graph_of(name, ((1, 3, 4, 5), (1, 3, 4, 5)), constant)
    free = graph_of(name, ((1, 3, 4, 5), (1, 3, 4, 5)))
    (given,), data = inputs_of(fixed), fixed.tensors[constant].data
    assert data is not None
    both = [data, given] if constant == 0 else [given, data]
    assert np.array_equal(simulate(fixed, given)[0], simulate(free, *both)[0])
    code = operator_of(fixed.nodes[0]).emit(fixed, fixed.nodes[0])
    assert code.function.endswith("_constant") and code.fields["shape.place"] == str(constant)
    assert [constant.suffix for constant in code.constants][:2] == ["axes", "constant"]


def test_the_plain_sum_keeps_its_kernel() -> None:
    plain, other = graph_of("add", ((1, 3, 5), (1, 3, 5))), graph_of("add", ((1, 3, 5), (1, 1, 5)))
    assert operator_of(plain.nodes[0]).emit(plain, plain.nodes[0]).sources == ("add.c",)
    assert operator_of(other.nodes[0]).emit(other, other.nodes[0]).sources == ("add_broadcast.c", "broadcast.c")


@pytest.mark.parametrize("name", NAMES)
def test_twins_with_constants_are_read_again(name: str) -> None:
    for constant in (0, 1):
        shapes = ((1, 3, 4, 5), (1, 1, 1, 5))[:: 1 if constant or name == "prelu" else -1]
        graph = graph_of(name, (shapes[0], shapes[1]), constant)
        again = read_tflite_bytes(write_tflite(graph))
        vector = inputs_of(graph)
        assert [node.op for node in again.nodes] == [name]
        assert np.array_equal(simulate(again, *vector)[0], simulate(graph, *vector)[0])


# Identities


def test_prelu_repeats_slopes_alone() -> None:
    graph = graph_of("prelu", ((1, 1, 5), (1, 4, 5)))
    with pytest.raises(
        GraphError, match=r"slopes of \(1, 4, 5\) for an input of \(1, 1, 5\); supported: slopes that broadcast"
    ):
        operator_of(graph.nodes[0]).infer(graph, graph.nodes[0])


def results(op: str, **changes: Any) -> np.ndarray:
    graph = graph_of(op, ((1, 256, 256), (1, 1, 256)))
    for place, (scale, zero_point) in changes.items():
        index = "aby".index(place)
        tensor = graph.tensors[index]
        graph.tensors[index] = Tensor(tensor.name, tensor.shape, "int8", Quantization.per_tensor(scale, zero_point))
    every = np.arange(-128, 128).astype(np.int8)
    rows = np.repeat(every[:, None], 256, axis=1).reshape(1, 256, 256)
    return simulate(graph, rows, every.reshape(1, 1, 256))[0][0].astype(int)


def test_every_pair_is_near_the_real_result() -> None:
    values = np.arange(-128, 128)
    a, b = 0.05 * (values - 4)[:, None], 0.03 * (values + 7)[None, :]
    real: dict[str, Callable[[], np.ndarray]] = {
        "add": lambda: a + b,
        "sub": lambda: a - b,
        "mul": lambda: a * b,
        "prelu": lambda: np.where(a >= 0, a, a * b),
    }
    for op, exact in real.items():
        wanted = np.clip(exact() / 0.06 + 11, -128, 127)
        assert np.abs(results(op) - wanted).max() <= 0.51, op


def test_extremes_of_every_pair() -> None:
    values = np.arange(-128, 128)
    assert np.array_equal(results("minimum"), np.minimum(values[:, None], values[None, :]))
    assert np.array_equal(results("maximum"), np.maximum(values[:, None], values[None, :]))


def test_sums_and_products_commute_and_differences_change_sign() -> None:
    one = {"a": (0.05, 0), "b": (0.05, 0), "y": (0.05, 0)}
    for op in ("add", "mul"):
        assert np.array_equal(results(op, **one), results(op, **one).T)
    found = results("sub", **one)
    inside = (np.abs(found) < 127) & (np.abs(found.T) < 127)
    assert np.array_equal(found[inside], -found.T[inside])


def test_prelu_of_one_slope_is_leaky_relu() -> None:
    prelu = graph_of("prelu", ((1, 256), (1,)), 1)
    prelu.tensors[1] = Tensor("b", (1,), "int8", Quantization.per_tensor(0.25 / 64, 0), np.array([64], np.int8))
    leaky = Graph([prelu.tensors[0], prelu.tensors[2]], [Node("leaky_relu", (0,), (1,), {"alpha": 0.25})], (0,), (1,))
    every = np.arange(-128, 128).astype(np.int8).reshape(1, 256)
    assert np.abs(simulate(prelu, every)[0].astype(int) - simulate(leaky, every)[0]).max() <= 1, "they round in other places"


# ONNX

OPERATORS = {"Add": "add", "Sub": "sub", "Mul": "mul", "Min": "minimum", "Max": "maximum", "PRelu": "prelu"}
LAYOUTS: tuple[tuple[Shape, Shape], ...] = (
    ((1, 3, 6, 5), (3, 1, 1)),
    ((1, 3, 6, 5), (1, 3, 1, 1)),
    ((1, 3, 6, 5), (6, 5)),
    ((1, 3, 6, 5), (5,)),
    ((1, 3, 6, 5), ()),
    ((1, 3, 6, 5), (1, 3, 6, 5)),
    ((1, 4, 7), (4, 1)),
    ((1, 60), (60,)),
)


def dequantized(net: Qdq, shape: Shape, scale: float, zero_point: int) -> str:
    """A random int8 constant behind a DequantizeLinear."""
    data = net.rng.integers(-128, 128, shape).astype(np.int8)
    return net.node(
        "DequantizeLinear", [net.constant(data), net.constant(np.float32(scale)), net.constant(np.int8(zero_point))]
    )


def agrees(model: onnx.ModelProto) -> Graph:
    """One step from onnxruntime, which rounds in float."""
    onnx.checker.check_model(model, full_check=True)
    graph, session = read_onnx_bytes(model.SerializeToString()), onnxruntime_session(model.SerializeToString())
    vector = inputs_of(graph)
    found, wanted = simulate(graph, *vector)[0], onnx_stored(session, graph, vector)[0]
    assert found.shape == wanted.shape and np.abs(found.astype(int) - wanted).max() <= 1
    assert len(np.unique(found)) >= 4
    return graph


def scales_of(op_type: str) -> tuple[tuple[float, int], tuple[float, int], tuple[float, int]]:
    same = op_type in ("Min", "Max")
    return ((0.03, 5),) * 3 if same else ((0.03, 5), (0.02, -9), (0.04, 3))


@pytest.mark.parametrize("op_type", sorted(OPERATORS))
@pytest.mark.parametrize(("shape", "constant"), LAYOUTS)
def test_onnx_constants_move_to_our_layout(op_type: str, shape: Shape, constant: Shape) -> None:
    a, b, y = scales_of(op_type)
    net = Qdq(shape, seed=1)
    value = net.node(op_type, [net.input("input", *a), dequantized(net, constant, *b)])
    graph = agrees(net.model(net.quantized(value, *y, shape)))
    assert [node.op for node in graph.nodes] == [OPERATORS[op_type]]


@pytest.mark.parametrize("op_type", ["Sub", "Mul", "Max"])
def test_onnx_constant_first(op_type: str) -> None:
    a, b, y = scales_of(op_type)
    net = Qdq((1, 3, 6, 5), seed=1)
    value = net.node(op_type, [dequantized(net, (3, 1, 1), *b), net.input("input", *a)])
    agrees(net.model(net.quantized(value, *y, (1, 3, 6, 5))))


def test_onnx_activations_of_an_image_broadcast() -> None:
    """x minus its mean over h and w: both images, one of one pixel."""
    net = Qdq((1, 3, 6, 5), seed=1)
    x = net.input(scale=0.03, zero_point=5)
    value = net.node("Sub", [x, net.global_pool(x, flatten=False, scale=0.01)])
    graph = agrees(net.model(net.quantized(value, 0.03, 3, (1, 3, 6, 5))))
    assert [node.op for node in graph.nodes] == ["mean", "sub"]


@pytest.mark.parametrize("op_type", ["Sub", "Mul"])
def test_onnx_clamps_are_fused(op_type: str) -> None:
    net = Qdq((1, 80), seed=1)
    value = net.node(op_type, [net.input(scale=0.05, zero_point=0), dequantized(net, (80,), 0.05, 0)])
    graph = agrees(net.model(net.quantized(net.clamped(value, (0.0, 6.0)), 6 / 255, -128, (1, 80))))
    assert len(graph.nodes) == 1 and graph.nodes[0].attributes["clamp"] == (-128, 127)


def refused(net: Qdq, value: str, message: str) -> None:
    with pytest.raises(GraphError, match=message):
        read_onnx_bytes(net.model(value).SerializeToString())


def test_onnx_activations_of_other_rank_are_refused() -> None:
    net = Qdq((1, 3, 1, 5), seed=1)
    x = net.input(scale=0.03, zero_point=5)
    row = net.bare("Reshape", x, (3, 5), net.constant(np.array([3, 5], np.int64)))
    value = net.node("Add", [x, row])
    refused(net, net.quantized(value, 0.05, 0, (1, 3, 3, 5)), "Add .*|moves channels|activations with 4 and 2 dimensions")


@pytest.mark.parametrize("op_type", ["Min", "Max"])
def test_onnx_extremes_of_three_and_of_other_scales_are_refused(op_type: str) -> None:
    net = Qdq((1, 8), seed=1)
    x = net.input(scale=0.05, zero_point=0)
    value = net.node(op_type, [x, x, x])
    refused(net, net.quantized(value, 0.05, 0, (1, 8)), f"{op_type} of 3 inputs; supported: 2")
    net = Qdq((1, 8), seed=1)
    value = net.node(op_type, [net.input(scale=0.05, zero_point=0), dequantized(net, (8,), 0.04, 0)])
    refused(net, net.quantized(value, 0.05, 0, (1, 8)), "input scale 0.04 zero point 0, output scale 0.05 .*the same for both")


def test_onnx_constants_per_channel_are_refused() -> None:
    net = Qdq((1, 8), seed=1)
    weights, _ = net.weights((1, 8), axis=1)
    value = net.node("Mul", [net.input(scale=0.05, zero_point=0), weights])
    refused(net, net.quantized(value, 0.05, 0, (1, 8)), "is quantized per channel; expected one scale for the whole tensor")
