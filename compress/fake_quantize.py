"""int8 arithmetic imitated in float, so that a network can be calibrated and trained as it will run.

Activations: int8 per tensor, asymmetric. Weights: int8 per output channel, symmetric in [-127, 127]. Bias: int32 at
input scale x weight scale. The float32 scales used here are the ones written to the file, bit for bit.
"""

from __future__ import annotations

import enum

import torch
from torch import Tensor, nn
from torch.func import functional_call

INT8_MIN, INT8_MAX = -128, 127
WEIGHT_MAX = 127
MINIMUM_WEIGHT_SCALE = 2.0**-24
"""For channels whose weights are all (nearly) zero: still positive and far from float32's and the requantizer's limits."""
MINIMUM_RANGE = 2.0**-8
"""Narrowest activation range, for a tensor that is always zero."""
BIAS_LIMIT = 2.0**30
"""Largest stored bias: half of int32, the other half is left to the sum of products."""


class Mode(enum.Enum):
    """What quantizers do: CALIBRATE watches ranges in float; ADAPT quantizes and follows the ranges while training;
    FIXED quantizes."""

    CALIBRATE = "calibrate"
    ADAPT = "adapt"
    FIXED = "fixed"


def set_mode(model: nn.Module, mode: Mode) -> None:
    """Switches every quantizer of a network."""
    for module in model.modules():
        if isinstance(module, (ActivationQuantizer, QuantizedLayer)):
            module.mode = mode


def affine_parameters(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Scale (float32) and zero point (int32) for real values in [low, high]; the range is widened to hold 0 exactly.

    scale = (high - low) / 255, zero_point = -128 - round(low / scale).
    """
    low64, high64 = torch.clamp(low.double(), max=0.0), torch.clamp(high.double(), min=0.0)
    scale = (torch.clamp(high64 - low64, min=MINIMUM_RANGE) / (INT8_MAX - INT8_MIN)).float()
    zero_point = torch.clamp(INT8_MIN - torch.round(low64 / scale.double()), INT8_MIN, INT8_MAX)
    return scale, zero_point.to(torch.int32)


def weight_scales(weights: Tensor, bias: Tensor | None, input_scale: Tensor) -> Tensor:
    """float32 [out]: largest |weight| of each output channel / 127.

    A channel without weights gets a tiny positive scale, and one whose bias would leave int32 at input scale x weight
    scale gets the smallest scale at which it does not.
    """
    scales = weights.detach().flatten(1).abs().amax(1).double() / WEIGHT_MAX
    if bias is not None:
        scales = torch.maximum(scales, bias.detach().double().abs() / (input_scale.double() * BIAS_LIMIT))
    return torch.clamp(scales, min=MINIMUM_WEIGHT_SCALE).float()


def value_range(values: Tensor, percentile: float) -> tuple[Tensor, Tensor]:
    """The values below and above which (100 - percentile) % lie; 100 gives minimum and maximum. Two 0-d tensors."""
    if percentile >= 100:
        low, high = torch.aminmax(values)
        return low, high
    flat = values.flatten()
    rank = min(flat.numel(), max(1, round(flat.numel() * percentile / 100)))
    return flat.kthvalue(flat.numel() + 1 - rank).values, flat.kthvalue(rank).values


class ActivationQuantizer(nn.Module):
    """Fake quantization of one activation tensor.

    While calibrating the range is the average over batches of each batch's range; while adapting it is a moving
    average. `fixed` gives scale and zero point that never change (the network's input).
    """

    low: Tensor
    high: Tensor
    batches: Tensor
    scale: Tensor
    zero_point: Tensor

    def __init__(self, fixed: tuple[float, int] | None = None, momentum: float = 0.02) -> None:
        super().__init__()
        self.fixed, self.momentum, self.percentile = fixed is not None, momentum, 100.0
        self.mode = Mode.FIXED
        scale, zero_point = fixed if fixed is not None else (MINIMUM_RANGE / (INT8_MAX - INT8_MIN), INT8_MIN)
        for name in ("low", "high", "batches"):
            self.register_buffer(name, torch.zeros(()))
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float32))
        self.register_buffer("zero_point", torch.tensor(zero_point, dtype=torch.int32))

    def forward(self, x: Tensor) -> Tensor:
        """The nearest values that int8 can hold; the gradient passes where x lies in the range."""
        if not self.fixed:
            if self.mode is Mode.CALIBRATE:
                self._follow(x, 1.0 / float(self.batches + 1))
            elif self.mode is Mode.ADAPT and self.training:
                self._follow(x, self.momentum)
        if self.mode is Mode.CALIBRATE:
            return x
        return torch.fake_quantize_per_tensor_affine(x, self.scale, self.zero_point, INT8_MIN, INT8_MAX)

    @torch.no_grad()
    def _follow(self, x: Tensor, momentum: float) -> None:
        low, high = value_range(x, self.percentile if self.mode is Mode.CALIBRATE else 100.0)
        self.low.lerp_(low, momentum)
        self.high.lerp_(high, momentum)
        self.batches.add_(1)
        scale, zero_point = affine_parameters(self.low, self.high)
        self.scale.copy_(scale)
        self.zero_point.copy_(zero_point)


class QuantizedLayer(nn.Module):
    """A convolution or linear layer whose weights and bias are fake-quantized each time it runs."""

    def __init__(self, layer: nn.Conv2d | nn.Linear) -> None:
        super().__init__()
        self.layer = layer
        self.mode = Mode.FIXED

    def forward(self, x: Tensor, input_scale: Tensor) -> Tensor:
        """x: already quantized at `input_scale` (0-d)."""
        if self.mode is Mode.CALIBRATE:
            output: Tensor = self.layer(x)
            return output
        parameters = {"weight": self.quantized_weights(input_scale)}
        if self.layer.bias is not None:
            parameters["bias"] = self._quantized_bias(self.layer.bias, input_scale)
        result: Tensor = functional_call(self.layer, parameters, (x,))
        return result

    def scales(self, input_scale: Tensor) -> Tensor:
        """float32 [out], the scale of each output channel's weights."""
        return weight_scales(self.layer.weight, self.layer.bias, input_scale)

    def quantized_weights(self, input_scale: Tensor) -> Tensor:
        """The weights at the values that int8 can hold, of the layer's own shape."""
        zero_points = torch.zeros(self.layer.weight.shape[0], dtype=torch.int32)
        return torch.fake_quantize_per_channel_affine(
            self.layer.weight, self.scales(input_scale), zero_points, 0, -WEIGHT_MAX, WEIGHT_MAX
        )

    def integers(self, input_scale: Tensor) -> tuple[Tensor, Tensor | None]:
        """Weights int8 and bias int32 [out] as they are stored."""
        column = self.scales(input_scale).reshape(-1, *[1] * (self.layer.weight.dim() - 1))
        weights = torch.round(self.quantized_weights(input_scale).double() / column.double()).to(torch.int8)
        if self.layer.bias is None:
            return weights, None
        return weights, torch.round(self.layer.bias.double() / self._bias_scales(input_scale).double()).to(torch.int32)

    def _bias_scales(self, input_scale: Tensor) -> Tensor:
        return input_scale * self.scales(input_scale)

    def _quantized_bias(self, bias: Tensor, input_scale: Tensor) -> Tensor:
        """Rounded to int32 steps; the gradient passes unchanged (straight-through)."""
        steps = self._bias_scales(input_scale).double()
        error = (torch.round(bias.detach().double() / steps) * steps).float() - bias.detach()
        return bias + error
