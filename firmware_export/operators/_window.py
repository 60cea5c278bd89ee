"""The window of convolutions and pools: its checks, its view in numpy, its fields in C (runtime/window.h)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import as_strided

from firmware_export.geometry import same_padding, valid_size
from firmware_export.graph import Attribute, GraphError, Node, Tensor
from firmware_export.operators._checks import MAX_SIZE, clamp_attribute, integers

if TYPE_CHECKING:
    from firmware_export.read_onnx import OnnxMatch
    from firmware_export.read_tflite import TfliteOperator
    from firmware_export.write_tflite import TfliteWriter


T = TypeVar("T", bound=np.number[Any])


@dataclass(frozen=True)
class Window:
    """A checked window over an image. All pairs are (h, w); padding is (top, bottom, left, right)."""

    size: tuple[int, int]
    channels: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    padding: tuple[int, int, int, int]
    output: tuple[int, int]

    @staticmethod
    def of(node: Node, x: Tensor, kernel: tuple[int, int]) -> Window:
        """From a node's attributes stride, padding and (optional) dilation.

        Raises:
            GraphError: an attribute is missing or out of range, or the window does not fit the padded image.
        """
        stride = integers(node, "stride", 2, 1)
        dilation = integers(node, "dilation", 2, 1) if "dilation" in node.attributes else (1, 1)
        top, bottom, left, right = integers(node, "padding", 4, 0)
        height, width, channels = x.shape[1:]
        output = (
            valid_size(height + top + bottom, kernel[0], stride[0], dilation[0]),
            valid_size(width + left + right, kernel[1], stride[1], dilation[1]),
        )
        if min(output) < 1 or max(output) > MAX_SIZE:
            raise GraphError(
                f"kernel {kernel[0]}x{kernel[1]}, dilation {dilation}, padding {(top, bottom, left, right)} "
                f"do not fit the image {height}x{width}"
            )
        return Window(
            (height, width), channels, kernel, (stride[0], stride[1]), (dilation[0], dilation[1]),
            (top, bottom, left, right), output,
        )  # fmt: skip

    @property
    def taps(self) -> int:
        """Positions of the kernel."""
        return self.kernel[0] * self.kernel[1]

    @property
    def is_pointwise(self) -> bool:
        """Whether each output reads one pixel that is on the image."""
        return self.kernel == (1, 1) and not any(self.padding)

    def check_touches_image(self) -> None:
        """Raises GraphError if a window lies in the padding alone, where a pool has nothing to take."""
        for axis, edge in enumerate(("height", "width")):
            before = self.padding[2 * axis]
            last = (self.output[axis] - 1) * self.stride[axis] - before
            if before >= self.kernel[axis] or last >= self.size[axis]:
                raise GraphError(f"padding {self.padding} leaves windows without any pixel of the image's {edge}")

    def patches(self, x: npt.NDArray[T], fill: int) -> npt.NDArray[T]:
        """What lies under each window, as a view [output h, output w, kernel h, kernel w, channels]; `fill` outside."""
        top, bottom, left, right = self.padding
        padded = np.pad(x[0], ((top, bottom), (left, right), (0, 0)), constant_values=fill)
        rows, columns, depth = padded.strides
        strides = (
            rows * self.stride[0], columns * self.stride[1], rows * self.dilation[0], columns * self.dilation[1], depth
        )  # fmt: skip
        return as_strided(padded, (*self.output, *self.kernel, self.channels), strides, writeable=False)

    def fields(self) -> dict[str, str]:
        """Initializers of the nn_window named `window`."""
        pairs = {"output": self.output, "kernel": self.kernel, "stride": self.stride, "dilation": self.dilation}
        values = {"input_h": self.size[0], "input_w": self.size[1], "channels": self.channels}
        values |= {f"{name}_{edge}": pair[i] for name, pair in pairs.items() for i, edge in enumerate("hw")}
        values |= {"padding_top": self.padding[0], "padding_left": self.padding[2]}
        return {f"window.{name}": str(value) for name, value in values.items()}

    def summary(self) -> str:
        """For the layer's comment, e.g. "3x3 s2 same"."""
        height, width = self.stride
        text = f"{self.kernel[0]}x{self.kernel[1]} s{height}" + (f"x{width}" if width != height else "")
        if self.dilation != (1, 1):
            text += f" d{self.dilation[0]}x{self.dilation[1]}"
        return f"{text} {self.padding_name()}"

    def padding_name(self) -> str:
        """ "valid" (none), "same" as TFLite computes it, or the four numbers."""
        if not any(self.padding):
            return "valid"
        if self.padding == same_padding(self.size, self.kernel, self.stride, self.dilation):
            return "same"
        return "pad " + ",".join(map(str, self.padding))


def tflite_window(op: TfliteOperator, options: Any) -> dict[str, Attribute]:
    """stride, dilation, padding and clamp of CONV_2D or DEPTHWISE_CONV_2D; the kernel's size is that of input 1."""
    stride = (int(options.strideH), int(options.strideW))
    dilation = (int(options.dilationHFactor), int(options.dilationWFactor))
    if len(op.input(1).shape) != 4:
        raise GraphError(f"weights '{op.input(1).name}' have the shape {op.input(1).shape}; supported: 4 dimensions")
    padding = op.padding(options.padding, op.input(1).shape[1:3], stride, dilation)
    clamp = op.clamp(options.fusedActivationFunction)
    return {"stride": stride, "dilation": dilation, "padding": padding, "clamp": clamp}


def onnx_window(match: OnnxMatch) -> dict[str, Attribute]:
    """stride, dilation, padding and clamp of a Conv; the kernel's size is that of input 1, OIHW."""
    shape = match.input(1).shape
    if len(shape) != 4:
        raise GraphError(f"Conv with weights {shape}; supported: 2-D convolution, 4 dimensions")
    stride, dilation = match.window("strides"), match.window("dilations")
    padding = match.padding((shape[2], shape[3]), stride, dilation)
    return {"stride": stride, "dilation": dilation, "padding": padding, "clamp": match.int8_clamp()}


def write_window(writer: TfliteWriter, node: Node, window: Window, options: Any) -> int:
    """Fills in the options that both convolutions of TFLite have; returns the input to use, behind a PAD if one is needed."""
    x, options.padding = writer.padded_input(node.inputs[0], window.padding, window.kernel, window.stride, window.dilation)
    options.strideH, options.strideW = window.stride
    options.dilationHFactor, options.dilationWFactor = window.dilation
    options.fusedActivationFunction = writer.fused_activation(clamp_attribute(node), node.outputs[0])
    return x
