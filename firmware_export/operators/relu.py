"""A clamp that stands alone and may change the scale (RELU, RELU6, Relu, Clip); behind an operator it is fused into that."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from firmware_export.activation import FUSED_ACTIVATIONS, Bounds, Clamp, clamp_of
from firmware_export.graph import Array, Graph, Node, Quantization, Tensor
from firmware_export.operators import Example, LayerCode, Operator, OutputSpec
from firmware_export.operators import _examples as make
from firmware_export.operators._checks import check_counts, clamp_attribute, int8_input, int8_output, shape_text
from firmware_export.operators._lookup import rescaling_factor
from firmware_export.requantize import requantize, to_int8

if TYPE_CHECKING:
    from firmware_export.read_onnx import OnnxMatch
    from firmware_export.read_tflite import TfliteOperator
    from firmware_export.write_tflite import TfliteWriter

STANDALONE: dict[str, Bounds] = {**FUSED_ACTIVATIONS, "RELU_0_TO_1": (0.0, 1.0)}
"""TFLite's names of clamps that stand alone."""
WRITTEN = ("RELU", "RELU6")
"""Those that TFLite Micro has."""
BOUNDING = ("MAXIMUM", "MINIMUM")
"""What does the lower and the upper bound of any other clamp."""


class Relu(Operator):
    """y = clamp(requantize(x - zero point of x) + zero point of y).

    Inputs: x int8, any shape. Attributes: clamp (lowest, highest stored value of y). Output: int8, the shape of x.
    With one scale and zero point on both sides this is the clamp alone; the factor 1 is exact.
    In float32 a change of scale is that of the QUANTIZE before the clamp (quantize.py); RELU itself has the rule of double in
    LiteRT too.
    """

    name = "relu"
    tflite = ("RELU", "RELU6", "RELU_N1_TO_1", "RELU_0_TO_1")
    onnx = ("Relu", "Clip")

    def infer(self, graph: Graph, node: Node) -> list[OutputSpec]:
        check_counts(node, (1,))
        clamp_attribute(node)
        _factor(graph, node)
        return [OutputSpec(int8_input(graph, node).shape, "int8")]

    def simulate(self, graph: Graph, node: Node, inputs: Sequence[Array | None]) -> list[Array]:
        multiplier, shift = _factor(graph, node)
        x = inputs[0]
        assert x is not None
        centred = x.astype(np.int64) - int8_input(graph, node).zero_point
        scaled = requantize(centred, multiplier, shift)
        return [to_int8(scaled, int8_output(graph, node).zero_point, clamp_attribute(node))]

    def emit(self, graph: Graph, node: Node) -> LayerCode:
        x, y, (multiplier, shift) = int8_input(graph, node), int8_output(graph, node), _factor(graph, node)
        low, high = clamp_attribute(node)
        fields = {
            "size": x.elements,
            "multiplier": multiplier,
            "shift": shift,
            "input_zero_point": x.zero_point,
            "output_zero_point": y.zero_point,
            "min": low,
            "max": high,
        }
        texts = {key: str(value) for key, value in fields.items()}
        return LayerCode("nn_relu", "nn_relu_params", texts, sources=("relu.c",), summary=f"{low}..{high}, {shape_text(x)}")

    def examples(self, rng: np.random.Generator) -> Iterator[Example]:
        names = ("RELU", "RELU6", "NONE", "RELU_N1_TO_1", "RELU_0_TO_1")
        for index in range(60):
            x, y = make.random_quantization(rng), make.random_quantization(rng)
            ratio = float(x.scale[0]) * 2.0 ** rng.uniform(-2, 2)
            if index % 3 == 0:
                y = x
            elif index % 3 == 1:
                y = Quantization.per_tensor(float(np.float32(ratio)), int(y.zero_point[0]))
            shape = (1, *(make.pick(rng, 1, 9) for _ in range(make.pick(rng, 1, 3))))
            name = names[make.pick(rng, 0, len(names) - 1)]
            yield _example(shape, x, y, STANDALONE[name], f"{name} {index}")
        every = make.activation((1, 256), Quantization.per_tensor(0.5, -3))
        for scale in (0.5, 0.25, 1.0, 2.0, 0.37):
            graph = _example(
                every.shape, Quantization.per_tensor(0.5, -3), Quantization.per_tensor(scale, 5), (0, math.inf), ""
            ).graph
            values = np.arange(-128, 128).astype(np.int8).reshape(1, 256)
            yield Example(graph, f"every value, scale {scale}", (values,))

    def read_tflite(self, op: TfliteOperator) -> Node:
        return Node(self.name, op.inputs, op.outputs, {"clamp": clamp_of(STANDALONE[op.builtin], op.output())})

    def read_onnx(self, match: OnnxMatch) -> Node:
        return Node(self.name, match.inputs[:1], match.outputs, {"clamp": match.int8_clamp()})

    def write_tflite(self, graph: Graph, node: Node, writer: TfliteWriter) -> None:
        """RELU changes scales itself, the others have a QUANTIZE before them for it. Free clamps are maxima and minima."""
        x, y, clamp = int8_input(graph, node), int8_output(graph, node), clamp_attribute(node)
        name = _standalone(clamp, y)
        source = node.inputs[0]
        if name == "NONE":
            writer.add("QUANTIZE", (source,), node.outputs, schema.QuantizeOptionsT(), 2)
            return
        if name != "RELU" and x.quantization != y.quantization:
            rescaled = writer.add_activation(f"{y.name}/rescaled", x.shape, "int8", y.quantization)
            writer.add("QUANTIZE", (source,), (rescaled,), schema.QuantizeOptionsT(), 2)
            source = rescaled
        if name in WRITTEN:
            writer.add(name, (source,), node.outputs, None, 2)
        else:
            _write_bounds(clamp, source, graph, node, writer)


