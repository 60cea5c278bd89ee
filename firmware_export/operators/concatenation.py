"""Tensors one behind the other along an axis (CONCATENATION, Concat)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from firmware_export.graph import Array, Graph, GraphError, Node
from firmware_export.operators import Example, LayerCode, Operator, OutputSpec
from firmware_export.operators import _examples as make
from firmware_export.operators._checks import shape_text
from firmware_export.operators._movement import axis_attribute, check_outputs, from_end, moving_example, random_shape
from firmware_export.operators._parts import joined_inputs, parts_code, write_joined
from firmware_export.requantize import INT8_MAX, INT8_MIN

if TYPE_CHECKING:
    from firmware_export.read_onnx import OnnxMatch
    from firmware_export.read_tflite import TfliteOperator
    from firmware_export.write_tflite import TfliteWriter


class Concatenation(Operator):
    """y = the inputs one behind the other along an axis; they are stored alike.

    Inputs: 1 to 64 int8 tensors of one shape but for the axis; one may be there several times.
    Attributes: axis. Output: int8, scale and zero point of the inputs. Moves bytes only, the same in every arithmetic.
    """

    name = "concatenation"
    tflite = ("CONCATENATION",)
    onnx = ("Concat",)

    def infer(self, graph: Graph, node: Node) -> list[OutputSpec]:
        found = joined_inputs(graph, node)
        first = found[0]
        axis = axis_attribute(node, len(first.shape))
        for x in found:
            if (*x.shape[:axis], *x.shape[axis + 1 :]) != (*first.shape[:axis], *first.shape[axis + 1 :]):
                raise GraphError(f"{first.shape} and {x.shape} behind it along axis {axis}; supported: else the same sizes")
        check_outputs(graph, node, first)
        total = sum(x.shape[axis] for x in found)
        return [OutputSpec((*first.shape[:axis], total, *first.shape[axis + 1 :]), first.dtype)]

    def simulate(self, graph: Graph, node: Node, inputs: Sequence[Array | None]) -> list[Array]:
        return [np.concatenate([x for x in inputs if x is not None], axis=node.integer("axis"))]

    def emit(self, graph: Graph, node: Node) -> LayerCode:
        found, axis = joined_inputs(graph, node), node.integer("axis")
        sizes = [x.shape[axis] for x in found]
        whole = (*found[0].shape[:axis], sum(sizes), *found[0].shape[axis + 1 :])
        summary = f"{len(found)} along axis {axis} -> {shape_text(graph.tensors[node.outputs[0]])}"
        return parts_code(self.name, graph, node, axis, whole, sizes, summary)

    def examples(self, rng: np.random.Generator) -> Iterator[Example]:
        for index in range(50):
            shape = random_shape(rng, make.pick(rng, 2, 4), 5)
            axis = make.pick(rng, 1, len(shape) - 1)
            x = make.activation(shape, make.random_quantization(rng))
            sizes = [make.pick(rng, 1, 6) for _ in range((2, 3, 1, 5, 2, 10)[index % 6])]
            others = [replace(x, name=f"x{i}", shape=(*shape[:axis], n, *shape[axis + 1 :])) for i, n in enumerate(sizes)]
            yield moving_example("concatenation", others, {"axis": axis}, f"{sizes} along axis {axis} of {shape}")
        for count in (11, 25, 64):
            x = make.activation((1, 3, 2), make.random_quantization(rng))
            yield moving_example("concatenation", [x] * count, {"axis": 1}, f"{count} inputs")
        x = make.activation((1, 3, 4, 2), make.random_quantization(rng))
        example = moving_example("concatenation", [x, x, x], {"axis": 3}, "a tensor and itself")
        example.graph.nodes[0] = replace(example.graph.nodes[0], inputs=(0, 1, 0))
        yield replace(example, graph=replace(example.graph, inputs=(0, 1)))

    def read_tflite(self, op: TfliteOperator) -> Node:
        options = op.options_as(schema.ConcatenationOptionsT)
        if options.fusedActivationFunction and op.clamp(options.fusedActivationFunction) != (INT8_MIN, INT8_MAX):
            raise GraphError("CONCATENATION with a fused activation; supported: NONE")
        return Node(self.name, op.inputs, op.outputs, {"axis": from_end(int(options.axis), len(op.input(0).shape))})

    def read_onnx(self, match: OnnxMatch) -> Node:
        """Inputs with other scales than the output's are requantized before."""
        if "axis" not in match.attributes:
            raise GraphError("Concat without an axis; the model is damaged")
        axis = match.axis(int(match.attributes["axis"]), len(match.input(0).shape))
        places = tuple(match.requantized(place) for place in range(len(match.inputs)))
        return Node(self.name, places, match.outputs, {"axis": axis})

    def write_tflite(self, graph: Graph, node: Node, writer: TfliteWriter) -> None:
        write_joined(writer, node.inputs, node.outputs[0], node.integer("axis"))


OPERATOR = Concatenation()
