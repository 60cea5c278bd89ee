"""Softmax over the last axis, int8, bit-equal to TFLite's fixed-point reference (SOFTMAX, Softmax)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from firmware_export.graph import Array, Graph, GraphError, Node, Quantization
from firmware_export.operators import Constant, Example, LayerCode, Operator, OutputSpec
from firmware_export.operators import _examples as make
from firmware_export.operators._checks import check_counts, int8_input, int8_output, shape_text
from firmware_export.operators._fixed_point import exp_of_negative, reciprocal_of_one_plus
from firmware_export.requantize import INT8_MIN, Int64, high_mul, quantize_multiplier, rounding_divide_by_pot

if TYPE_CHECKING:
    from firmware_export.read_onnx import OnnxMatch
    from firmware_export.read_tflite import TfliteOperator
    from firmware_export.write_tflite import TfliteWriter

DIFFERENCE_INTEGER_BITS = 5
"""Distances from the maximum are Q5.26 before exp."""
SUM_INTEGER_BITS = 12
"""The sum of the exponentials is Q12.19."""
MAX_DEPTH = 2**SUM_INTEGER_BITS - 1
OUTPUT_QUANTIZATION = Quantization.per_tensor(1 / 256, -128)


FIRST_WITH_ONE_AXIS = 13
"""The opset since which ONNX's Softmax is over one axis; before, it was over that axis and all behind it."""


