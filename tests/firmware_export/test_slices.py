"""Transposes and slices: by hand, as TFLite files with every mask against LiteRT, as ONNX files against onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from ai_edge_litert import schema_py_generated as schema
from movement_files import activation, equals_litert, numbers, one_operator
from qdq_builder import Qdq
from test_movement_onnx import agrees

from firmware_export.graph import Graph, GraphError, Node
from firmware_export.operators import operator_of
from firmware_export.operators._movement import Axis, StridedCopy, steps
from firmware_export.operators._slices import slice_of_axis
from firmware_export.read_onnx import read_onnx_bytes
from firmware_export.read_tflite import read_tflite_bytes
from firmware_export.simulate import simulate


def transposed(shape: tuple[int, ...], perm: tuple[int, ...], out: tuple[int, ...]) -> bytes:
    return one_operator("TRANSPOSE", [activation(shape), numbers(*perm)], [out], schema.TransposeOptionsT(), 2)


def strided(shape: tuple[int, ...], begin: Any, end: Any, strides: Any, out: tuple[int, ...], **masks: int) -> bytes:
    options = schema.StridedSliceOptionsT()
    for name, mask in masks.items():
        setattr(options, name, mask)
    constants = [numbers(*values) for values in (begin, end, strides)]
    return one_operator("STRIDED_SLICE", [activation(shape), *constants], [out], options, 2)


@pytest.mark.parametrize(
    ("shape", "begin", "end", "strides", "out", "masks"),
    [
        ((1, 5, 6, 3), (0, 1, 2, 0), (1, 4, 6, 3), (1, 1, 2, 1), (1, 3, 2, 3), {}),
        ((1, 5, 6, 3), (0, 1, 2, 0), (1, 4, 6, 3), (1, 1, 2, 1), (1, 5, 3, 3), {"beginMask": 6, "endMask": 2}),
        ((1, 5, 6, 3), (0, -2, -3, 0), (1, -1, 99, 3), (1, 1, 1, 1), (1, 1, 3, 3), {}),
        ((1, 5, 6, 3), (0, 4, 5, 2), (1, 0, 1, 0), (1, -1, -2, -1), (1, 4, 2, 2), {}),
        ((1, 5, 6, 3), (0, 4, 5, 2), (1, 0, 1, 0), (1, -1, -2, -1), (1, 5, 3, 3), {"endMask": 14}),
        ((1, 5, 6, 3), (0, 2, 0, 0), (1, 3, 6, 3), (1, 1, 1, 1), (1, 6, 3), {"shrinkAxisMask": 2}),
        ((1, 5, 6, 3), (0, -1, 0, 1), (1, 0, 6, 2), (1, 1, 1, 1), (1, 6), {"shrinkAxisMask": 10}),
        ((1, 8), (0, 0), (1, 7), (1, 3), (1, 3), {}),
        ((9,), (7,), (-9,), (-2,), (4,), {}),
    ],
)
def test_strided_slices(shape: Any, begin: Any, end: Any, strides: Any, out: Any, masks: dict[str, int]) -> None:
    equals_litert(strided(shape, begin, end, strides, out, **masks))


def test_random_strided_slices() -> None:
    """Any begins, ends, strides and masks; numpy only tells the output's shape."""
    rng = np.random.default_rng(6)
    seen = 0
    while seen < 60:
        shape = tuple(int(n) for n in rng.integers(1, 7, rng.integers(1, 5)))
        begin, end = (rng.integers(-8, 9, len(shape)).tolist() for _ in range(2))
        strides = rng.choice([-2, -1, 1, 1, 2, 3], len(shape)).tolist()
        masks = [int(mask) for mask in rng.integers(0, 16, 2)]
        slices = tuple(
            slice(None if masks[0] >> i & 1 else b, None if masks[1] >> i & 1 else e, s)
            for i, (b, e, s) in enumerate(zip(begin, end, strides, strict=True))
        )
        out = np.zeros(shape)[slices].shape
        if 0 not in out and shape[0] == 1:
            equals_litert(strided(shape, begin, end, strides, out, beginMask=masks[0], endMask=masks[1]), vectors=1)
            seen += 1


@pytest.mark.parametrize(
    ("begin", "size", "out"),
    [
        ((0, 1, 2, 0), (1, 2, 3, 3), (1, 2, 3, 3)),
        ((0, 4, 0, 2), (-1, 1, -1, -1), (1, 1, 6, 1)),
        ((0,) * 4, (-1,) * 4, (1, 5, 6, 3)),
    ],
)
def test_slices(begin: tuple[int, ...], size: tuple[int, ...], out: tuple[int, ...]) -> None:
    model = one_operator("SLICE", [activation((1, 5, 6, 3)), numbers(*begin), numbers(*size)], [out], schema.SliceOptionsT(), 2)
    equals_litert(model)


