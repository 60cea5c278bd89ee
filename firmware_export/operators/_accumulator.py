"""What conv2d, depthwise_conv2d and fully_connected share: weights, bias, and the stage from int32 sums to int8."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from firmware_export.activation import Clamp
from firmware_export.graph import ABSENT, Array, Graph, GraphError, Node, Quantization, Tensor
from firmware_export.operators import Constant
from firmware_export.operators._checks import clamp_attribute, int8_input, int8_output
from firmware_export.requantize import (
    INT8_MAX,
    INT8_MIN,
    MAX_SHIFT,
    Float32,
    Float64,
    Int64,
    quantize_multiplier,
    requantize,
    requantize_float32,
    to_int8,
    wrap_int32,
)

if TYPE_CHECKING:
    from firmware_export.write_tflite import TfliteWriter

BIAS_STEPS, BIAS_FRACTION = 0.02, 1e-4
"""A bias scale is wrong when it is off by more than this many output steps (the bound of TFLite's
GetQuantizedConvolutionMultipler) and by more than this fraction (it is a rounded float32)."""


def int8_weights(graph: Graph, node: Node, rank: int, axis: int) -> Tensor:
    """Input 1: constant int8 weights, symmetric, one scale or one per output channel along `axis`.

    Raises:
        GraphError: got X, supported Y.
    """
    if node.inputs[1] == ABSENT:
        raise GraphError("the weights (input 1) are missing")
    w = graph.tensors[node.inputs[1]]
    if not w.is_constant or w.dtype != "int8" or len(w.shape) != rank:
        kind = "constant" if w.is_constant else "computed"
        raise GraphError(f"weights '{w.name}' are {kind} {w.dtype} {w.shape}; supported: constant int8 with {rank} dimensions")
    if w.quantization is None:
        raise GraphError(f"weights '{w.name}' have no scale; expected one, or one per output channel")
    scale, zero_point = w.quantization.scale, w.quantization.zero_point
    if scale.size != 1 and (w.quantization.axis != axis or scale.size != w.shape[axis]):
        raise GraphError(
            f"weights '{w.name}' {w.shape} have {scale.size} scales along axis {w.quantization.axis}; supported: 1, or one "
            f"per output channel along axis {axis}"
        )
    if np.any(zero_point != 0) or not np.all(np.isfinite(scale)) or np.any(scale <= 0):
        raise GraphError(
            f"weights '{w.name}' have zero points {np.unique(zero_point)[:4].tolist()}; supported: 0, finite scales above 0"
        )
    return w


def int32_bias(graph: Graph, node: Node, channels: int) -> Array | None:
    """Input 2: constant int32 bias [channels] at the scale input x weights; None if absent.

    Raises:
        GraphError: got X, supported Y.
    """
    if len(node.inputs) < 3 or node.inputs[2] == ABSENT:
        return None
    bias = graph.tensors[node.inputs[2]]
    if bias.data is None or bias.dtype != "int32" or bias.elements != channels or max(bias.shape) != channels:
        raise GraphError(f"bias '{bias.name}' is {bias.dtype} {bias.shape}; supported: constant int32 ({channels},)")
    _check_bias_scale(graph, node, bias)
    return bias.data


def _check_bias_scale(graph: Graph, node: Node, bias: Tensor) -> None:
    weights = graph.tensors[node.inputs[1]].quantization
    if bias.quantization is None or weights is None:
        return
    if bias.quantization.scale.size not in (1, weights.scale.size) or np.any(bias.quantization.zero_point != 0):
        raise GraphError(
            f"bias '{bias.name}' has {bias.quantization.scale.size} scales; expected those of the weights, offset 0"
        )
    expected = np.float64(int8_input(graph, node).scale) * weights.scale.astype(np.float64)
    difference = np.abs(bias.quantization.scale.astype(np.float64) - expected)
    worst = int(np.argmax(difference))
    if difference[worst] > max(BIAS_STEPS * int8_output(graph, node).scale, BIAS_FRACTION * expected[worst]):
        raise GraphError(
            f"bias '{bias.name}' has the scale {bias.quantization.scale[worst % bias.quantization.scale.size]:g}; "
            f"expected input scale x weight scale = {expected[worst]:g}"
        )


def inputs_with_bias(graph: Graph, node: Node, writer: TfliteWriter) -> tuple[int, ...]:
    """The inputs for a TFLite convolution, an absent bias written as zeros: LiteRT takes none without."""
    if len(node.inputs) == 3 and node.inputs[2] != ABSENT:
        return node.inputs
    weights = graph.tensors[node.inputs[1]].quantization
    assert weights is not None  # int8_weights has looked
    scale = np.float32(int8_input(graph, node).scale) * weights.scale
    axis = None if scale.size == 1 else 0
    channels = graph.tensors[node.outputs[0]].shape[-1]
    quantization = Quantization(scale, np.zeros(scale.size, np.int64), axis)
    return (*node.inputs[:2], writer.add_constant("bias", np.zeros(channels, np.int32), quantization))


@dataclass(frozen=True)
class OutputStage:
    """Sums -> stored int8, one factor per output channel; nn_output_stage of runtime/requantize.h.

    multiplier, shift: the factor in fixed point. scale: the same factor, exactly, in the arithmetic float32; None in double.
    """

    multiplier: Int64
    shift: Int64
    zero_point: int
    clamp: Clamp
    scale: Float32 | None = None

    @staticmethod
    def of(graph: Graph, node: Node, channels: int) -> OutputStage:
        """From the scales of input 0, weights and output, in the arithmetic of the graph.

        double: double(s_in) * double(s_w) / double(s_out), as TFLite computes it. float32: the same in float32, rounded
        after each operation, as XNNPACK does (xnn_create_convolution2d_nhwc_qs8_qc8w).

        Raises:
            GraphError: a factor of 2^30 or more.
        """
        x, y, weights = int8_input(graph, node), int8_output(graph, node), graph.tensors[node.inputs[1]].quantization
        assert weights is not None  # int8_weights has looked
        return OutputStage.from_scales(
            graph.arithmetic, x.scale, weights.scale, y.scale, channels, y.zero_point, clamp_attribute(node)
        )

    @staticmethod
    def from_scales(
        arithmetic: str, s_in: float, s_w: Float32, s_out: float, channels: int, zero_point: int, clamp: Clamp
    ) -> OutputStage:
        """The stage of the factors s_in * s_w / s_out; s_w holds one scale, or one per channel. Raises as `of`."""
        with np.errstate(over="ignore", under="ignore"):
            short: Float32 = np.float32(s_in) * s_w.astype(np.float32) / np.float32(s_out)
        exact: Float64 = np.float64(s_in) * s_w.astype(np.float64) / np.float64(s_out)
        real = exact if arithmetic == "double" else short.astype(np.float64)
        if not np.all(np.isfinite(real)):
            raise GraphError(f"the scales make a factor of {exact.max():g}; supported: below 2^{MAX_SHIFT}")
        multiplier, shift = quantize_multiplier(np.broadcast_to(real, channels))
        check_shift(shift, real)
        scale = None if arithmetic == "double" else np.broadcast_to(short, channels)
        return OutputStage(multiplier, shift, zero_point, clamp, scale)

    def requantize(self, sums: Int64, channel: Int64 | int | slice = slice(None)) -> Int64:
        """int32 sums [..., channels], or of the named channels, times their factors, as integers; without zero point."""
        if self.scale is not None:
            return requantize_float32(sums, self.scale[channel])
        return requantize(sums, self.multiplier[channel], self.shift[channel])

    def apply(self, sums: Int64) -> Array:
        """Sums of any size (exact, e.g. from float64) [..., channels] -> int8."""
        scaled = self.requantize(wrap_int32(sums))
        if self.scale is not None:
            scaled = scaled.clip(INT8_MIN - self.zero_point, INT8_MAX - self.zero_point)
        return to_int8(scaled, self.zero_point, self.clamp)

    def fields(self, name: str) -> dict[str, str]:
        """Initializers of the nn_output_stage of that name."""
        values = {"zero_point": self.zero_point, "min": self.clamp[0], "max": self.clamp[1]}
        tables = {"multipliers": "{multipliers}", "shifts": "{shifts}"}
        if self.scale is not None:
            tables = {"scales": "{scales}", "output": "nn_output_float32"}
        return {f"{name}.{key}": str(value) for key, value in (tables | values).items()}

    def constants(self) -> tuple[Constant, ...]:
        """The tables that `fields` names."""
        if self.scale is not None:
            return (Constant("scales", self.scale),)
        return Constant("multipliers", self.multiplier.astype(np.int32)), Constant("shifts", self.shift.astype(np.int8))


def check_shift(shift: Int64, real: float | Float64) -> None:
    """Raises GraphError if a factor needs a left shift that int32 does not have."""
    if int(shift.max()) > MAX_SHIFT:
        largest = float(np.max(np.asarray(real)))
        raise GraphError(f"the scales make a factor of {largest:g}; supported: below 2^{MAX_SHIFT}")


def folded_bias(bias: Array | None, weight_sums: Int64, zero_point: int) -> Array:
    """int32 bias - zero_point * (sum of each output's weights), so that the kernels need no input offset."""
    start = np.zeros_like(weight_sums) if bias is None else bias.reshape(-1).astype(np.int64)
    return wrap_int32(start - zero_point * weight_sums).astype(np.int32)
