"""Borders, repetitions and other sizes of images: files against LiteRT and onnxruntime, and the pass that fuses a border."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from graph_builder import Build, inputs_of
from movement_files import STORED, activation, equals_litert, numbers, one_operator
from oracles import tflite_micro
from qdq_builder import Qdq
from test_movement_onnx import agrees

from firmware_export.check import check
from firmware_export.graph import Graph, GraphError, Quantization, Tensor
from firmware_export.operators._gathering import gather_code
from firmware_export.operators._resizing import nearest_indexes, onnx_nearest
from firmware_export.passes import simplify
from firmware_export.passes.fuse_pad import fuse_pad
from firmware_export.read_onnx import read_onnx_bytes
from firmware_export.read_tflite import read_tflite_bytes
from firmware_export.simulate import simulate
from firmware_export.write_tflite import write_tflite

Shape = tuple[int, ...]
IMAGE = (1, 4, 5, 3)


def borders(*values: tuple[int, int]) -> np.ndarray:
    return np.array(values, np.int32)


@pytest.mark.parametrize("paddings", [((0, 0), (1, 2), (3, 0), (0, 0)), ((0, 0), (0, 0), (0, 0), (2, 1)), ((0, 0),) * 4])
@pytest.mark.parametrize("value", [None, 77])
def test_pads(paddings: Any, value: int | None) -> None:
    out = tuple(n + sum(border) for n, border in zip(IMAGE, paddings, strict=True))
    inputs = [activation(IMAGE), borders(*paddings)]
    if value is None:
        graph = equals_litert(one_operator("PAD", inputs, [out], schema.PadOptionsT(), 2))
    else:
        graph = equals_litert(one_operator("PADV2", [*inputs, np.array([value], np.int8)], [out], schema.PadV2OptionsT(), 2))
    assert graph.nodes[0].attributes["value"] == (-7 if value is None else value)


@pytest.mark.parametrize(("mode", "border"), [(0, (1, 2)), (0, (3, 3)), (1, (4, 4)), (1, (0, 3))])
def test_mirror_pads(mode: int, border: tuple[int, int]) -> None:
    out = (1, 4 + sum(border), 5 + sum(border), 3)
    inputs = [activation(IMAGE), borders((0, 0), border, border, (0, 0))]
    equals_litert(one_operator("MIRROR_PAD", inputs, [out], schema.MirrorPadOptionsT(mode=mode), 2))


def test_mirrors_by_hand() -> None:
    for mode, expected in ((0, [3, 2, 1, 2, 3, 2, 1]), (1, [2, 1, 1, 2, 3, 3, 2])):
        model = one_operator(
            "MIRROR_PAD", [activation((1, 3)), borders((0, 0), (2, 2))], [(1, 7)], schema.MirrorPadOptionsT(mode=mode)
        )
        assert simulate(read_tflite_bytes(model), np.array([[1, 2, 3]], np.int8))[0].tolist() == [expected]


@pytest.mark.parametrize("repeats", [(1, 2, 3, 1), (1, 1, 1, 4), (1, 3, 2, 2), (1, 1, 1, 1), (1, 11, 1, 1)])
def test_tiles(repeats: Shape) -> None:
    """LiteRT runs TILE itself; the twin that TFLite Micro runs is made of concatenations."""
    out = tuple(n * repeat for n, repeat in zip(IMAGE, repeats, strict=True))
    graph = equals_litert(one_operator("TILE", [activation(IMAGE), numbers(*repeats)], [out], schema.TileOptionsT(), 1))
    inputs = inputs_of(graph)
    assert tflite_micro(write_tflite(graph), inputs)[0].tobytes() == simulate(graph, *inputs)[0].tobytes()


@pytest.mark.parametrize("kind", ["NEAREST_NEIGHBOR", "BILINEAR"])
@pytest.mark.parametrize("flags", [(False, False), (True, False), (False, True)])
@pytest.mark.parametrize("size", [(8, 10), (7, 3), (1, 1), (4, 5), (13, 17), (2, 40)])
def test_resizes(kind: str, flags: tuple[bool, bool], size: tuple[int, int]) -> None:
    name = "ResizeNearestNeighborOptionsT" if kind.startswith("N") else "ResizeBilinearOptionsT"
    options = getattr(schema, name)(alignCorners=flags[0], halfPixelCenters=flags[1])
    equals_litert(one_operator(f"RESIZE_{kind}", [activation(IMAGE), numbers(*size)], [(1, *size, 3)], options, 3))


def test_bilinear_by_hand() -> None:
    """Twice the width: every second pixel lies half way; 2.5 and -2.5 go away from zero."""
    model = one_operator(
        "RESIZE_BILINEAR", [activation((1, 1, 3, 1)), numbers(1, 6)], [(1, 1, 6, 1)], schema.ResizeBilinearOptionsT()
    )
    found = simulate(read_tflite_bytes(model), np.array([2, 3, -8], np.int8).reshape(1, 1, 3, 1))[0]
    assert found.reshape(-1).tolist() == [2, 3, 3, -3, -8, -8]


def test_every_nearest_pixel_is_inside_and_in_order() -> None:
    for source in range(1, 20):
        for target in range(1, 40):
            for flags in ((False, False), (True, False), (False, True)):
                found = nearest_indexes(source, target, *flags)
                assert len(found) == target and found == sorted(found) and found[0] >= 0 and found[-1] < source


REFUSED = [
    (
        one_operator("PAD", [activation((1, 2)), numbers(0, 0, 1, 1)], [(1, 4)]),
        r"paddings \(4,\) for a tensor with 2 dimensions",
    ),
    (one_operator("PAD", [activation((1, 2)), borders((0, 0), (-1, 1))], [(1, 2)]), "supported: 0 to 65535"),
    (one_operator("PAD", [activation((1, 2)), activation((2, 2))], [(1, 4)]), "is computed; supported: a constant"),
    (
        one_operator("PADV2", [activation((1, 2)), borders((0, 0), (1, 1)), np.zeros(2, np.int8)], [(1, 4)]),
        "supported: one constant with type, scale and zero point of x",
    ),
    (
        one_operator("PADV2", [activation((1, 2)), borders((0, 0), (1, 1)), numbers(3)], [(1, 4)]),
        "of a pad; supported: one constant",
    ),
    (
        one_operator("MIRROR_PAD", [activation((1, 2)), borders((0, 0), (2, 0))], [(1, 4)], schema.MirrorPadOptionsT(mode=0)),
        "no wider than what it mirrors",
    ),
    (
        one_operator("MIRROR_PAD", [activation((1, 2)), borders((0, 0), (1, 0))], [(1, 3)], schema.MirrorPadOptionsT(mode=2)),
        "MIRROR_PAD with mode 2; supported: 0",
    ),
    (one_operator("TILE", [activation((1, 2)), numbers(1, 0)], [(1, 2)]), "supported: 1 to 65535"),
    (one_operator("TILE", [activation((1, 2)), numbers(2)], [(2, 2)]), "repeats is .2,.; expected 2 integers"),
    (one_operator("RESIZE_BILINEAR", [activation(IMAGE), numbers(3)], [(1, 3, 3, 3)]), "a size of 1 numbers"),
    (one_operator("RESIZE_BILINEAR", [activation((1, 4)), numbers(3, 3)], [(1, 3)]), r"supported: \[1, h, w, c\]"),
]


@pytest.mark.parametrize(("model", "message"), REFUSED, ids=range(len(REFUSED)))
def test_refused_files(model: bytes, message: str) -> None:
    with pytest.raises(GraphError, match=message):
        read_tflite_bytes(model)


def test_a_value_stored_otherwise_is_refused() -> None:
    value = Tensor("value", (1,), "int8", Quantization.per_tensor(0.1, 0), np.array([5], np.int8))
    assert value.quantization != STORED
    model = one_operator("PADV2", [activation((1, 2)), borders((0, 0), (1, 1)), value], [(1, 4)])
    with pytest.raises(GraphError, match="the value 'value' of a pad"):
        read_tflite_bytes(model)


def test_a_table_holds_only_the_axes_that_change() -> None:
    """Rows 1 0 of [1, 2, 3, 4]: whole rows of 12 bytes."""
    code = gather_code("mirror_pad", (1, 2, 3, 4), [[0], [1, 0], [0, 1, 2], [0, 1, 2, 3]], "")
    assert code.fields["gather.run"] == "12" and code.fields["gather.rank"] == "2"
    assert code.constants[0].data.tolist() == [0, 1, 0] and code.fields["gather.axes[1]"] == "{2, 12}"


# The pass


def padded(op: str, paddings: Shape, value: int, **options: Any) -> Graph:
    """A pad before a convolution or pool with a padding of its own."""
    build = Build(6)
    x = build.activation((1, 6, 7, 2), 0.05, 11)
    shape = tuple(n + paddings[2 * i] + paddings[2 * i + 1] for i, n in enumerate((1, 6, 7, 2)))
    y = build.node("pad", (x,), build.activation(shape, 0.05, 11), paddings=paddings, value=value)
    if op == "conv2d":
        return build.graph(x, build.conv(y, 3, **options))
    if op == "depthwise_conv2d":
        weights = build.weights((1, 3, 3, shape[3]), 3)
        z = build.activation((1, shape[1], shape[2], shape[3]), 0.4, 0)
        attributes = {"stride": (1, 1), "dilation": (1, 1), "padding": (1, 1, 1, 1), "clamp": (-128, 127)}
        return build.graph(x, build.node(op, (y, weights, build.bias(y, weights, shape[3])), z, **attributes))
    z = build.activation((1, shape[1] - 2, shape[2] - 2, shape[3]), 0.05, 11)
    attributes = {"kernel": (3, 3), "stride": (1, 1), "padding": (0, 0, 0, 0), "clamp": (-128, 127)}
    return build.graph(x, build.node(op, (y,), z, **attributes))


BORDER = (0, 0, 1, 2, 0, 1, 0, 0)


@pytest.mark.parametrize(
    ("op", "value", "padding"),
    [("conv2d", 11, (2, 3, 1, 2)), ("depthwise_conv2d", 11, (2, 3, 1, 2)), ("max_pool2d", -128, (1, 2, 0, 1))],
)
def test_a_border_becomes_padding(op: str, value: int, padding: Shape) -> None:
    """The answers stay, byte for byte; TFLite Micro gives them for the file with the pad."""
    graph = padded(op, BORDER, value)
    check(graph)
    fused = simplify(graph)
    assert [node.op for node in fused.nodes] == [op] and fused.nodes[0].attributes["padding"] == padding
    assert len(fused.tensors) == len(graph.tensors) - 1
    for seed in range(3):
        inputs = inputs_of(graph, seed)
        expected = tflite_micro(write_tflite(graph), inputs)[0].tobytes()
        assert simulate(fused, *inputs)[0].tobytes() == simulate(graph, *inputs)[0].tobytes() == expected


@pytest.mark.parametrize(
    ("op", "paddings", "value"),
    [
        ("conv2d", BORDER, 12),
        ("conv2d", BORDER, -128),
        ("conv2d", (0, 0, 1, 1, 1, 1, 0, 1), 11),
        ("max_pool2d", BORDER, 11),
        ("average_pool2d", BORDER, 11),
        ("average_pool2d", BORDER, -128),
        ("max_pool2d", (0, 0, 3, 0, 0, 0, 0, 0), -128),
    ],
)
def test_another_border_stays(op: str, paddings: Shape, value: int) -> None:
    """Another value, channels, a pool that would count or lose pixels, windows without any."""
    graph = padded(op, paddings, value)
    check(graph)
    assert fuse_pad(graph) is graph


def test_a_border_that_two_read_stays() -> None:
    graph = padded("conv2d", BORDER, 11)
    graph.outputs = (*graph.outputs, graph.nodes[0].outputs[0])
    assert fuse_pad(graph) is graph


def test_two_borders_in_a_row_become_one_padding() -> None:
    """Each run of the passes takes the one next to the convolution."""
    graph = padded("conv2d", (0, 0, 1, 1, 1, 1, 0, 0), 11)
    first, conv = graph.nodes
    source, middle = graph.tensors[first.inputs[0]], len(graph.tensors)
    graph.tensors.append(replace(source, shape=(1, 7, 8, 2)))
    graph.nodes[0] = replace(first, outputs=(middle,), attributes={"paddings": (0, 0, 1, 0, 1, 0, 0, 0), "value": 11})
    second = {"paddings": (0, 0, 0, 1, 0, 1, 0, 0), "value": 11}
    graph.nodes.insert(1, replace(first, inputs=(middle,), attributes=second))
    check(graph)
    fused, inputs = simplify(graph), inputs_of(graph)
    assert [node.op for node in fused.nodes] == ["conv2d"]
    assert fused.nodes[0].integers("padding") == tuple(n + 1 for n in conv.integers("padding"))
    assert simulate(fused, *inputs)[0].tobytes() == simulate(graph, *inputs)[0].tobytes()


# ONNX


@pytest.mark.parametrize(("value", "scale"), [(None, None), (0.25, None), (-9.0, None), (0.3, 0.0041)])
def test_onnx_pad(value: float | None, scale: float | None) -> None:
    net = Qdq((1, 2, 4, 5))
    x = net.input()
    arguments = [net.constant(np.array([0, 0, 1, 2, 0, 1, 0, 3], np.int64))]
    arguments += [] if value is None else [net.constant(np.float32(value))]
    y = net.node("Pad", [x, *arguments])
    stored, zero_point = net.scales[x] if scale is None else (scale, -100)
    graph = agrees(net.model(net.quantized(y, stored, zero_point, (1, 3, 5, 10))), steps=0 if scale is None else 1)
    assert [node.op for node in graph.nodes] == ["pad"] if scale is None else ["quantize", "pad"]


def test_onnx_pad_with_axes_and_a_stored_value() -> None:
    net = Qdq((1, 2, 4, 5))
    x = net.input()
    stored = [net.constant(np.int8(20)), net.constant(np.float32(0.005)), net.constant(np.int8(-10))]
    value = net.node("DequantizeLinear", stored)
    axes = net.constant(np.array([-1, 2], np.int64))
    y = net.same_scale("Pad", x, (1, 2, 5, 8), net.constant(np.array([1, 0, 2, 1], np.int64)), value, axes)
    graph = agrees(net.model(y))
    assert graph.nodes[0].attributes["paddings"] == (0, 0, 0, 1, 1, 2, 0, 0)


def test_onnx_reflection() -> None:
    net = Qdq((1, 2, 4, 5))
    pads = net.constant(np.array([0, 0, 1, 2, 0, 0, 3, 4], np.int64))
    graph = agrees(net.model(net.same_scale("Pad", net.input(), (1, 2, 8, 11), pads, mode="reflect")))
    assert [node.op for node in graph.nodes] == ["mirror_pad"]


def test_onnx_border_becomes_padding() -> None:
    net = Qdq((1, 2, 4, 5))
    pads = net.constant(np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64))
    x = net.same_scale("Pad", net.input(), (1, 2, 6, 7), pads)
    graph = simplify(agrees(net.model(net.conv(x, 3, pads=(0, 0, 0, 0))), steps=1))
    assert [node.op for node in graph.nodes] == ["conv2d"]


@pytest.mark.parametrize("repeats", [(1, 2, 3, 1), (1, 1, 1, 2), (1, 3, 1, 1)])
def test_onnx_tile(repeats: Shape) -> None:
    net = Qdq((1, 2, 4, 5))
    out = tuple(n * repeat for n, repeat in zip((1, 2, 4, 5), repeats, strict=True))
    agrees(net.model(net.same_scale("Tile", net.input(), out, net.constant(np.array(repeats, np.int64)))))


NEAREST = [
    ("asymmetric", "floor", (8, 10)),
    ("asymmetric", "floor", (9, 7)),
    ("half_pixel", "round_prefer_floor", (8, 15)),
    ("half_pixel", "round_prefer_ceil", (12, 10)),
    ("align_corners", "round_prefer_ceil", (7, 9)),
    ("pytorch_half_pixel", "round_prefer_floor", (8, 10)),
]


@pytest.mark.parametrize(
    ("mode", "rounding", "size", "by_sizes"),
    [(*case, True) for case in NEAREST] + [(*case, False) for case in NEAREST if case[2] in ((8, 10), (8, 15), (12, 10))],
)
def test_onnx_nearest(mode: str, rounding: str, size: tuple[int, int], by_sizes: bool) -> None:
    net = Qdq((1, 2, 4, 5))
    arguments = resize_arguments(net, size, by_sizes)
    attributes = {"mode": "nearest", "coordinate_transformation_mode": mode, "nearest_mode": rounding}
    graph = agrees(net.model(net.same_scale("Resize", net.input(), (1, 2, *size), *arguments, **attributes)))
    assert graph.nodes[0].op == "resize_nearest_neighbor"


def resize_arguments(net: Qdq, size: tuple[int, int], by_sizes: bool) -> list[str]:
    """roi, scales and sizes of a Resize of [1, 2, 4, 5]."""
    if by_sizes:
        return ["", "", net.constant(np.array([1, 2, *size], np.int64))]
    return ["", net.constant(np.array([1, 1, size[0] / 4, size[1] / 5], np.float32))]


@pytest.mark.parametrize("mode", ["asymmetric", "half_pixel", "align_corners"])
def test_onnx_linear(mode: str) -> None:
    net = Qdq((1, 2, 4, 5))
    arguments = resize_arguments(net, (9, 12), by_sizes=True)
    y = net.same_scale("Resize", net.input(), (1, 2, 9, 12), *arguments, mode="linear", coordinate_transformation_mode=mode)
    graph = agrees(net.model(y), steps=1)
    assert graph.nodes[0].op == "resize_bilinear"


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"mode": "cubic"}, "Resize with mode cubic"),
        (
            {"mode": "nearest", "coordinate_transformation_mode": "tf_crop_and_resize"},
            "Resize with tf_crop_and_resize; supported",
        ),
        ({"mode": "linear", "coordinate_transformation_mode": "half_pixel_symmetric"}, "half_pixel_symmetric; supported"),
        ({"mode": "nearest", "nearest_mode": "ceil"}, r"Resize with half_pixel and ceil from \(4, 5\) to \(9, 12\)"),
        ({"mode": "nearest", "nearest_mode": "up"}, "nearest_mode up; supported: floor"),
        ({"mode": "linear", "antialias": 1}, "maybe antialias; supported: nearest, linear"),
        ({"mode": "linear", "axes": [2, 3]}, "with axes or a region"),
    ],
)
def test_onnx_resize_refusals(attributes: dict[str, Any], message: str) -> None:
    net = Qdq((1, 2, 4, 5))
    arguments = resize_arguments(net, (9, 12), by_sizes=True)
    model = net.model(net.same_scale("Resize", net.input(), (1, 2, 9, 12), *arguments, **attributes))
    with pytest.raises(GraphError, match=message):
        read_onnx_bytes(model.SerializeToString())


def test_onnx_resize_of_channels_is_refused() -> None:
    net = Qdq((1, 2, 4, 5))
    sizes = net.constant(np.array([1, 4, 4, 5], np.int64))
    model = net.model(net.same_scale("Resize", net.input(), (1, 4, 4, 5), "", "", sizes))
    with pytest.raises(GraphError, match="Resize of 2 channels to 4; supported: height and width"):
        read_onnx_bytes(model.SerializeToString())


def test_onnx_nearest_by_hand() -> None:
    """3 pixels to 5, half_pixel: places -0.2, 0.4, 1, 1.6, 2.2."""
    assert onnx_nearest("half_pixel", "round_prefer_floor", 3, 5) == [0, 0, 1, 2, 2]
    assert onnx_nearest("half_pixel", "floor", 3, 5) == [0, 0, 1, 1, 2]
    assert onnx_nearest("half_pixel", "ceil", 3, 5) == [0, 1, 1, 2, 2]
    assert onnx_nearest("asymmetric", "round_prefer_ceil", 2, 4) == [0, 1, 1, 1]
    assert onnx_nearest("pytorch_half_pixel", "floor", 7, 1) == [0]
