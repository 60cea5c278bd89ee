"""ReLU with slopes from a tensor, most often one for each channel, int8 (PRELU, PRelu)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from firmware_export.graph import Attribute, Graph, GraphError, Node, Quantization, Tensor
from firmware_export.operators import Example, OutputSpec
from firmware_export.operators import _examples as make
from firmware_export.operators._accumulator import check_shift
from firmware_export.operators._broadcast import Elementwise, broadcast_examples, elementwise_example
from firmware_export.operators._checks import int8_operand, int8_output
from firmware_export.requantize import Int64, quantize_multiplier, requantize, to_int8

if TYPE_CHECKING:
    from firmware_export.read_onnx import OnnxMatch
    from firmware_export.read_tflite import TfliteOperator
    from firmware_export.write_tflite import TfliteWriter


class PRelu(Elementwise):
    """y = x where x >= 0, else slope * x.

    Inputs: x int8; slopes int8, of a shape that broadcasts to that of x; one may be a constant (the slopes are, in practice).
    Attributes: none. Output: int8 of the shape of x.
    Source: tensorflow/lite/kernels/internal/reference/prelu.h and micro/kernels/prelu_common.cc.
    In float32 the same: XNNPACK leaves it to this kernel of LiteRT.
    """

    name = "prelu"
    tflite = ("PRELU",)
    onnx = ("PRelu",)

    def infer(self, graph: Graph, node: Node) -> list[OutputSpec]:
        specs = super().infer(graph, node)
        x, slopes = int8_operand(graph, node, 0), int8_operand(graph, node, 1)
        if specs[0].shape != x.shape:
            raise GraphError(
                f"slopes of {slopes.shape} for an input of {x.shape}; supported: slopes that broadcast to the input"
            )
        return specs

    def combine(self, graph: Graph, node: Node, a: Int64, b: Int64) -> npt.NDArray[np.int8]:
        (identity, sloped), (shift, slope_shift) = _factors(graph, node)
        x = a - int8_operand(graph, node, 0).zero_point
        slopes = b - int8_operand(graph, node, 1).zero_point
        scaled = np.where(x >= 0, requantize(x, identity, shift), requantize(x * slopes, sloped, slope_shift))
        return to_int8(scaled, int8_output(graph, node).zero_point, make.NO_CLAMP)

    def fields(self, graph: Graph, node: Node) -> dict[str, str]:
        (identity, sloped), (shift, slope_shift) = _factors(graph, node)
        fields = {
            "multiplier": identity,
            "slope_multiplier": sloped,
            "shift": shift,
            "slope_shift": slope_shift,
            "zero_point_0": int8_operand(graph, node, 0).zero_point,
            "zero_point_1": int8_operand(graph, node, 1).zero_point,
            "zero_point": int8_output(graph, node).zero_point,
        }
        return {key: str(value) for key, value in fields.items()}

    def examples(self, rng: np.random.Generator) -> Iterator[Example]:
        for scales, label in (
            ((0.5, 2.0**-7, 0.5), "ties"),
            ((0.5, 0.25, 0.5), "steep slopes"),
            ((1.0, 1.0, 1e-6), "saturation"),
            ((1e-6, 1e-6, 1.0), "all outputs at the zero point"),
        ):
            a, b, y = (Quantization.per_tensor(float(np.float32(s)), z) for s, z in zip(scales, (-128, 127, 3), strict=True))
            for zero_point in (-128, 127, 0):
                x = Quantization(a.scale, np.array([zero_point], np.int64))
                tensors = make.activation((1, 5, 8), x, "a"), make.activation((1, 5, 8), b, "b")
                yield elementwise_example(self.name, *tensors, y, f"{label}, zero point {zero_point}")

        def _build(a: Tensor, b: Tensor, label: str) -> Example:
            y = Quantization.per_tensor(float(np.float32(a.scale * 2.0 ** rng.uniform(-1, 1))), make.pick_zero_point(rng))
            return elementwise_example(self.name, a, b, y, label)

        def _quantizations() -> tuple[Quantization, Quantization]:
            slopes = Quantization.per_tensor(float(np.float32(2.0 ** rng.uniform(-10, -6))), make.pick_zero_point(rng))
            return make.random_quantization(rng), slopes

        yield from broadcast_examples(rng, _quantizations, _build, one_way=True)

    def read_tflite(self, op: TfliteOperator) -> Node:
        return Node(self.name, op.inputs, op.outputs)

    def onnx_attributes(self, match: OnnxMatch) -> dict[str, Attribute]:
        return {}

    def write_tflite(self, graph: Graph, node: Node, writer: TfliteWriter) -> None:
        writer.add("PRELU", node.inputs, node.outputs, None, 1)


def _factors(graph: Graph, node: Node) -> tuple[tuple[int, int], tuple[int, int]]:
    """Multipliers and shifts of the input's scale over the output's, without and with the slopes' scale.

    Raises:
        GraphError: one of them is too large.
    """
    x, slopes, y = int8_operand(graph, node, 0), int8_operand(graph, node, 1), int8_output(graph, node)
    real = np.array([x.scale / y.scale, x.scale * slopes.scale / y.scale])
    multipliers, shifts = quantize_multiplier(real)
    check_shift(shifts, real)
    return (int(multipliers[0]), int(multipliers[1])), (int(shifts[0]), int(shifts[1]))


OPERATOR = PRelu()
