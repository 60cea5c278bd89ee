"""The window of a transposed convolution: its checks, its sums in numpy, its fields in C, its ONNX form."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from firmware_export.geometry import same_padding
from firmware_export.graph import Attribute, GraphError, Node, Quantization, Tensor
from firmware_export.operators._checks import MAX_SIZE, integers

if TYPE_CHECKING:
    from firmware_export.read_onnx import OnnxMatch

Pair = tuple[int, int]
MAX_EXPANDED = 2**24
"""Weights with the zeros of groups and dilations among them; no microcontroller holds more."""
Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class TransposedWindow:
    """Checked geometry. All pairs are (h, w); padding is (top, left), what is cut off there."""

    size: Pair
    channels: int
    kernel: Pair
    stride: Pair
    padding: Pair
    output: Pair

    @staticmethod
    def of(node: Node, x: Tensor, kernel: Pair) -> TransposedWindow:
        """From a node's attributes stride, padding and size. Raises GraphError if one is missing or out of range."""
        stride, padding, size = integers(node, "stride", 2, 1), integers(node, "padding", 2, 0), integers(node, "size", 2, 1)
        if max(kernel) > MAX_SIZE or max(a + b for a, b in zip(size, padding, strict=True)) > MAX_SIZE:
            raise GraphError(f"kernel {kernel}, output {size} and padding {padding}; supported: up to {MAX_SIZE} together")
        height, width, channels = x.shape[1:]
        most = [n * s + k - 1 for n, s, k in zip(x.shape[1:3], stride, kernel, strict=True)]
        if any(p + n > m for p, n, m in zip(padding, size, most, strict=True)):
            raise GraphError(f"output {size} and padding {padding}; supported: together at most {tuple(most)}, what taps reach")
        return TransposedWindow(
            (height, width), channels, kernel, (stride[0], stride[1]), (padding[0], padding[1]), (size[0], size[1])
        )

    def phases(self) -> Iterator[Pair]:
        """(row, column) + padding, modulo the stride, of the outputs that taps can meet, rows first."""
        rows, columns = (min(k, s) for k, s in zip(self.kernel, self.stride, strict=True))
        return itertools.product(range(rows), range(columns))

    @property
    def tflite_padding(self) -> str:
        """ "SAME" or "VALID" where TFLite computes this padding for this output, else ""."""
        if self.padding == (0, 0) and all(n >= r for n, r in zip(self.output, self.reach, strict=True)):
            return "VALID"
        sizes = tuple(-(-n // s) for n, s in zip(self.output, self.stride, strict=True))
        same = same_padding(self.output, self.kernel, self.stride)[::2]
        return "SAME" if sizes == self.size and same == self.padding else ""

    @property
    def reach(self) -> Pair:
        """The output that holds every product."""
        down, across = ((n - 1) * s + k for n, s, k in zip(self.size, self.stride, self.kernel, strict=True))
        return down, across

    @property
    def uncropped(self) -> Pair:
        """The output with what is cut off at its top and left, and all that taps reach."""
        down, across = (max(r, p + n) for r, p, n in zip(self.reach, self.padding, self.output, strict=True))
        return down, across

    @property
    def most_taps(self) -> int:
        """Taps of the largest phase."""
        rows, columns = (-(-k // s) for k, s in zip(self.kernel, self.stride, strict=True))
        return rows * columns

    def scattered(self, image: Float64, weights: Float64) -> Float64:
        """The sums of products, [*output, outputs]: each tap adds image @ its weights to where it lies.

        Args:
            image: [h, w, c]. weights: [outputs, kernel h, kernel w, c].
        """
        (top, left), (down, right) = self.padding, self.stride
        canvas = np.zeros((top + self.output[0], left + self.output[1], weights.shape[0]))
        for i, j in itertools.product(*map(range, self.kernel)):
            place = canvas[i::down, j::right]
            rows, columns = min(place.shape[0], self.size[0]), min(place.shape[1], self.size[1])
            place[:rows, :columns] += image[:rows, :columns] @ weights[:, i, j].T
        return canvas[top:, left:]

    def fields(self) -> dict[str, str]:
        """Initializers of the nn_window named `window`: the image, the whole kernel, stride and padding."""
        pairs = {"input": self.size, "output": self.output, "kernel": self.kernel, "stride": self.stride}
        values = {f"{name}_{edge}": pair[i] for name, pair in pairs.items() for i, edge in enumerate("hw")}
        values |= {"channels": self.channels, "padding_top": self.padding[0], "padding_left": self.padding[1]}
        return {f"window.{name}": str(value) for name, value in values.items()}

    def summary(self) -> str:
        """For the layer's comment, e.g. "3x3 s2 crop 1,1"."""
        height, width = self.stride
        text = f"{self.kernel[0]}x{self.kernel[1]} s{height}" + (f"x{width}" if width != height else "")
        return text + (f" crop {self.padding[0]},{self.padding[1]}" if any(self.padding) else "")


def onnx_transposed_window(match: OnnxMatch) -> dict[str, Attribute]:
    """stride, padding, size and clamp of a ConvTranspose.

    Source: the ONNX operator's definition; `output_shape` and `auto_pad` decide the padding where they are given.
    """
    x, weights = match.input(0).shape, match.input(1).shape
    if len(x) != 4 or len(weights) != 4:
        raise GraphError(f"ConvTranspose of {x} with weights {weights}; supported: 2-D, 4 dimensions")
    if tuple(match.attributes.get("kernel_shape", weights[2:])) != weights[2:]:
        raise GraphError(f"kernel_shape is {match.attributes['kernel_shape']}, the weights have {weights[2:]}; damaged")
    stride, dilation = match.window("strides"), match.window("dilations")
    extra = tuple(match.attributes.get("output_padding", (0, 0)))
    if len(extra) != 2 or min(extra) < 0 or max(extra) > MAX_SIZE:
        raise GraphError(f"output_padding is {extra}; supported: two values of 0 or more")
    reach = [(k - 1) * d + 1 for k, d in zip(weights[2:], dilation, strict=True)]
    whole = [(n - 1) * s + e + r for n, s, e, r in zip(x[1:3], stride, extra, reach, strict=True)]
    begin, size = _onnx_crop(match, (whole[0], whole[1]), (x[1] * stride[0], x[2] * stride[1]))
    return {"stride": stride, "padding": begin, "size": size, "clamp": match.int8_clamp()}


def _onnx_crop(match: OnnxMatch, whole: Pair, same: Pair) -> tuple[Pair, Pair]:
    """What is cut off at (top, left), and what is left."""
    mode, wanted = match.attributes.get("auto_pad", "NOTSET"), tuple(match.attributes.get("output_shape", ()))
    if mode not in ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"):
        raise GraphError(f"auto_pad {mode}; supported: NOTSET, VALID, SAME_UPPER, SAME_LOWER")
    if mode.startswith("SAME") and not wanted:
        wanted = same
    if wanted:
        size = (int(wanted[-2]), int(wanted[-1])) if len(wanted) in (2, 4) else (0, 0)
        total = [w - s for w, s in zip(whole, size, strict=True)]
        if min(total) < 0 or min(size) < 1:
            raise GraphError(f"output_shape {wanted} of at most {whole}; supported: two sizes that are not larger")
        begin = [t // 2 if mode == "SAME_UPPER" else t - t // 2 for t in total]
        return (begin[0], begin[1]), size
    pads = tuple(match.attributes.get("pads", (0, 0, 0, 0))) if mode == "NOTSET" else (0, 0, 0, 0)
    if len(pads) != 4 or min(pads) < 0 or whole[0] - pads[0] - pads[2] < 1 or whole[1] - pads[1] - pads[3] < 1:
        raise GraphError(f"pads {pads} of an output of {whole}; supported: 4 pads of 0 or more that leave something")
    return (pads[0], pads[1]), (whole[0] - pads[0] - pads[2], whole[1] - pads[1] - pads[3])


def onnx_transposed_weights(match: OnnxMatch) -> int:
    """[c, outputs / group, kernel h, kernel w] as our [outputs, kernel h, kernel w, c], zeros between groups and taps."""
    weights, groups, dilation = match.input(1), int(match.attributes.get("group", 1)), match.window("dilations")
    data, quantization = match.constant(1), weights.quantization
    if groups < 1 or weights.shape[0] % groups != 0 or match.input(0).shape[3] != weights.shape[0]:
        raise GraphError(f"{groups} groups, weights {weights.shape} and {match.input(0).shape[3]} channels do not fit")
    depth, outputs = weights.shape[0] // groups, weights.shape[1]
    reach = [(k - 1) * d + 1 for k, d in zip(weights.shape[2:], dilation, strict=True)]
    if groups * outputs * reach[0] * reach[1] * weights.shape[0] > MAX_EXPANDED:
        raise GraphError(
            f"{groups} groups of {outputs} outputs with dilation {dilation}; supported: up to {MAX_EXPANDED:,} weights"
        )
    ours = np.zeros((groups * outputs, *reach, weights.shape[0]), data.dtype)
    for group in range(groups):
        channels = slice(group * depth, (group + 1) * depth)
        of_group = ours[group * outputs : (group + 1) * outputs, :: dilation[0], :: dilation[1], channels]
        of_group[...] = data[channels].transpose(1, 2, 3, 0)
    if quantization is not None and quantization.scale.size > 1:
        if quantization.axis != 1:
            raise GraphError(f"weights '{weights.name}' have scales along axis {quantization.axis}; supported: 1, the outputs")
        quantization = Quantization(np.tile(quantization.scale, groups), np.tile(quantization.zero_point, groups), 0)
    elif quantization is not None:
        quantization = Quantization(quantization.scale, quantization.zero_point)
    return match.add_constant(weights.name, ours, quantization)
