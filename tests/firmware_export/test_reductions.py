"""Mean, sum and maximum over any axes: the walk in C, identities, ONNX's layouts."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from bundle import Bundle
from example_cases import Case, cases_of, differences
from oracles import litert, onnx_stored, onnxruntime_session, tflite_micro
from qdq_builder import Qdq
from second_implementation import compute

from firmware_export.graph import Attribute, Graph, GraphError, Node, Quantization, Tensor
from firmware_export.operators import operator_of, registry
from firmware_export.operators._reduction import grouped, middle_of, walk_fields
from firmware_export.read_onnx import read_onnx_bytes
from firmware_export.read_tflite import TfliteOperator, read_tflite_bytes
from firmware_export.simulate import simulate
from firmware_export.toolchain import host_toolchain
from firmware_export.write_tflite import write_tflite

NAMES = ("mean", "sum", "reduce_max")
Shape = tuple[int, ...]


def graph_of(op: str, shape: Shape, axes: tuple[int, ...], keep_dims: int = 0) -> Graph:
    """One node; a scale that spreads the results."""
    count = int(np.prod([shape[axis] for axis in axes]))
    x = Quantization.per_tensor(0.05, -7)
    y = {"sum": Quantization.per_tensor(float(np.float32(0.05 * count**0.5)), 3), "mean": Quantization.per_tensor(0.03, 3)}
    attributes: dict[str, Attribute] = {"axes": axes, "keep_dims": keep_dims}
    node = Node(op, (0,), (1,), attributes)
    graph = Graph([Tensor("x", shape, "int8", x), Tensor("y", (), "int8", y.get(op, x))], [node], (0,), (1,))
    result = operator_of(node).infer(graph, node)[0].shape
    graph.tensors[1] = Tensor("y", result, "int8", y.get(op, x))
    return graph


def values_for(graph: Graph, seed: int = 77) -> np.ndarray:
    return np.random.default_rng(seed).integers(-128, 128, graph.tensors[0].shape).astype(np.int8)


# The walk


@pytest.mark.parametrize(
    ("shape", "axes", "expected"),
    [
        ((1, 4, 5, 3), (1, 2), [(True, 20, 3), (False, 3, 1)]),
        ((1, 4, 5, 3), (1, 3), [(True, 4, 15), (False, 5, 3), (True, 3, 1)]),
        ((1, 4, 1, 3), (1, 3), [(True, 12, 1)]),
        ((2, 3, 4), (0, 2), [(True, 2, 12), (False, 3, 4), (True, 4, 1)]),
        ((1, 1), (0,), []),
        ((5,), (0,), [(True, 5, 1)]),
    ],
)
def test_groups(shape: Shape, axes: tuple[int, ...], expected: list[tuple[bool, int, int]]) -> None:
    assert grouped(shape, axes) == expected


@pytest.mark.parametrize(
    ("shape", "axes", "expected"),
    [
        ((1, 4, 5, 3), (1, 2), (1, 20, 3)),
        ((1, 4, 5, 3), (3,), (20, 3, 1)),
        ((1, 4, 5, 3), (1,), (1, 4, 15)),
        ((1, 4, 5, 3), (1, 3), None),
        ((1, 4, 1, 3), (1, 3), (1, 12, 1)),
        ((1, 4, 5, 3), (0,), (60, 1, 1)),
        ((1, 1), (0, 1), (1, 1, 1)),
    ],
)
def test_neighbouring_axes_have_a_simple_kernel(shape: Shape, axes: tuple[int, ...], expected: Any) -> None:
    assert middle_of(shape, axes) == expected


def test_fields_of_the_walk() -> None:
    fields = walk_fields((1, 4, 5, 3), (1, 3))
    assert fields["shape.kept"] == "{{1, 0}, {1, 0}, {5, 3}}"
    assert fields["shape.reduced"] == "{{1, 0}, {4, 15}, {3, 1}}"


def test_kernels_of_sums() -> None:
    for name in ("mean", "sum"):
        simple, walking = graph_of(name, (1, 4, 5, 3), (1, 2)), graph_of(name, (1, 4, 5, 3), (1, 3))
        assert operator_of(simple.nodes[0]).emit(simple, simple.nodes[0]).sources == ("mean.c",)
        code = operator_of(walking.nodes[0]).emit(walking, walking.nodes[0])
        assert (code.function, code.sources) == ("nn_reduce_sum", ("reduce_sum.c", "reduction.c"))


@pytest.mark.parametrize("name", NAMES)
def test_all_axes_of_five_dimensions(name: str) -> None:
    """Every choice of axes; TFLite Micro and LiteRT answer the same, but for LiteRT's SUM, which is far from the real sums."""
    shape = (1, 2, 3, 2, 3)
    for choice in range(1, 32):
        axes = tuple(axis for axis in range(5) if choice >> axis & 1)
        graph = graph_of(name, shape, axes, choice % 2)
        x = values_for(graph)
        found = simulate(graph, x)[0]
        assert np.array_equal(found, compute(graph, [x])[0]), axes
        if choice % 3 == 0:
            twin = write_tflite(graph)
            for outside in (tflite_micro,) if name == "sum" else (tflite_micro, litert):
                assert np.array_equal(found, outside(twin, [x])[0]), (axes, outside)


