"""A border that mirrors what lies inside (MIRROR_PAD, Pad with mode reflect)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from firmware_export.graph import Array, Attribute, Graph, GraphError, Node, Tensor
from firmware_export.operators import Example, LayerCode, Operator, OutputSpec
from firmware_export.operators import _examples as make
from firmware_export.operators._checks import check_counts, shape_text
from firmware_export.operators._gathering import gather_code
from firmware_export.operators._movement import check_outputs, moved_input, moving_example, random_shape
from firmware_export.operators._paddings import Paddings, padded_shape, paddings_attribute, tflite_paddings

if TYPE_CHECKING:
    from firmware_export.read_tflite import TfliteOperator
    from firmware_export.write_tflite import TfliteWriter


class MirrorPad(Operator):
    """y = x with a border that mirrors it, with the outermost elements (offset 0) or without (offset 1).

    Inputs: x int8. Attributes: paddings (before and after each axis in turn), offset. Output: int8, scale and zero point
    of x. Moves bytes only, the same in every arithmetic.
    """

    name = "mirror_pad"
    tflite = ("MIRROR_PAD",)

    def infer(self, graph: Graph, node: Node) -> list[OutputSpec]:
        check_counts(node, (1,))
        x = moved_input(graph, node)
        paddings = _paddings(x, node)
        check_outputs(graph, node, x)
        return [OutputSpec(padded_shape(x, paddings), x.dtype)]

    def simulate(self, graph: Graph, node: Node, inputs: Sequence[Array | None]) -> list[Array]:
        assert inputs[0] is not None
        paddings = _paddings(graph.tensors[node.inputs[0]], node)
        return [np.pad(inputs[0], paddings, "reflect" if node.integer("offset") else "symmetric")]

    def emit(self, graph: Graph, node: Node) -> LayerCode:
        x, offset = moved_input(graph, node), node.integer("offset")
        loops = zip(x.shape, _paddings(x, node), strict=True)
        indexes = [_mirrored(size, before, after, offset) for size, (before, after) in loops]
        summary = f"{shape_text(x)} -> {shape_text(graph.tensors[node.outputs[0]])}"
        return gather_code(self.name, x.shape, indexes, summary)

    def examples(self, rng: np.random.Generator) -> Iterator[Example]:
        for index in range(56):
            shape, offset = random_shape(rng, make.pick(rng, 2, 4), 5), index % 2
            paddings = [0, 0]
            for size in shape[1:]:
                most = 0 if rng.random() < 0.3 else size - offset
                paddings += [make.pick(rng, 0, most), make.pick(rng, 0, most)]
            x = make.activation(shape, make.random_quantization(rng))
            attributes: dict[str, Attribute] = {"paddings": tuple(paddings), "offset": offset}
            yield moving_example("mirror_pad", (x,), attributes, f"{shape}: {paddings}, offset {offset}, {index}")

    def read_tflite(self, op: TfliteOperator) -> Node:
        mode = op.options_as(schema.MirrorPadOptionsT).mode
        if mode not in (schema.MirrorPadMode.REFLECT, schema.MirrorPadMode.SYMMETRIC):
            raise GraphError(f"MIRROR_PAD with mode {mode}; supported: 0 (REFLECT), 1 (SYMMETRIC)")
        offset = 1 if mode == schema.MirrorPadMode.REFLECT else 0
        return Node(self.name, op.inputs[:1], op.outputs, {"paddings": tflite_paddings(op), "offset": offset})

    def write_tflite(self, graph: Graph, node: Node, writer: TfliteWriter) -> None:
        options, modes = schema.MirrorPadOptionsT(), schema.MirrorPadMode
        options.mode = modes.REFLECT if node.integer("offset") else modes.SYMMETRIC
        paddings = np.array(_paddings(graph.tensors[node.inputs[0]], node), np.int32)
        writer.add("MIRROR_PAD", (node.inputs[0], writer.add_constant("paddings", paddings)), node.outputs, options, 2)


def _paddings(x: Tensor, node: Node) -> Paddings:
    """The borders. Raises GraphError where there is not so much to mirror."""
    paddings, offset = paddings_attribute(x, node), node.attributes.get("offset")
    if offset not in (0, 1):
        raise GraphError(f"offset {offset} of a mirror_pad; supported: 0, 1")
    if any(max(border) > size - offset for size, border in zip(x.shape, paddings, strict=True)):
        raise GraphError(f"a mirrored border of {paddings} around {x.shape}; supported: no wider than what it mirrors")
    return paddings


def _mirrored(size: int, before: int, after: int, offset: int) -> list[int]:
    """The index of each element: ... 2 1 | 0 1 2 ... with offset 1, ... 1 0 | 0 1 2 ... with offset 0."""
    first = [place - 1 + offset for place in range(before, 0, -1)]
    return [*first, *range(size), *(size - offset - place for place in range(1, after + 1))]


OPERATOR = MirrorPad()
