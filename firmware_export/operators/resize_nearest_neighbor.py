"""An image of another size, each pixel that of the nearest one (RESIZE_NEAREST_NEIGHBOR, Resize with mode nearest)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from firmware_export.graph import Array, Graph, GraphError, Node
from firmware_export.operators import Example, LayerCode, Operator, OutputSpec
from firmware_export.operators._checks import int8_image, shape_text
from firmware_export.operators._gathering import gather_code
from firmware_export.operators._resizing import (
    image_sizes,
    infer_resize,
    linear_flags,
    nearest_flags,
    nearest_indexes,
    onnx_size,
    read_tflite_resize,
    resize_examples,
    resize_flags,
)

if TYPE_CHECKING:
    from firmware_export.read_onnx import OnnxMatch
    from firmware_export.read_tflite import TfliteOperator
    from firmware_export.write_tflite import TfliteWriter


class ResizeNearestNeighbor(Operator):
    """y[i, j] = x at the pixel nearest to (i, j), as TFLite's flags define it, in float32.

    Inputs: x int8 [1, h, w, c]. Attributes: size (h, w), align_corners, half_pixel (0 or 1). Output: int8 [1, size, c], scale
    and zero point of x. Moves bytes only, the same in every arithmetic.
    """

    name = "resize_nearest_neighbor"
    tflite = ("RESIZE_NEAREST_NEIGHBOR",)
    onnx = ("Resize",)

    def infer(self, graph: Graph, node: Node) -> list[OutputSpec]:
        return infer_resize(graph, node)

    def simulate(self, graph: Graph, node: Node, inputs: Sequence[Array | None]) -> list[Array]:
        rows, columns = _indexes(graph, node)
        assert inputs[0] is not None
        return [np.ascontiguousarray(inputs[0][:, rows][:, :, columns])]

    def emit(self, graph: Graph, node: Node) -> LayerCode:
        x = int8_image(graph, node)
        summary = f"{shape_text(x)} -> {shape_text(graph.tensors[node.outputs[0]])}"
        return gather_code(self.name, x.shape, [[0], *_indexes(graph, node), range(x.shape[3])], summary)

    def examples(self, rng: np.random.Generator) -> Iterator[Example]:
        yield from resize_examples(self.name, rng)

    def read_tflite(self, op: TfliteOperator) -> Node:
        options = op.options_as(schema.ResizeNearestNeighborOptionsT)
        return Node(self.name, op.inputs[:1], op.outputs, read_tflite_resize(op, options))

    def read_onnx(self, match: OnnxMatch) -> Node:
        """The flags that name the same pixels as ONNX's modes do; mode `linear` becomes a resize_bilinear."""
        size, mode = onnx_size(match), match.attributes.get("mode", "nearest")
        if mode not in ("nearest", "linear") or match.attributes.get("antialias", 0):
            raise GraphError(f"Resize with mode {mode}, maybe antialias; supported: nearest, linear")
        align_corners, half_pixel = nearest_flags(match, size) if mode == "nearest" else linear_flags(match)
        op = self.name if mode == "nearest" else "resize_bilinear"
        flags = {"align_corners": align_corners, "half_pixel": half_pixel}
        return Node(op, (match.requantized(0),), match.outputs, {"size": size, **flags})

    def write_tflite(self, graph: Graph, node: Node, writer: TfliteWriter) -> None:
        align_corners, half_pixel = resize_flags(node)
        options = schema.ResizeNearestNeighborOptionsT(alignCorners=align_corners, halfPixelCenters=half_pixel)
        size = writer.add_constant("size", np.array(node.integers("size"), np.int32))
        writer.add("RESIZE_NEAREST_NEIGHBOR", (node.inputs[0], size), node.outputs, options, 3 if half_pixel else 2)


def _indexes(graph: Graph, node: Node) -> list[list[int]]:
    """The input's row of each row of the output, and the same for columns."""
    flags = resize_flags(node)
    return [nearest_indexes(*sizes, *flags) for sizes in image_sizes(graph.tensors[node.inputs[0]], node)]


OPERATOR = ResizeNearestNeighbor()