def test_six_dimensions_in_c(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Kept and reduced axes in turn: every loop of the walk."""
    cases = []
    for name in NAMES:
        for axes in ((0, 2, 4), (1, 3, 5), (1, 2, 5), (0, 1, 2, 3, 4, 5), (2,), (3, 5)):
            graph = graph_of(name, (1, 2, 3, 2, 3, 2), axes)
            x = values_for(graph)
            cases.append(Case(f"{name} {axes}", graph, ((x,),), ((compute(graph, [x])[0],),)))
            assert np.array_equal(simulate(graph, x)[0], cases[-1].answers[0][0])
    bundle = Bundle(tmp_path_factory.mktemp("six"), cases)
    for case, found in zip(cases, bundle.run_host(bundle.host_program(host_toolchain())), strict=True):
        assert differences(case, found) == ""


# Identities


def test_maxima_in_two_steps() -> None:
    """A maximum over two axes is one over the other of one over the one."""
    whole, first = graph_of("reduce_max", (1, 4, 5, 3), (1, 3)), graph_of("reduce_max", (1, 4, 5, 3), (3,), 1)
    second = graph_of("reduce_max", (1, 4, 5, 1), (1,), 1)
    x = values_for(whole)
    both = simulate(second, simulate(first, x)[0])[0]
    assert np.array_equal(simulate(whole, x)[0].ravel(), both.ravel())
    assert np.array_equal(simulate(whole, x)[0], x.max((1, 3)))


def test_sum_of_one_element_is_the_element() -> None:
    graph = graph_of("sum", (1, 4, 1, 3), (2,))
    graph.tensors[1] = Tensor("y", (1, 4, 3), "int8", graph.tensors[0].quantization)
    x = values_for(graph)
    assert np.array_equal(simulate(graph, x)[0], x[:, :, 0])


def test_near_the_real_result() -> None:
    for name, function in (("mean", np.mean), ("sum", np.sum)):
        for axes in ((1, 2), (1, 3), (3,)):
            graph = graph_of(name, (1, 6, 5, 4), axes)
            x, y = values_for(graph), graph.tensors[1]
            real = function(0.05 * (x.astype(float) + 7), axis=axes) / y.scale + y.zero_point
            assert np.abs(simulate(graph, x)[0] - np.clip(real, -128, 127)).max() <= 0.76, (name, axes)


def test_keep_dims_changes_the_shape_alone() -> None:
    for name in NAMES:
        flat, kept = (graph_of(name, (1, 4, 5, 3), (1, 3), keep) for keep in (0, 1))
        x = values_for(flat)
        assert simulate(flat, x)[0].shape == (1, 5) and simulate(kept, x)[0].shape == (1, 1, 5, 1)
        assert simulate(flat, x)[0].tobytes() == simulate(kept, x)[0].tobytes()


# Files


@pytest.mark.parametrize("name", NAMES)
def test_the_twin_is_read_again(name: str) -> None:
    graph = graph_of(name, (1, 4, 5, 3), (1, 3), 1)
    again = read_tflite_bytes(write_tflite(graph))
    assert again.nodes[0].op == name and again.nodes[0].attributes == {"axes": (1, 3), "keep_dims": 1}


@pytest.mark.parametrize("builtin", ["MEAN", "SUM", "REDUCE_MAX"])
def test_computed_axes_are_refused(builtin: str) -> None:
    q = Quantization.per_tensor(0.1, 0)
    tensors = [Tensor("x", (1, 4), "int8", q), Tensor("axes", (1,), "int32"), Tensor("y", (1,), "int8", q)]
    op = TfliteOperator(builtin, (0, 1), (2,), None, Graph(tensors, [], (0,), (2,)))
    name = {"MEAN": "mean", "SUM": "sum", "REDUCE_MAX": "reduce_max"}[builtin]
    with pytest.raises(GraphError, match=f"{builtin} with computed axes; supported: constant int32 axes"):
        registry()[name].read_tflite(op)


def test_sums_with_a_clamp_have_no_twin() -> None:
    graph = next(case.graph for case in cases_of("sum"))
    node = graph.nodes[0]
    clamped = Graph(graph.tensors, [Node("sum", (0,), (1,), {**node.attributes, "clamp": (0, 127)})], (0,), (1,))
    with pytest.raises(GraphError, match=r"sum with clamp \(0, 127\); TFLite's SUM has none: use a relu behind it"):
        write_tflite(clamped)


TYPES = {"ReduceMean": ("mean", 0.02), "ReduceSum": ("sum", 0.3), "ReduceMax": ("reduce_max", 0.05)}


def reduced(op_type: str, shape: Shape, axes: list[int], keepdims: int, **attributes: Any) -> onnx.ModelProto:
    net = Qdq(shape, seed=1)
    x = net.input(scale=0.05, zero_point=3)
    value = net.node(op_type, [x, net.constant(np.array(axes, np.int64))], keepdims=keepdims, **attributes)
    after = np.zeros(shape).sum(tuple(axes), keepdims=bool(keepdims)).shape
    return net.model(net.quantized(value, TYPES[op_type][1], 3, after))


@pytest.mark.parametrize("op_type", sorted(TYPES))
@pytest.mark.parametrize(
    ("shape", "axes", "keepdims"),
    [
        ((1, 3, 6, 5), [2, 3], 1), ((1, 3, 6, 5), [2, 3], 0), ((1, 3, 6, 5), [1], 1), ((1, 3, 6, 5), [1], 0),
        ((1, 3, 6, 5), [1, 2], 0), ((1, 3, 6, 5), [-1, 1], 1), ((1, 3, 6, 5), [3], 1), ((1, 7, 9), [1], 0),
        ((1, 7, 9), [2], 1), ((1, 3, 6, 5), [1, 2, 3], 0),
    ],
)  # fmt: skip
def test_onnx(op_type: str, shape: Shape, axes: list[int], keepdims: int) -> None:
    model = reduced(op_type, shape, axes, keepdims)
    onnx.checker.check_model(model, full_check=True)
    graph = read_onnx_bytes(model.SerializeToString())
    x = values_for(graph)
    found, wanted = simulate(graph, x)[0], onnx_stored(onnxruntime_session(model.SerializeToString()), graph, [x])[0]
    assert graph.nodes[0].op == TYPES[op_type][0] and found.shape == wanted.shape
    assert np.abs(found.astype(int) - wanted).max() <= (0 if op_type == "ReduceMax" else 1)


@pytest.mark.parametrize("axes", [[2], [3]])
def test_onnx_edges_of_an_image_without_keepdims(axes: list[int]) -> None:
    """Kept, then dropped: what is left is in the file's order."""
    model = reduced("ReduceMax", (1, 3, 6, 5), axes, 0)
    graph = read_onnx_bytes(model.SerializeToString())
    x = values_for(graph)
    wanted = onnx_stored(onnxruntime_session(model.SerializeToString()), graph, [x])[0]
    assert np.array_equal(simulate(graph, x)[0], wanted) and graph.nodes[0].op == "reduce_max"


def test_onnx_no_axes() -> None:
    """All axes, or with noop_with_empty_axes nothing at all."""
    net = Qdq((1, 7, 9), seed=1)
    value = net.node("ReduceSum", [net.input(scale=0.05, zero_point=3)], keepdims=1)
    graph = read_onnx_bytes(net.model(net.quantized(value, 1.0, 0, (1, 1, 1))).SerializeToString())
    assert graph.nodes[0].attributes["axes"] == (0, 1, 2)
    net = Qdq((1, 7, 9), seed=1)
    value = net.node("ReduceSum", [net.input(scale=0.05, zero_point=3)], noop_with_empty_axes=1)
    with pytest.raises(GraphError, match="ReduceSum over no axes; supported: at least one"):
        read_onnx_bytes(net.model(net.quantized(value, 1.0, 0, (1, 7, 9))).SerializeToString())