class Softmax(Operator):
    """y = exp(beta * x) / sum of exp(beta * x) over the last axis, in steps of 1/256.

    Inputs: x int8 [..., depth], depth up to 4095. Attributes: beta. Output: int8 of that shape, scale 1/256, zero point -128.
    Source: tensorflow/lite/kernels/internal/reference/softmax.h. The exponential depends on the distance from the row's
    maximum alone, 0..255, so it is a table. Rows of more than 511 nearly equal elements make the reference shift by
    more than 31 bits, which C leaves undefined; here such shares are 0, which they are.
    In float32 the same: LiteRT's default sums in float32, and one value in a million is another by 1.
    """

    name = "softmax"
    tflite = ("SOFTMAX",)
    onnx = ("Softmax",)

    def infer(self, graph: Graph, node: Node) -> list[OutputSpec]:
        check_counts(node, (1,))
        x, y = int8_input(graph, node), int8_output(graph, node)
        if not x.shape or x.shape[-1] > MAX_DEPTH:
            raise GraphError(f"softmax over {x.shape[-1:]} elements; supported: 1 to {MAX_DEPTH}")
        if y.quantization != OUTPUT_QUANTIZATION:
            raise GraphError(f"softmax to scale {y.scale:g}, zero point {y.zero_point}; supported: 1/256 and -128")
        exponentials(x.scale, _beta(node))
        return [OutputSpec(x.shape, "int8")]

    def simulate(self, graph: Graph, node: Node, inputs: Sequence[Array | None]) -> list[Array]:
        x = inputs[0]
        assert x is not None
        table = np.zeros(256, np.int64)
        entries = exponentials(int8_input(graph, node).scale, _beta(node))
        table[: entries.size] = entries
        rows = x.reshape(-1, x.shape[-1]).astype(np.int64)
        exps = table[rows.max(1, keepdims=True) - rows]
        sums = rounding_divide_by_pot(exps, SUM_INTEGER_BITS).sum(1, keepdims=True)
        headroom = 32 - np.frexp(sums.astype(np.float64))[1].astype(np.int64)
        reciprocals = reciprocal_of_one_plus((sums << headroom) - (1 << 31))
        exponent = SUM_INTEGER_BITS - headroom + 31 - 8
        shares = rounding_divide_by_pot(high_mul(exps, reciprocals), np.minimum(exponent, 31))
        shares = np.where(exponent > 31, 0, shares)
        return [np.clip(shares + INT8_MIN, -128, 127).astype(np.int8).reshape(x.shape)]

    def emit(self, graph: Graph, node: Node) -> LayerCode:
        x = int8_input(graph, node)
        table = exponentials(x.scale, _beta(node)).astype(np.int32)
        fields = {
            "exponentials": "{exponentials}",
            "entries": str(table.size),
            "depth": str(x.shape[-1]),
            "rows": str(x.elements // x.shape[-1]),
        }
        return LayerCode(
            function="nn_softmax",
            params_type="nn_softmax_params",
            fields=fields,
            constants=(Constant("exponentials", table),),
            sources=("softmax.c",),
            summary=f"beta {_beta(node):g}, {shape_text(x)}",
        )

    def litert_default(self, graph: Graph, node: Node) -> bool:
        return False

    def examples(self, rng: np.random.Generator) -> Iterator[Example]:
        yield _example((1, 1), 0.1, 0, "one class")
        yield _example((1, 10), 1e-6, 0, "scale 1e-6")
        yield _example((1, 10), 30.0, 0, "scale 30: one class takes all")
        yield _example((1, 256), 0.02, 0, "256 classes", inputs=np.arange(-128, 128).astype(np.int8).reshape(1, 256))
        yield _example((1, 300), 0.05, 0, "equal classes", inputs=np.zeros((1, 300), np.int8))
        yield _example((1, 2), 0.05, 0, "two equal classes", inputs=np.full((1, 2), 127, np.int8))
        yield _example((1, 7, 5), 0.05, 0, "seven rows")
        yield _example((1, 3, 4, 6), 0.05, 0, "over the channels of an image")
        for index in range(50):
            shape = (1, make.pick(rng, 2, 40))
            scale = float(np.exp2(rng.uniform(-10, 2)))
            beta = 1.0 if rng.random() < 0.7 else float(np.float32(rng.uniform(0.1, 4)))
            yield _example(shape, scale, make.pick_zero_point(rng), f"random {index}", beta)

    def read_tflite(self, op: TfliteOperator) -> Node:
        return Node(self.name, op.inputs, op.outputs, {"beta": float(op.options_as(schema.SoftmaxOptionsT).beta)})

    def read_onnx(self, match: OnnxMatch) -> Node:
        """Over any axis, by transposes; other output scales are made from steps of 1/256."""
        rank, opset = len(match.input(0).shape), int(match.attributes.get("opset", match.opset))
        axis = match.axis(int(match.attributes.get("axis", -1 if opset >= FIRST_WITH_ONE_AXIS else 1)), rank)
        _refuse_several_axes(match, opset)
        if axis == rank - 1 and match.output().quantization == OUTPUT_QUANTIZATION and match.clamp is None:
            return Node(self.name, match.inputs[:1], match.outputs, {"beta": 1.0})
        return self._rescaled(match, axis)

    def _rescaled(self, match: OnnxMatch, axis: int) -> Node:
        """The node behind a softmax over another axis than the last, or with another scale."""
        rank, index = len(match.input(0).shape), match.inputs[0]
        swap = tuple({axis: rank - 1, rank - 1: axis}.get(place, place) for place in range(rank))
        if axis != rank - 1:
            index = match.ahead("transpose", (index,), match.input(0).quantization, {"perm": swap})
        index = match.ahead(self.name, (index,), OUTPUT_QUANTIZATION, {"beta": 1.0})
        if axis != rank - 1 and match.output().quantization == OUTPUT_QUANTIZATION and match.clamp is None:
            return Node("transpose", (index,), match.outputs, {"perm": swap})
        if axis != rank - 1:
            index = match.ahead("transpose", (index,), OUTPUT_QUANTIZATION, {"perm": swap})
        return match.restored(index)

    def write_tflite(self, graph: Graph, node: Node, writer: TfliteWriter) -> None:
        options = schema.SoftmaxOptionsT()
        options.beta = _beta(node)
        writer.add("SOFTMAX", node.inputs, node.outputs, options, 2)


def exponentials(scale: float, beta: float) -> Int64:
    """exp(-beta * scale * i) in Q0.31 for the distances i from the maximum that count, at most 0..255.

    Raises:
        GraphError: the scale is so small that all distances are 0 in Q5.26.
    """
    fraction_bits = 31 - DIFFERENCE_INTEGER_BITS
    real = min(beta * scale * 2.0**fraction_bits, 2.0**31 - 1.0)
    if not real > 1:
        raise GraphError(f"softmax of scale {scale:g} and beta {beta:g}; supported: beta * scale above 2^-{fraction_bits}")
    multiplier, shift = quantize_multiplier(real)
    furthest = math.floor((2**DIFFERENCE_INTEGER_BITS - 1) * 2.0**fraction_bits / 2.0 ** int(shift[0]))
    distances = np.arange(min(furthest, 255) + 1, dtype=np.int64)
    return exp_of_negative(high_mul(-distances << shift, multiplier), DIFFERENCE_INTEGER_BITS)


def _beta(node: Node) -> float:
    beta = node.attributes.get("beta")
    if not isinstance(beta, float | int) or not math.isfinite(beta) or beta <= 0:
        raise GraphError(f"softmax with beta {beta}; supported: finite and above 0")
    return float(beta)


def _example(
    shape: tuple[int, ...], scale: float, zero_point: int, label: str, beta: float = 1.0, inputs: Array | None = None
) -> Example:
    x = make.activation(shape, Quantization.per_tensor(float(np.float32(scale)), zero_point))
    graph = make.single_node("softmax", (x,), OUTPUT_QUANTIZATION, {"beta": beta})
    return Example(graph, label, make.extreme_inputs(graph) if inputs is None else (inputs,))


def _refuse_several_axes(match: OnnxMatch, opset: int) -> None:
    """Raises GraphError for an old Softmax over more than one axis of more than one element."""
    x = match.input(0)
    axis = int(match.attributes.get("axis", 1))
    sizes = [x.shape[match.axis(place, len(x.shape))] for place in range(axis % max(1, len(x.shape)) + 1, len(x.shape))]
    if opset < FIRST_WITH_ONE_AXIS and math.prod(sizes) != 1:
        raise GraphError(f"Softmax of opset {opset} over several axes of {x.shape}; supported: one axis, or opset 13 and later")


OPERATOR = Softmax()