@pytest.mark.parametrize("perm", [(0, 3, 1, 2), (0, 1, 3, 2), (0, 2, 1, 3), (3, 1, 0, 2)])
def test_transposes(perm: tuple[int, ...]) -> None:
    shape = (1, 4, 5, 3)
    out = tuple(shape[axis] for axis in perm)
    graph = equals_litert(transposed(shape, perm, out))
    assert graph.nodes == [Node("transpose", (graph.inputs[0],), graph.outputs, {"perm": perm})]


def test_transpose_by_hand() -> None:
    model = transposed((1, 2, 3), (0, 2, 1), (1, 3, 2))
    found = simulate(read_tflite_bytes(model), np.array([[[1, 2, 3], [4, 5, 6]]], np.int8))[0]
    assert found.tolist() == [[[1, 4], [2, 5], [3, 6]]]


REFUSED = [
    (strided((1, 5), (0, 3), (1, 3), (1, 1), (1, 1)), "the slice 3:3:1 of 5 elements is empty"),
    (strided((1, 5), (0, 3), (1, 5), (1, 0), (1, 1)), "a slice with stride 0; expected another"),
    (strided((1, 5), (0, 3), (1, 5), (1, 1), (1, 2), ellipsisMask=1), "with an ellipsis, a new axis or an offset"),
    (strided((1, 5), (0, 3), (1, 5), (1, 1), (1, 2), newAxisMask=1), "with an ellipsis, a new axis or an offset"),
    (strided((1, 5), (0, 9), (1, 5), (1, 1), (1,), shrinkAxisMask=2), "axis 9 of a tensor with 5 dimensions"),
    (strided((1, 5), (0,), (1, 5), (1, 1), (1, 5)), "input 1 has 1 numbers for a tensor with 2 dimensions"),
    (strided((1, 5), (0, 0), (1, 5), (1, 1), (1, 4)), "its inputs make int8"),
    (one_operator("SLICE", [activation((1, 5)), numbers(0, 3), numbers(1, 3)], [(1, 3)]), "supported: inside of the tensor"),
    (one_operator("SLICE", [activation((1, 5)), numbers(0, -1), numbers(1, 1)], [(1, 1)]), "supported: inside of the tensor"),
    (one_operator("TRANSPOSE", [activation((1, 5)), numbers(0, 5)], [(1, 5)]), "axis 5 of a tensor with 2 dimensions"),
    (
        one_operator("TRANSPOSE", [activation((1, 5)), activation((2,))], [(5, 1)]),
        "input 1 't' is computed; supported: a constant",
    ),
    (one_operator("TRANSPOSE", [activation((1, 5)), np.zeros(2, np.int8)], [(5, 1)]), r"is int8 \(2,\); supported: a constant"),
    (one_operator("TRANSPOSE", [activation((1, 5)), numbers(*range(65))], [(5, 1)]), "a constant of up to 64 integers"),
]


@pytest.mark.parametrize(("model", "message"), REFUSED, ids=range(len(REFUSED)))
def test_refused_files(model: bytes, message: str) -> None:
    with pytest.raises(GraphError, match=message):
        read_tflite_bytes(model)


# The strided copy


def test_neighbouring_loops_become_one() -> None:
    """A transpose of [2, 3, 4, 5] that only exchanges the middle axes keeps rows of 5."""
    from_x = steps((2, 3, 4, 5))
    perm = (0, 2, 1, 3)
    shape = tuple((2, 3, 4, 5)[axis] for axis in perm)
    axes = tuple(Axis(n, from_x[axis], to) for n, axis, to in zip(shape, perm, steps(shape), strict=True))
    assert StridedCopy(axes).merged().axes == (Axis(2, 60, 60), Axis(4, 5, 15), Axis(3, 20, 5), Axis(5, 1, 1))


@pytest.mark.parametrize("shape", [(1,), (1, 1, 1), (7,), (2, 3), (4, 3, 2, 5), (1, 4, 1, 6, 1)])
def test_a_whole_copy_is_one_loop(shape: tuple[int, ...]) -> None:
    axes = tuple(Axis(n, step, step) for n, step in zip(shape, steps(shape), strict=True))
    count = int(np.prod(shape))
    assert StridedCopy(axes, 3, 4).merged() == StridedCopy((Axis(count, 1, 1),), 3, 4)


def test_too_many_loops_are_refused() -> None:
    with pytest.raises(GraphError, match="a copy of 7 nested loops; supported: up to 6"):
        StridedCopy(tuple(Axis(2, 3**n, 5**n) for n in range(7))).fields()


def test_steps_are_numpys() -> None:
    array = np.zeros((3, 4, 5, 6), np.int8)
    assert steps(array.shape) == array.strides


@pytest.mark.parametrize(
    ("begin", "end", "stride", "expected"),
    [
        (None, None, 1, (0, 1, 7)),
        (None, None, -1, (6, -1, 7)),
        (-3, 99, 2, (4, 2, 2)),
        (5, None, -2, (5, -2, 3)),
        (1, -1, 3, (1, 3, 2)),
    ],
)
def test_slice_of_axis(begin: int | None, end: int | None, stride: int, expected: tuple[int, ...]) -> None:
    assert slice_of_axis(begin, end, stride, 7) == expected


