"""Hyperbolic tangent, int8, bit-equal to TFLite Micro's fixed point (TANH, Tanh)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from firmware_export.graph import Graph, GraphError, Node, Quantization, Tensor
from firmware_export.operators import Example
from firmware_export.operators._checks import int8_input, int8_output
from firmware_export.operators._fixed_point import tanh
from firmware_export.operators._lookup import (
    EVERY_VALUE,
    Lookup,
    fixed_point_input,
    float_input,
    lookup_example,
    nearest,
    random_lookups,
    rescaled,
    write_rescaled,
)
from firmware_export.requantize import INT8_MAX, INT8_MIN, Int64, rounding_divide_by_pot

if TYPE_CHECKING:
    from firmware_export.read_onnx import OnnxMatch
    from firmware_export.read_tflite import TfliteOperator
    from firmware_export.write_tflite import TfliteWriter

INPUT_INTEGER_BITS = 4
STORED = Quantization.per_tensor(1 / 128, 0)
"""How TFLite stores the result, whatever the model."""


class Tanh(Lookup):
    """y = tanh(x), in steps of 1/128; other output scales are made from that as by TFLite's QUANTIZE.

    Inputs: x int8, any shape, scale 2^-27 to 2^27. Attributes: none. Output: int8 of that shape.
    Source: tensorflow/lite/kernels/internal/reference/integer_ops/tanh.h on gemmlowp's fixedpoint.h.
    In float32: the table of LiteRT's default, made from real numbers (its C library's tanhf is off by a unit now and then: one
    value in a million is another); another output scale as quantize.py says.
    """

    name = "tanh"
    tflite = ("TANH",)
    onnx = ("Tanh",)

    def results(self, graph: Graph, node: Node) -> npt.NDArray[np.int8]:
        y = int8_output(graph, node)
        assert y.quantization is not None
        stored = _float_steps(int8_input(graph, node)) if graph.arithmetic == "float32" else _steps(int8_input(graph, node))
        return rescaled(graph.arithmetic, np.clip(stored, INT8_MIN, INT8_MAX), STORED, y.quantization)

    def examples(self, rng: np.random.Generator) -> Iterator[Example]:
        for scale in (0.05, 1 / 16, 2.0**-27, 1e-4, 7.9, 8.0, 9.5, 100.0):
            x = Quantization.per_tensor(float(np.float32(scale)), 3)
            yield lookup_example(self.name, EVERY_VALUE, x, STORED, f"scale {scale:g}")
        for zero_point in (-128, 127):
            x = Quantization.per_tensor(0.0625, zero_point)
            yield lookup_example(self.name, EVERY_VALUE, x, STORED, f"zero point {zero_point}")
        yield lookup_example(self.name, (1, 3, 4, 5), Quantization.per_tensor(0.1, 0), STORED, "image")
        yield from random_lookups(self.name, rng, (STORED, STORED, None))

    def read_tflite(self, op: TfliteOperator) -> Node:
        if op.output().quantization != STORED:
            raise GraphError(f"TANH to scale {op.output().scale:g}; TFLite's scale is 1/128, zero point 0")
        return Node(self.name, op.inputs, op.outputs)

    def read_onnx(self, match: OnnxMatch) -> Node:
        return Node(self.name, match.inputs, match.outputs)

    def write_tflite(self, graph: Graph, node: Node, writer: TfliteWriter) -> None:
        write_rescaled("TANH", STORED, graph, node, writer)


def _steps(x: Tensor) -> Int64:
    """The stored result of every int8 value, unclamped, in TFLite Micro's fixed point."""
    real, ends = fixed_point_input(x, INPUT_INTEGER_BITS)
    inside = rounding_divide_by_pot(tanh(real, INPUT_INTEGER_BITS), 31 - 7)
    return np.where(ends == 0, inside, np.where(ends > 0, INT8_MAX, INT8_MIN))


def _float_steps(x: Tensor) -> Int64:
    """The same from real numbers, rounded to float32 at the end, halves to even."""
    fixed_point_input(x, INPUT_INTEGER_BITS)
    return nearest(np.tanh(float_input(x)), STORED)


OPERATOR = Tanh()
