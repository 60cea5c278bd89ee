"""Two families of small convolutional networks, built from a config of plain values.

Every network is traceable by torch.fx with only these leaves: SameConv2d, BatchNorm2d, ReLU or ReLU6, Dropout, Linear,
MaxPool2d, GlobalAveragePool and operator.add (`trace` does it). Convolutions pad as TensorFlow's SAME, computed when
the network is built: with stride 2 torch's own symmetric padding puts the window elsewhere than TFLite and CMSIS-NN.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from recipes.artifacts import UsageError
from recipes.recipe import ModelSection

Size = tuple[int, int]
Pads = tuple[int, int, int, int]

FAMILIES = ("resnet", "dscnn")
ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "relu6": nn.ReLU6}
LIMIT = 65536  # no size, width or class count of a config is above this


@dataclass(frozen=True)
class ModelConfig:
    """Everything needed to build a network, pruned or not.

    Args:
        family: "resnet" or "dscnn".
        input_shape: (h, w, c).
        classes: outputs of the last layer.
        widths: channel counts in forward order. resnet: stem, then (inner, outer) of each stage; dscnn: stem, then each
            pointwise convolution.
        strides: stem, then each stage or block.
        activation: "relu" or "relu6".
        dropout: probability, before the last layer.
    """

    family: str
    input_shape: tuple[int, int, int]
    classes: int
    widths: tuple[int, ...]
    strides: tuple[int, ...]
    activation: str = "relu"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        """Raises ValueError for values no network can be built from."""
        if self.family not in FAMILIES:
            raise ValueError(f"model family {self.family!r} is not one of {', '.join(FAMILIES)}")
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation {self.activation!r} is not one of {', '.join(ACTIVATIONS)}")
        if len(self.input_shape) != 3 or not all(_positive(n) for n in (*self.input_shape, self.classes)):
            raise ValueError(
                f"input shape {self.input_shape} with {self.classes} classes is not (h, w, c) with one class or more"
            )
        per_stage = 2 if self.family == "resnet" else 1
        if not 1 <= len(self.strides) <= 64 or len(self.widths) != 1 + per_stage * (len(self.strides) - 1):
            raise ValueError(f"{len(self.widths)} widths do not match {len(self.strides)} strides of a {self.family}")
        if not all(_positive(n) for n in self.widths) or not all(n in (1, 2) for n in self.strides):
            raise ValueError(f"widths {self.widths} must be positive and strides {self.strides} 1 or 2")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout {self.dropout} is not in [0, 1)")

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> ModelConfig:
        """The config that gave these values; ValueError or TypeError when none could have."""
        kept: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
        return ModelConfig(**kept)


def _positive(number: object) -> bool:
    return isinstance(number, int) and 1 <= number <= LIMIT


def config_for(section: ModelSection, input_shape: tuple[int, int, int], classes: int, dropout: float) -> ModelConfig:
    """The unpruned network of a recipe.

    resnet: `depth` stages, the width doubles and the image halves from the second stage on. dscnn: `depth` blocks of one
    width at one size.

    Raises:
        UsageError: the network would be absurdly wide.
    """
    width, depth = section.width, section.depth
    if section.family == "resnet":
        stages = [width << stage for stage in range(depth)]
        widths = (width, *(w for stage in stages for w in (stage, stage)))
        strides = (section.stem_stride, *(1 if stage == 0 else 2 for stage in range(depth)))
    else:
        widths = (width,) * (depth + 1)
        strides = (section.stem_stride,) + (1,) * depth
    try:
        return ModelConfig(section.family, input_shape, classes, widths, strides, section.activation, dropout)
    except ValueError as error:
        raise UsageError(f"train.model: {error}; use less depth or width") from None


def same_pads(size: Size, kernel: Size, stride: Size) -> Pads:
    """(top, bottom, left, right) of TensorFlow's SAME: output ceil(in/stride), the odd pixel goes below and right."""
    vertical, horizontal = (max((-(-n // s) - 1) * s + k - n, 0) for n, k, s in zip(size, kernel, stride, strict=True))
    return vertical // 2, vertical - vertical // 2, horizontal // 2, horizontal - horizontal // 2


class SameConv2d(nn.Conv2d):
    """A convolution without bias for one input size, padded as TensorFlow's SAME; `pads` is (top, bottom, left, right)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, size: Size, groups: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, padding=0, groups=groups, bias=False)
        self.pads = same_pads(size, (kernel, kernel), (stride, stride))

    def forward(self, input: Tensor) -> Tensor:
        """float [n, inputs, h, w] -> float [n, outputs, ceil(h/stride), ceil(w/stride)]."""
        top, bottom, left, right = self.pads
        padding = (top, left)
        if (top, left) != (bottom, right):  # conv2d itself can only pad both sides alike, which is quicker
            input, padding = F.pad(input, (left, right, top, bottom)), (0, 0)
        return F.conv2d(input, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)


class GlobalAveragePool(nn.Module):
    """float [n, c, h, w] -> float [n, c]: the mean over h and w."""

    def forward(self, input: Tensor) -> Tensor:
        """The mean."""
        return input.mean((2, 3))


class ResidualStage(nn.Module):
    """conv-bn-act-conv-bn plus the input, then act; the input passes a 1x1 conv-bn where the shape changes."""

    def __init__(self, channels: tuple[int, int, int], stride: int, size: Size, activation: type[nn.Module]) -> None:
        """`channels` is (inputs, inner, outer); `size` the input's (h, w)."""
        super().__init__()
        inputs, inner, outer = channels
        self.conv1 = SameConv2d(inputs, inner, 3, stride, size)
        self.bn1 = nn.BatchNorm2d(inner)
        self.act1 = activation()
        self.conv2 = SameConv2d(inner, outer, 3, 1, _strided(size, stride))
        self.bn2 = nn.BatchNorm2d(outer)
        self.projected = stride != 1 or inputs != outer
        if self.projected:
            self.skip_conv = SameConv2d(inputs, outer, 1, stride, size)
            self.skip_bn = nn.BatchNorm2d(outer)
        self.act2 = activation()

    def forward(self, input: Tensor) -> Tensor:
        """float [n, inputs, h, w] -> float [n, outer, ceil(h/stride), ceil(w/stride)]."""
        inner = self.act1(self.bn1(self.conv1(input)))
        skip = self.skip_bn(self.skip_conv(input)) if self.projected else input
        result: Tensor = self.act2(self.bn2(self.conv2(inner)) + skip)
        return result


class SeparableBlock(nn.Module):
    """depthwise 3x3 conv-bn-act, pointwise 1x1 conv-bn-act."""

    def __init__(self, inputs: int, outputs: int, stride: int, size: Size, activation: type[nn.Module]) -> None:
        super().__init__()
        self.depthwise = SameConv2d(inputs, inputs, 3, stride, size, groups=inputs)
        self.bn1 = nn.BatchNorm2d(inputs)
        self.act1 = activation()
        self.pointwise = SameConv2d(inputs, outputs, 1, 1, _strided(size, stride))
        self.bn2 = nn.BatchNorm2d(outputs)
        self.act2 = activation()

    def forward(self, input: Tensor) -> Tensor:
        """float [n, inputs, h, w] -> float [n, outputs, ceil(h/stride), ceil(w/stride)]."""
        middle = self.act1(self.bn1(self.depthwise(input)))
        result: Tensor = self.act2(self.bn2(self.pointwise(middle)))
        return result


class ConvNet(nn.Module):
    """stem conv-bn-act, a body of stages, global average pool, dropout, linear."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        activation = ACTIVATIONS[config.activation]
        height, width, channels = config.input_shape
        self.stem = SameConv2d(channels, config.widths[0], 3, config.strides[0], (height, width))
        self.stem_bn = nn.BatchNorm2d(config.widths[0])
        self.stem_act = activation()
        self.body = nn.Sequential(*_body(config, activation))
        self.pool = GlobalAveragePool()
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(config.widths[-1], config.classes)

    def forward(self, input: Tensor) -> Tensor:
        """float [n, c, h, w] -> logits float [n, classes]."""
        features = self.body(self.stem_act(self.stem_bn(self.stem(input))))
        logits: Tensor = self.classifier(self.dropout(self.pool(features)))
        return logits


def _body(config: ModelConfig, activation: type[nn.Module]) -> list[nn.Module]:
    size = _strided(config.input_shape[:2], config.strides[0])
    stages: list[nn.Module] = []
    for index, stride in enumerate(config.strides[1:]):
        if config.family == "resnet":
            inputs, inner, outer = config.widths[2 * index : 2 * index + 3]
            stages.append(ResidualStage((inputs, inner, outer), stride, size, activation))
        else:
            inputs, outputs = config.widths[index : index + 2]
            stages.append(SeparableBlock(inputs, outputs, stride, size, activation))
        size = _strided(size, stride)
    return stages


def _strided(size: Size, stride: int) -> Size:
    return -(-size[0] // stride), -(-size[1] // stride)


def build_model(config: ModelConfig) -> nn.Module:
    """A network with fresh weights (He et al. 2015 for convolutions), drawn from torch's global generator."""
    model = ConvNet(config)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return model


class _LeafTracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """As torch.fx asks: true for what stays one node."""
        return isinstance(m, SameConv2d | GlobalAveragePool) or super().is_leaf_module(m, module_qualified_name)


def trace(model: nn.Module) -> fx.GraphModule:
    """The network as a torch.fx graph whose leaves are the ones named at the head of this file."""
    return fx.GraphModule(model, _LeafTracer().trace(model))


def count_macs(model: nn.Module, input_shape: tuple[int, int, int]) -> int:
    """Multiply-accumulates of all convolutions and linear layers for one image (h, w, c); padding counts as pixels."""
    total = 0

    def _add(module: nn.Module, _: Any, output: Tensor) -> None:
        nonlocal total
        weight = module.get_parameter("weight")
        total += output.numel() * math.prod(weight.shape[1:])

    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_hook(_add) for layer in layers]
    height, width, channels = input_shape
    training = model.training
    try:
        with torch.no_grad():
            model.eval()(torch.zeros(1, channels, height, width))
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    return total


def count_weights(model: nn.Module) -> int:
    """Weights and biases that end up on the board: every convolution has one bias per channel once its BN is folded."""
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    return sum(layer.weight.numel() + layer.weight.shape[0] for layer in layers)