def test_an_image_is_turned_with_few_loops() -> None:
    """What the generated code does for the usual NHWC to NCHW: three loops."""
    model = one_operator(
        "TRANSPOSE", [activation((1, 8, 6, 4)), numbers(0, 3, 1, 2)], [(1, 4, 8, 6)], schema.TransposeOptionsT(), 2
    )
    graph: Graph = read_tflite_bytes(model)
    fields = operator_of(graph.nodes[0]).emit(graph, graph.nodes[0]).fields
    assert fields["copy.rank"] == "2" and fields["copy.axes[0]"] == "{4, 1, 48}" and fields["copy.axes[1]"] == "{48, 4, 1}"


# ONNX


@pytest.mark.parametrize("perm", [(0, 2, 3, 1), (0, 3, 2, 1), (0, 1, 3, 2), (0, 1, 2, 3), None])
@pytest.mark.parametrize("same", [True, False])
def test_onnx_transpose(perm: tuple[int, ...] | None, same: bool) -> None:
    shape = (1, 2, 4, 5)
    net = Qdq(shape)
    out = tuple(shape[axis] for axis in (perm or (3, 2, 1, 0)))
    attributes = {} if perm is None else {"perm": list(perm)}
    x = net.input()
    y = net.node("Transpose", [x], **attributes)
    scale, zero_point = net.scales[x] if same else (0.0051, 9)
    graph = agrees(net.model(net.quantized(y, scale, zero_point, out)), steps=0 if same else 1)
    assert [node.op for node in graph.nodes] == (["transpose"] if same else ["transpose", "quantize"])


def test_onnx_transpose_of_a_row() -> None:
    net = Qdq((1, 6, 4))
    agrees(net.model(net.same_scale("Transpose", net.input(), (1, 4, 6), perm=[0, 2, 1])))


@pytest.mark.parametrize(
    ("starts", "ends", "axes", "strides", "out"),
    [
        ([1], [3], [2], None, (1, 3, 2, 6)),
        ([0, 1], [2**63 - 1, 5], [1, -1], [1, 2], (1, 3, 4, 2)),
        ([-1, -1], [-(2**63), -(2**31)], [2, 3], [-1, -2], (1, 3, 4, 3)),
        ([0, 1, 0, 2], [1, 3, 4, 6], None, None, (1, 2, 4, 4)),
    ],
)
def test_onnx_slice(starts: Any, ends: Any, axes: Any, strides: Any, out: tuple[int, ...]) -> None:
    net = Qdq((1, 3, 4, 6))
    arguments = [net.constant(np.array(values, np.int64)) for values in (starts, ends, axes, strides) if values is not None]
    agrees(net.model(net.same_scale("Slice", net.input(), out, *arguments)))


@pytest.mark.parametrize(("axis", "sizes"), [(1, (2, 4)), (1, (1, 5)), (-1, (3, 2)), (2, (2, 2)), (1, None)])
def test_onnx_split(axis: int, sizes: tuple[int, int] | None) -> None:
    """Each output is a slice; both go on to a sum of means, the second with another scale."""
    shape = (1, 6, 4, 5)
    net = Qdq(shape)
    x = net.input()
    arguments = [] if sizes is None else [net.constant(np.array(sizes, np.int64))]
    options = {"num_outputs": 2} if sizes is None else {}
    names = [net.fresh("part"), net.fresh("part")]
    net.nodes.append(onnx.helper.make_node("Split", [x, *arguments], names, axis=axis, **options))
    halves = sizes or (3, 3)
    ends = []
    for place, (name, size) in enumerate(zip(names, halves, strict=True)):
        part = tuple(size if i == axis % 4 else n for i, n in enumerate(shape))
        y = net.quantized(name, net.scales[x][0] * (1 + place), -128, part)
        ends.append(net.conv(y, 3))
    first, second = (net.global_pool(end, scale=0.05) for end in ends)
    graph = agrees(net.model(net.add(first, second)), steps=2)
    assert [node.op for node in graph.nodes].count("strided_slice") == 2


@pytest.mark.parametrize(
    ("axis", "sizes", "message"),
    [(1, (2, 5), r"Split of 6 into \(2, 5\) for 2 outputs"), (4, (3, 3), "axis 4 of a tensor with 4"), (1, (6, 0), "into")],
)
def test_onnx_split_refusals(axis: int, sizes: tuple[int, int], message: str) -> None:
    net = Qdq((1, 6, 4, 5))
    names = [net.fresh("part"), net.fresh("part")]
    net.nodes.append(onnx.helper.make_node("Split", [net.input(), net.constant(np.array(sizes, np.int64))], names, axis=axis))
    model = net.model(net.quantized(names[0], 0.1, 0, (1, 3, 4, 5)))
    with pytest.raises(GraphError, match=message):
        read_onnx_bytes(model.SerializeToString())
