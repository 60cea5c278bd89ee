"""An image of another size, each pixel between its four neighbours (RESIZE_BILINEAR, Resize with mode linear)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema

from firmware_export.graph import Array, Graph, GraphError, Node
from firmware_export.operators import Constant, Example, LayerCode, Operator, OutputSpec
from firmware_export.operators._checks import int8_image, shape_text
from firmware_export.operators._resizing import (
    Size,
    image_sizes,
    infer_resize,
    read_tflite_resize,
    resize_examples,
    resize_flags,
)
from firmware_export.requantize import Float32, Int64

if TYPE_CHECKING:
    from firmware_export.read_tflite import TfliteOperator
    from firmware_export.write_tflite import TfliteWriter

UNIT = 1 << 10
"""One pixel in the fixed-point numbers of this operator; UNIT of runtime/resize_bilinear.c."""
FINE_UNIT = 1 << 11
"""The same in the arithmetic float32; FINE_UNIT of runtime/resize_bilinear.c."""


class ResizeBilinear(Operator):
    """y[i, j] = the four pixels around its place in x, weighted by distance in steps of 1/1024, halves away from zero.

    Inputs: x int8 [1, h, w, c]. Attributes: size (h, w), align_corners, half_pixel (0 or 1). Output: int8 [1, size, c], scale
    and zero point of x.
    Source: ResizeBilinearInteger in tensorflow/lite/kernels/internal/reference/resize_bilinear.h.
    In float32: weights in steps of 1/2048 of places in float32, halves up, as XNNPACK, LiteRT's default, has them
    (xnn_indirection_init_resize_bilinear2d_hwc_q11 and its s8-ibilinear kernels); the board has tables of them.
    """

    name = "resize_bilinear"
    tflite = ("RESIZE_BILINEAR",)

    def infer(self, graph: Graph, node: Node) -> list[OutputSpec]:
        outputs = infer_resize(graph, node)
        for sizes in image_sizes(graph.tensors[node.inputs[0]], node):
            if int(_places(sizes, *resize_flags(node))[0][-1]) >= sizes[0]:
                raise GraphError(f"{sizes[0]} pixels resized to {sizes[1]}; supported: factors that 1/1024 of a pixel can tell")
        return outputs

    def simulate(self, graph: Graph, node: Node, inputs: Sequence[Array | None]) -> list[Array]:
        assert inputs[0] is not None
        if graph.arithmetic == "float32":
            return [_fine(inputs[0][0].astype(np.int64), *_tables(graph, node))[np.newaxis]]
        flags = resize_flags(node)
        (top, bottom, down), (left, right, across) = (
            _places(sizes, *flags) for sizes in image_sizes(graph.tensors[node.inputs[0]], node)
        )
        x, down, across = inputs[0][0].astype(np.int64), down[:, np.newaxis, np.newaxis], across[:, np.newaxis]
        upper = x[top][:, left] * (UNIT - across) + x[top][:, right] * across
        lower = x[bottom][:, left] * (UNIT - across) + x[bottom][:, right] * across
        total = upper * (UNIT - down) + lower * down
        rounded = np.sign(total) * ((np.abs(total) + UNIT * UNIT // 2) // (UNIT * UNIT))
        return [rounded.astype(np.int8)[np.newaxis]]

    def emit(self, graph: Graph, node: Node) -> LayerCode:
        x, flags = int8_image(graph, node), resize_flags(node)
        if graph.arithmetic == "float32":
            return _fine_code(graph, node)
        fields = {"channels": str(x.shape[3])}
        for name, sizes in zip(("height", "width"), image_sizes(x, node), strict=True):
            factor, start = _factor(sizes, *flags)
            values = {"input": sizes[0], "output": sizes[1], "factor": factor, "start": start}
            fields |= {f"{name}.{key}": str(value) for key, value in values.items()}
        summary = f"{shape_text(x)} -> {shape_text(graph.tensors[node.outputs[0]])}"
        sources = ("resize_bilinear.c",)
        return LayerCode("nn_resize_bilinear", "nn_resize_bilinear_params", fields, sources=sources, summary=summary)

    def examples(self, rng: np.random.Generator) -> Iterator[Example]:
        yield from resize_examples(self.name, rng)

    def read_tflite(self, op: TfliteOperator) -> Node:
        options = op.options_as(schema.ResizeBilinearOptionsT)
        return Node(self.name, op.inputs[:1], op.outputs, read_tflite_resize(op, options))

    def write_tflite(self, graph: Graph, node: Node, writer: TfliteWriter) -> None:
        align_corners, half_pixel = resize_flags(node)
        options = schema.ResizeBilinearOptionsT(alignCorners=align_corners, halfPixelCenters=half_pixel)
        size = writer.add_constant("size", np.array(node.integers("size"), np.int32))
        writer.add("RESIZE_BILINEAR", (node.inputs[0], size), node.outputs, options, 3 if half_pixel else 2)


def _factor(sizes: Size, align_corners: bool, half_pixel: bool) -> tuple[int, int]:
    """Input pixels for each of the output and the place of output pixel 0, both in 1/1024."""
    source, target = sizes
    factor = (UNIT * source + target // 2) // target
    if align_corners and target > 1:
        factor = (UNIT * (source - 1) + (target - 1) // 2) // (target - 1)
    return factor, factor // 2 - UNIT // 2 if half_pixel else 0


def _places(sizes: Size, align_corners: bool, half_pixel: bool) -> tuple[Int64, Int64, Int64]:
    """For each output pixel the neighbours before and behind its place, and its distance from the first in 1/1024."""
    factor, start = _factor(sizes, align_corners, half_pixel)
    place = np.arange(sizes[1], dtype=np.int64) * factor + start
    before = np.maximum(place // UNIT, 0)
    behind = np.minimum((place + UNIT - 1) // UNIT, sizes[0] - 1)
    return before, behind, place - UNIT * before


def _tables(graph: Graph, node: Node) -> tuple[Int64, Int64]:
    """For the rows and for the columns: int64 [output, 3], neighbours before and behind, and the distance in 1/2048."""
    height, width = image_sizes(graph.tensors[node.inputs[0]], node)
    return _fine_places(height, *resize_flags(node)), _fine_places(width, *resize_flags(node))


def _fine_places(sizes: Size, align_corners: bool, half_pixel: bool) -> Int64:
    """int64 [output, 3] as in _tables; every step in float32."""
    source, target = sizes
    wide = align_corners and target > 1
    scale = np.float32(source - 1) / np.float32(target - 1) if wide else np.float32(source) / np.float32(target)
    offset = np.float32(0.5 if half_pixel and not align_corners else 0)
    places: Float32 = (np.arange(target).astype(np.float32) + offset) * scale - offset
    near = places.clip(0, source - 1).astype(np.float32)
    before = np.floor(near)
    distance = np.rint((near - before) * np.float32(FINE_UNIT))
    first = before.astype(np.int64)
    return np.stack([first, np.minimum(first + 1, source - 1), distance.astype(np.int64)], 1)


def _fine(x: Int64, rows: Int64, columns: Int64) -> npt.NDArray[np.int8]:
    """int8 [h, w, c] of an image and its tables."""
    down, across = rows[:, 2, np.newaxis, np.newaxis], columns[:, 2, np.newaxis]
    left, right = x[:, columns[:, 0]], x[:, columns[:, 1]]
    along = left * FINE_UNIT + (right - left) * across
    upper, lower = along[rows[:, 0]], along[rows[:, 1]]
    total: Int64 = upper * FINE_UNIT + (lower - upper) * down
    return ((total + FINE_UNIT * FINE_UNIT // 2) // (FINE_UNIT * FINE_UNIT)).astype(np.int8)


def _fine_code(graph: Graph, node: Node) -> LayerCode:
    """The call of nn_resize_bilinear_fine."""
    x, (rows, columns) = int8_image(graph, node), _tables(graph, node)
    values = {"height": len(rows), "width": len(columns), "row_size": x.shape[2] * x.shape[3], "channels": x.shape[3]}
    fields = {"rows": "{rows}", "columns": "{columns}"} | {key: str(value) for key, value in values.items()}
    return LayerCode(
        "nn_resize_bilinear_fine",
        "nn_resize_bilinear_fine_params",
        fields,
        (Constant("rows", rows.astype(np.uint16)), Constant("columns", columns.astype(np.uint16))),
        ("resize_bilinear.c",),
        summary=f"{shape_text(x)} -> {shape_text(graph.tensors[node.outputs[0]])}",
    )


OPERATOR = ResizeBilinear()
