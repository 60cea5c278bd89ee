"""Another type, scale or zero point for the same real values (QUANTIZE, QuantizeLinear), from float32 at a model's edge too."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from firmware_export.c_text import c_float
from firmware_export.graph import DTYPES, Array, Graph, Node, Quantization, Tensor
from firmware_export.operators import Example, LayerCode, Operator, OutputSpec
from firmware_export.operators import _examples as make
from firmware_export.operators._checks import check_counts, shape_text
from firmware_export.operators._edges import BYTES, edge_tensor, signed_zero_point
from firmware_export.operators._lookup import rescaling_factor
from firmware_export.requantize import Int64, requantize, wrap_int32

if TYPE_CHECKING:
    from firmware_export.read_onnx import OnnxMatch
    from firmware_export.read_tflite import TfliteOperator
    from firmware_export.write_tflite import TfliteWriter

FURTHEST = 1024
"""Steps from the zero point beyond which a float value is saturated in any case; LIMIT of runtime/quantize.c."""


class Quantize(Operator):
    """y = x / scale of y + zero point of y, saturated; bytes are requantized, floats rounded half away from zero.

    Inputs: x int8, uint8 or float32, any shape. Attributes: none. Output: int8 or uint8, the shape of x.
    NaN, which the reference leaves undefined, gives the zero point.
    Source: tensorflow/lite/kernels/internal/reference/quantize.h and requantize.h.
    In float32, as XNNPACK, LiteRT's default, has it: floats times 1 / scale, halves to even; int8 to int8 with the ratio of the
    scales in steps of 1/256. uint8, and scales that XNNPACK refuses, by the rule of double.
    """

    name = "quantize"
    tflite = ("QUANTIZE",)
    onnx = ("QuantizeLinear",)

    def infer(self, graph: Graph, node: Node) -> list[OutputSpec]:
        check_counts(node, (1,))
        x, y = _edges(graph, node)
        if x.dtype != "float32":
            _factor(graph.arithmetic, x, y)
        return [OutputSpec(x.shape, y.dtype)]

    def simulate(self, graph: Graph, node: Node, inputs: Sequence[Array | None]) -> list[Array]:
        values, (x, y) = inputs[0], _edges(graph, node)
        assert values is not None
        if x.dtype == "float32":
            steps = (_even_steps if graph.arithmetic == "float32" else _rounded_steps)(values, y.scale)
        else:
            steps = requantize(values.astype(np.int64) - x.zero_point, *_factor(graph.arithmetic, x, y))
        limits = np.iinfo(y.dtype)
        return [np.clip(wrap_int32(steps + y.zero_point), limits.min, limits.max).astype(DTYPES[y.dtype])]

    def emit(self, graph: Graph, node: Node) -> LayerCode:
        x, y = _edges(graph, node)
        fields = {"size": str(x.elements), "output_zero_point": str(signed_zero_point(y)), "output_flip": _flip(y)}
        summary = f"{x.dtype} -> {y.dtype}, {shape_text(x)}"
        if x.dtype == "float32":
            even = graph.arithmetic == "float32"
            fields["scale"] = c_float(_inverse(y.scale) if even else y.scale)
            function = "nn_quantize_float_even" if even else "nn_quantize_float"
            return LayerCode(function, "nn_quantize_float_params", fields, (), ("quantize.c",), summary=summary)
        multiplier, shift = _factor(graph.arithmetic, x, y)
        fields |= {"multiplier": str(multiplier), "shift": str(shift)}
        fields |= {"input_zero_point": str(signed_zero_point(x)), "input_flip": _flip(x)}
        return LayerCode("nn_quantize", "nn_quantize_params", fields, (), ("quantize.c",), summary=summary)

    def litert_default(self, graph: Graph, node: Node) -> bool:
        x, y = _edges(graph, node)
        return x.dtype == "float32" or x.dtype == y.dtype == "int8"

    def examples(self, rng: np.random.Generator) -> Iterator[Example]:
        for index in range(48):
            source, target = ("int8", "uint8")[index % 2], ("int8", "uint8")[index // 2 % 2]
            x = make.random_quantization(rng)
            scale = float(x.scale[0]) * 2.0 ** rng.uniform(-2, 2)
            y = Quantization.per_tensor(float(np.float32(scale)), make.pick_zero_point(rng))
            if index % 5 == 0:
                y = Quantization.per_tensor(float(x.scale[0]), int(x.zero_point[0]))
            shape = (1, *(make.pick(rng, 1, 9) for _ in range(make.pick(rng, 1, 3))))
            x, y = make.as_type(x, source), make.as_type(y, target)
            yield _example(Tensor("x", shape, source, x), target, y, f"{source} to {target} {index}")
        for scale in (0.5, 0.25, 1.0, 2.0, 0.37):
            x = Quantization.per_tensor(0.5, -3)
            yield _every_value(x, Quantization.per_tensor(scale, 5), f"every value, scale {scale}")
        for index, scale in enumerate((0.03, 0.0117, 0.25, 2.0**-6, 1e-7, 1e7)):
            target = ("int8", "uint8")[index % 2]
            y = Quantization.per_tensor(float(np.float32(scale)), make.pick_zero_point(rng))
            yield _float_example(target, make.as_type(y, target), f"float32 to {target}, scale {scale}")

    def read_tflite(self, op: TfliteOperator) -> Node:
        return Node(self.name, op.inputs, op.outputs)

    def read_onnx(self, match: OnnxMatch) -> Node:
        """Between a DequantizeLinear and a QuantizeLinear with other numbers, which read_onnx has taken in."""
        return Node(self.name, match.inputs[:1], match.outputs)

    def write_tflite(self, graph: Graph, node: Node, writer: TfliteWriter) -> None:
        """TFLite Micro makes uint8 of int8 alone; by way of the int8 of the same real values it is the same."""
        x, y = _edges(graph, node)
        source = node.inputs[0]
        if y.dtype == "uint8" and x.dtype != "int8":
            signed = Quantization.per_tensor(y.scale, signed_zero_point(y))
            source = writer.add_activation(f"{y.name}/int8", y.shape, "int8", signed)
            writer.add("QUANTIZE", node.inputs, (source,), schema.QuantizeOptionsT(), 2)
        writer.add("QUANTIZE", (source,), node.outputs, schema.QuantizeOptionsT(), 2)


def _edges(graph: Graph, node: Node) -> tuple[Tensor, Tensor]:
    x = edge_tensor(graph, node.inputs[0], "input 0", (*BYTES, "float32"))
    return x, edge_tensor(graph, node.outputs[0], "output", BYTES)


def _factor(arithmetic: str, x: Tensor, y: Tensor) -> tuple[int, int]:
    """Multiplier and shift of the ratio of the scales. Raises GraphError if it is too large."""
    return rescaling_factor(arithmetic if x.dtype == y.dtype == "int8" else "double", x.scale, y.scale)


def _inverse(scale: float) -> float:
    """1 / scale in float32."""
    return float(np.float32(1) / np.float32(scale))


def _even_steps(values: Array, scale: float) -> Int64:
    """values * (1 / scale), multiplied in float32, halves to even."""
    with np.errstate(over="ignore", invalid="ignore"):
        product = np.nan_to_num((values.astype(np.float32) * np.float32(_inverse(scale))).astype(np.float64), nan=0.0)
    return np.rint(np.clip(product, -FURTHEST, FURTHEST)).astype(np.int64)


def _rounded_steps(values: Array, scale: float) -> Int64:
    """values / scale, divided in float32, halves away from zero."""
    with np.errstate(over="ignore"):
        ratio = np.nan_to_num((values.astype(np.float32) / np.float32(scale)).astype(np.float64), nan=0.0)
    near = np.clip(ratio, -FURTHEST, FURTHEST)
    rounded: Int64 = (np.sign(near) * np.floor(np.abs(near) + 0.5)).astype(np.int64)
    return rounded


def _flip(tensor: Tensor) -> str:
    return "0x80u" if tensor.dtype == "uint8" else "0u"


def _example(x: Tensor, dtype: str, y: Quantization, label: str, values: tuple[Array, ...] = ()) -> Example:
    graph = Graph([x, Tensor("y", x.shape, dtype, y)], [Node("quantize", (0,), (1,))], (0,), (1,))
    return Example(graph, label, values)


def _every_value(x: Quantization, y: Quantization, label: str) -> Example:
    values = np.arange(-128, 128).astype(np.int8).reshape(1, 256)
    return _example(make.activation((1, 256), x), "int8", y, label, (values,))


def _float_example(dtype: str, y: Quantization, label: str) -> Example:
    """Halves of steps and their neighbours, zeros, and values far beyond the range."""
    halves = (np.arange(-300, 300) + 0.5) * y.scale[0]
    near = np.concatenate([halves, halves * (1 - 2.0**-23), halves * (1 + 2.0**-23), [0.0, -0.0, 1e9, -1e9, 1e-40]])
    values = np.clip(near, -1e9 * float(y.scale[0]), 1e9 * float(y.scale[0])).astype(np.float32).reshape(1, -1)
    return _example(Tensor("x", values.shape, "float32"), dtype, y, label, (values,))


OPERATOR = Quantize()
