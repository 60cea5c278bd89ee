"""Networks as people write them in PyTorch, exported by its tracing exporter: the shapes, blocks and names that come of it."""

from __future__ import annotations

import io
import warnings

import onnx
import torch
from torch import Tensor, nn


class SqueezeExcite(nn.Module):
    """A gate for each channel, of the channels' means."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce, self.expand = nn.Conv2d(channels, channels // 2, 1), nn.Conv2d(channels // 2, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """x [n, c, h, w]."""
        gate = torch.relu(self.reduce(x.mean((2, 3), keepdim=True)))
        return x * nn.functional.hardsigmoid(self.expand(gate))


class MobileNet(nn.Module):
    """Inverted residuals with hard-swish and squeeze-excitation; 3 x 12 x 10."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.Hardswish())
        self.widen = nn.Sequential(nn.Conv2d(8, 16, 1, bias=False), nn.BatchNorm2d(16), nn.Hardswish())
        self.depthwise = nn.Sequential(nn.Conv2d(16, 16, 3, 1, 1, groups=16, bias=False), nn.BatchNorm2d(16), nn.ReLU6())
        self.gate, self.narrow = SqueezeExcite(16), nn.Conv2d(16, 8, 1)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(8, 6))

    def forward(self, x: Tensor) -> Tensor:
        """x [n, 3, 12, 10] -> logits [n, 6]."""
        x = self.stem(x)
        x = x + self.narrow(self.gate(self.depthwise(self.widen(x))))
        logits: Tensor = self.head(x)
        return logits


class ShuffleNet(nn.Module):
    """Split channels, grouped convolution, channel shuffle, and a flattened image by `view`; 4 x 8 x 6."""

    def __init__(self) -> None:
        super().__init__()
        self.grouped, self.pointwise = nn.Conv2d(8, 8, 3, padding=1, groups=2), nn.Conv2d(4, 8, 1)
        self.slope, self.dense = nn.PReLU(8), nn.Linear(8 * 4 * 3, 5)

    def forward(self, x: Tensor) -> Tensor:
        """x [n, 4, 8, 6] -> log-odds [n, 5]."""
        x = self.slope(self.grouped(self.pointwise(x)))
        n, c, h, w = x.shape
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        one, other = x.chunk(2, 1)
        x = nn.functional.max_pool2d(torch.cat([other, torch.clamp(one, 0, 2)], 1), 2)
        return torch.tanh(self.dense(x.view(x.size(0), -1)))


SHAPES = {MobileNet: (1, 3, 12, 10), ShuffleNet: (1, 4, 8, 6)}


def exported(kind: type[nn.Module], dynamic: bool) -> onnx.ModelProto:
    """A network with random weights as an ONNX file.

    dynamic: with a batch of any size, so that reshapes are computed from shapes.
    """
    torch.manual_seed(0)
    net = kind().eval()
    stream = io.BytesIO()
    axes = {"input": {0: "batch"}, "output": {0: "batch"}} if dynamic else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net,
            (torch.rand(SHAPES[kind]),),
            stream,
            opset_version=17,
            dynamo=False,
            input_names=["input"],
            output_names=["output"],
            dynamic_axes=axes,
        )
    return onnx.load_from_string(stream.getvalue())
