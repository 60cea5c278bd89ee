"""Elementwise sum of two int8 activations of one shape (ADD, Add)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from firmware_export.graph import Array, Graph, GraphError, Node, Quantization
from firmware_export.operators import Example, LayerCode, Operator, OutputSpec
from firmware_export.operators import _examples as make
from firmware_export.operators._checks import check_counts, clamp_attribute, int8_input, int8_output, shape_text
from firmware_export.requantize import quantize_multiplier, requantize, to_int8

if TYPE_CHECKING:
    from firmware_export.read_onnx import OnnxMatch
    from firmware_export.read_tflite import TfliteOperator
    from firmware_export.write_tflite import TfliteWriter

HEADROOM_BITS = 20
"""Both inputs are raised by this much before they are brought to one scale; HEADROOM_BITS of runtime/add.c."""


@dataclass(frozen=True)
class _Side:
    """An input or the sum: its scale relative to the common one, real = multiplier * 2^(shift - 31)."""

    multiplier: int
    shift: int
    zero_point: int

    @staticmethod
    def of(real: float, zero_point: int) -> _Side:
        """From the real factor."""
        multiplier, shift = quantize_multiplier(real)
        return _Side(int(multiplier[0]), int(shift[0]), zero_point)

    def fields(self, name: str) -> dict[str, str]:
        """Initializers of the nn_add_scale of that name."""
        values = {"multiplier": self.multiplier, "shift": self.shift, "zero_point": self.zero_point}
        return {f"{name}.{key}": str(value) for key, value in values.items()}


class Add(Operator):
    """y = clamp(requantize(a / common + b / common)), common = twice the larger of the two scales, 20 bits of headroom.

    Inputs: a, b: int8 of the same shape, both computed; they may be the same tensor.
    Attributes: clamp (lowest, highest stored value).
    Output: int8 of that shape. Source of the arithmetic: tensorflow/lite/kernels/add.cc and internal/reference/add.h.
    """

    name = "add"
    tflite = ("ADD",)
    onnx = ("Add",)

    def infer(self, graph: Graph, node: Node) -> list[OutputSpec]:
        check_counts(node, (2,))
        a, b = int8_input(graph, node, 0), int8_input(graph, node, 1)
        if a.shape != b.shape:
            raise GraphError(f"a sum of {a.shape} and {b.shape}; supported: the same shape on both sides")
        clamp_attribute(node)
        _sides(graph, node)
        return [OutputSpec(a.shape, "int8")]

    def simulate(self, graph: Graph, node: Node, inputs: Sequence[Array | None]) -> list[Array]:
        *sides, output = _sides(graph, node)
        total = np.zeros((), np.int64)
        for side, x in zip(sides, inputs, strict=True):
            assert x is not None
            raised = (x.astype(np.int64) - side.zero_point) << HEADROOM_BITS
            total = total + requantize(raised, side.multiplier, side.shift)
        scaled = requantize(total, output.multiplier, output.shift)
        return [to_int8(scaled, output.zero_point, clamp_attribute(node))]

    def emit(self, graph: Graph, node: Node) -> LayerCode:
        first, second, output = _sides(graph, node)
        low, high = clamp_attribute(node)
        x = int8_input(graph, node)
        fields = {"size": str(x.elements), **first.fields("input_0"), **second.fields("input_1"), **output.fields("output")}
        fields |= {"min": str(low), "max": str(high)}
        return LayerCode("nn_add", "nn_add_params", fields, sources=("add.c",), summary=shape_text(x))

    def examples(self, rng: np.random.Generator) -> Iterator[Example]:
        for zero_points in ((-128, 127, -128), (127, 127, 0), (-128, -128, 127), (0, 0, 0)):
            scales = (0.05, 0.05, 0.1)
            yield _example((1, 3, 4, 5), scales, zero_points, f"zero points {zero_points}")
        yield _example((1, 4, 4, 3), (0.5, 0.5, 0.5), (3, -4, 5), "ties, one scale")
        yield _example((1, 4, 4, 3), (0.25, 0.5, 1.0), (3, -4, 5), "ties, powers of two")
        yield _example((1, 40), (0.02, 7.5, 4.0), (0, 1, 2), "one side 375 times the other")
        yield _example((1, 40), (1e-12, 1.0, 1.0), (0, 1, 2), "one side vanishes")
        yield _example((1, 40), (1.0, 1.0, 1e-5), (0, 1, 2), "saturation")
        yield _example((1, 40), (1.0, 1.0, 1e5), (0, 1, 2), "all outputs at the zero point")
        yield _example((1, 6, 5, 2), (0.05, 0.05, 0.05), (10, 10, 10), "a tensor and itself", same=True)
        yield _example((1, 6, 5, 2), (0.05, 0.04, 0.06), (-10, 10, -128), "relu", clamp=(-128, 127))
        yield _example((1,), (0.05, 0.04, 0.06), (-10, 10, 5), "one element")
        for index in range(40):
            shape = (1, *(make.pick(rng, 1, 7) for _ in range(make.pick(rng, 1, 3))))
            quantizations = [make.random_quantization(rng) for _ in range(2)]
            output = max(q.scale[0] for q in quantizations) * 2.0 ** rng.uniform(-1, 2)
            scales = (float(quantizations[0].scale[0]), float(quantizations[1].scale[0]), float(output))
            zero_points = (make.pick_zero_point(rng), make.pick_zero_point(rng), make.pick_zero_point(rng))
            clamp = make.random_clamp(rng, Quantization.per_tensor(scales[2], zero_points[2]))
            yield _example(shape, scales, zero_points, f"random {index}", clamp=clamp)

    def read_tflite(self, op: TfliteOperator) -> Node:
        options = op.options_as(schema.AddOptionsT)
        return Node(self.name, op.inputs, op.outputs, {"clamp": op.clamp(options.fusedActivationFunction)})

    def read_onnx(self, match: OnnxMatch) -> Node:
        return Node(self.name, match.inputs, match.outputs, {"clamp": match.int8_clamp()})

    def write_tflite(self, graph: Graph, node: Node, writer: TfliteWriter) -> None:
        options = schema.AddOptionsT()
        options.fusedActivationFunction = writer.fused_activation(clamp_attribute(node), node.outputs[0])
        writer.add("ADD", node.inputs, node.outputs, options, 2)


def _sides(graph: Graph, node: Node) -> tuple[_Side, _Side, _Side]:
    """Factors of both inputs and of the output.

    Raises:
        GraphError: the output's scale is so small that its factor would reach 1.
    """
    a, b, y = int8_input(graph, node, 0), int8_input(graph, node, 1), int8_output(graph, node)
    common = 2.0 * max(a.scale, b.scale)
    factor = common / (2.0**HEADROOM_BITS * y.scale)
    if factor >= 1:
        raise GraphError(
            f"input scales {a.scale:g} and {b.scale:g}, output scale {y.scale:g}; supported: at most 2^19 times larger"
        )
    return _Side.of(a.scale / common, a.zero_point), _Side.of(b.scale / common, b.zero_point), _Side.of(factor, y.zero_point)


def _example(
    shape: tuple[int, ...],
    scales: tuple[float, float, float],
    zero_points: tuple[int, ...],
    label: str,
    clamp: tuple[int, int] = make.NO_CLAMP,
    same: bool = False,
) -> Example:
    a, b, y = (Quantization.per_tensor(float(np.float32(s)), z) for s, z in zip(scales, zero_points, strict=True))
    graph = make.single_node("add", (make.activation(shape, a, "a"), make.activation(shape, b, "b")), y, {"clamp": clamp})
    if same:
        graph.nodes[0] = Node("add", (0, 0), (2,), {"clamp": clamp})
        graph.inputs = (0,)
    return Example(graph, label, make.extreme_inputs(graph))


OPERATOR = Add()