def _standalone(clamp: Clamp, y: Tensor) -> str:
    """TFLite's name for a clamp; "" if it has none."""
    return next((name for name in ("NONE", *WRITTEN) if clamp_of(STANDALONE[name], y) == clamp), "")


def _write_bounds(clamp: Clamp, source: int, graph: Graph, node: Node, writer: TfliteWriter) -> None:
    """A MAXIMUM with the lower bound and a MINIMUM with the upper one, where they are not the ends of int8."""
    y = int8_output(graph, node)
    bounds = [(builtin, bound) for builtin, bound, end in zip(BOUNDING, clamp, make.NO_CLAMP, strict=True) if bound != end]
    for place, (builtin, bound) in enumerate(bounds):
        limit = writer.add_constant(f"{y.name}/{builtin.lower()}", np.array([bound], np.int8), y.quantization)
        last = place == len(bounds) - 1
        output = node.outputs[0] if last else writer.add_activation(f"{y.name}/bounded", y.shape, "int8", y.quantization)
        writer.add(builtin, (source, limit), (output,), schema.MaximumMinimumOptionsT(), 2)
        source = output


def _factor(graph: Graph, node: Node) -> tuple[int, int]:
    """Multiplier and shift of the ratio of the scales. Raises GraphError if it is too large."""
    x, y = int8_input(graph, node), int8_output(graph, node)
    arithmetic = "double" if _standalone(clamp_attribute(node), y) == "RELU" else graph.arithmetic
    return rescaling_factor(arithmetic, x.scale, y.scale)


def _example(shape: tuple[int, ...], x: Quantization, y: Quantization, bounds: Bounds, label: str) -> Example:
    clamp = clamp_of(bounds, make.activation((), y))
    graph = make.single_node("relu", (make.activation(shape, x),), y, {"clamp": clamp})
    return Example(graph, label, make.extreme_inputs(graph))


OPERATOR = Relu()
