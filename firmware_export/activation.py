"""Fused activations: real bounds and the int8 clamp they mean on a quantized tensor, the same in every format."""

from __future__ import annotations

import math

import numpy as np

from firmware_export.graph import GraphError, Tensor

Bounds = tuple[float, float]
Clamp = tuple[int, int]

UNBOUNDED: Bounds = (-math.inf, math.inf)
FUSED_ACTIVATIONS: dict[str, Bounds] = {
    "NONE": UNBOUNDED,
    "RELU": (0.0, math.inf),
    "RELU6": (0.0, 6.0),
    "RELU_N1_TO_1": (-1.0, 1.0),
}
"""TFLite's names for what can be fused into an operator, with their bounds."""


def clamp_of(bounds: Bounds, tensor: Tensor) -> Clamp:
    """The stored int8 values that real bounds mean on a tensor; unbounded gives (-128, 127).

    bound -> zero_point + round(bound / scale), division in float32, halves away from zero, as TFLite's
    CalculateActivationRangeQuantized does.

    Raises:
        GraphError: the tensor is not quantized int8 per tensor, or the bounds leave no value.
    """
    if tensor.dtype != "int8":
        raise GraphError(f"tensor '{tensor.name}' is {tensor.dtype}; supported behind an operator: int8")
    if not (math.isfinite(tensor.scale) and tensor.scale > 0):
        raise GraphError(f"tensor '{tensor.name}' has the scale {tensor.scale}; supported: finite scales above 0")
    low, high = (_quantize(bound, tensor) for bound in bounds)
    if low > high:
        raise GraphError(f"the activation bounds {bounds} leave no value for tensor '{tensor.name}'")
    return low, high


def _quantize(bound: float, tensor: Tensor) -> int:
    if math.isnan(bound):
        raise GraphError(f"an activation bound of tensor '{tensor.name}' is not a number")
    if math.isinf(bound):
        return -128 if bound < 0 else 127
    with np.errstate(over="ignore"):
        ratio = float(np.float32(bound) / np.float32(tensor.scale))
    if abs(ratio) > 1024:
        return -128 if ratio < 0 else 127
    rounded = math.floor(abs(ratio) + 0.5)
    return max(-128, min(127, tensor.zero_point + (rounded if ratio >= 0 else -rounded)))


def fused_activation(clamp: Clamp, tensor: Tensor) -> str:
    """TFLite's name for an int8 clamp of a tensor: the first whose bounds give exactly this clamp.

    Raises:
        GraphError: no fused activation of TFLite gives this clamp.
    """
    for name, bounds in FUSED_ACTIVATIONS.items():
        if clamp_of(bounds, tensor) == tuple(clamp):
            return name
    raise GraphError(
        f"the clamp {clamp[0]}..{clamp[1]} of tensor '{tensor.name}' is none of TFLite's fused activations "
        f"({', '.join(FUSED_ACTIVATIONS)}); use ReLU or ReLU6 in the model"
    )
