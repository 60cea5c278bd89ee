"""3x3 depthwise convolution for runtime/depthwise_planes.c: strides 1 and 2, in place, nine bytes and two words a channel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from firmware_export.graph import Array, Graph, Node
from firmware_export.operators import Constant, LayerCode
from firmware_export.operators._accumulator import OutputStage, int8_weights, int32_bias
from firmware_export.operators._checks import int8_image
from firmware_export.operators._window import Window
from firmware_export.packing import Unpackable
from firmware_export.packing.r256 import clamp_fields
from firmware_export.packing.requantize_forms import LinearForm, Stage, linear_form, reachable
from firmware_export.requantize import Int64

SHIFTS = (7, 10)
"""Shifts of the kernels' linear forms, in the order in which they are tried."""
GROUP = 4
"""Channels that the fast copy takes at a time."""
PITCHES = {"": 128, "_wide": 256}
"""Bytes from a row of a plane to the next, by the end of the C function's name."""
KERNEL = 3
_WORD = 4
_UNIT = 256


@dataclass(frozen=True)
class Edge:
    """One axis of the image: pixels, padding before, outputs, and bytes from a pixel to the next and an output to the next."""

    size: int
    before: int
    outputs: int
    step: int
    output_step: int


@dataclass(frozen=True)
class Planes:
    """How the image lies in planes. inner: the axis along the planes' rows. All counts as in nn_depthwise_planes_params."""

    stride: int
    inner: Edge
    outer: Edge
    pitch: int

    @property
    def words(self) -> int:
        """Words of two pixels that give outputs."""
        return self.inner.outputs // 2 if self.stride == 1 else self.inner.outputs

    @property
    def alone(self) -> int:
        """Whether a row has one more output."""
        return self.inner.outputs % 2 if self.stride == 1 else 0

    @property
    def row_words(self) -> int:
        """Words that are read of a row."""
        return self.words + 1 + self.alone

    @property
    def rows(self) -> int:
        """Of a plane."""
        return (self.outer.outputs - 1) * self.stride + KERNEL

    @property
    def copied(self) -> tuple[int, int]:
        """Rows of the image, and pixels of each, that lie in the planes; the rest is in no window."""
        return min(self.outer.size, self.rows - self.outer.before), min(self.inner.size, 2 * self.row_words - self.inner.before)

    @property
    def instructions(self) -> int:
        """About how many a plane costs, to choose between two ways."""
        return self.outer.outputs * (16 + (24 if self.stride == 1 else 15) * self.words + 14 * self.alone)

    def fields(self) -> dict[str, int]:
        """Values of the C struct."""
        rows, pixels = self.copied
        lead = self.inner.before % 2
        pairs, trail = divmod(pixels - lead, 2)
        return {
            "plane_bytes": self.rows * self.pitch,
            "first": self.outer.before * self.pitch + self.inner.before // 2 * _WORD,
            "pixel_step": self.inner.step,
            "row_step": self.outer.step - pixels * self.inner.step,
            "plane_row_step": self.pitch - (lead + pairs + trail) * _WORD,
            "output_step": self.inner.output_step,
            "output_skip": self.outer.output_step - (self.inner.outputs - self.alone) * self.inner.output_step,
            "plane_skip": self.stride * self.pitch - self.words * _WORD,
            "border_words": self.row_words - (lead + pairs + trail),
            "copy_rows": rows,
            "pairs": pairs,
            "words": self.words,
            "rows": self.outer.outputs,
            "lead": lead,
            "trail": trail,
            "alone": self.alone,
        }


def planes_of(window: Window) -> tuple[Planes, bool]:
    """The cheaper of both directions; whether it runs along the image's columns, so that kernels are transposed.

    Raises:
        Unpackable: the window is not 3x3 with stride 1 or 2, or the image is too wide.
    """
    if window.kernel != (KERNEL, KERNEL) or window.stride not in ((1, 1), (2, 2)) or window.dilation != (1, 1):
        raise Unpackable(f"a window of {window.kernel}, stride {window.stride}, dilation {window.dilation}")
    steps, output_steps = _steps(window.size[1], window.channels), _steps(window.output[1], window.channels)
    edges = [Edge(window.size[i], window.padding[2 * i], window.output[i], steps[i], output_steps[i]) for i in (0, 1)]
    found = []
    for inner in (1, 0):
        for pitch in PITCHES.values():
            planes = Planes(window.stride[0], edges[inner], edges[1 - inner], pitch)
            if planes.row_words * _WORD <= pitch and min(planes.copied) > 0:
                found.append((planes.instructions, pitch, 1 - inner, planes))
    if not found:
        raise Unpackable(f"an image of {window.size[0]}x{window.size[1]} pixels with padding {window.padding}")
    _, _, transposed, planes = min(found, key=lambda way: way[:3])
    return planes, bool(transposed)


def _steps(width: int, channels: int) -> tuple[int, int]:
    """Bytes from a row to the next, and from a pixel to the next."""
    return width * channels, channels


def depthwise_code(
    window: Window,
    weights: Array,
    bias: Int64,
    zero_point: int,
    stage: OutputStage,
    *,
    group: int = GROUP,
    shifts: tuple[int, ...] = SHIFTS,
) -> LayerCode:
    """The call of a kernel of depthwise_planes.c.

    Args:
        weights: int8 [1, 3, 3, channels].
        bias: [channels], at the scale of the sums, without the zero point.
        zero_point: of the input, int8 [1, h, w, channels].
        group: 4, or 1 for a fourth of the scratch and some more instructions.
        shifts: of the form, in the order in which they are tried.
    Raises:
        Unpackable: the window is not 3x3 with stride 1 or 2, channels are multiplied, the image is too wide, or an output stage
            has no linear form. The fallback is depthwise_conv2d.c.
    """
    channels = weights.shape[3]
    if channels != window.channels:
        raise Unpackable(f"{channels // window.channels} outputs for each channel")
    planes, transposed = planes_of(window)
    taps = weights[0].astype(np.int64).transpose(2, 1, 0) if transposed else weights[0].astype(np.int64).transpose(2, 0, 1)
    matrix = taps.reshape(channels, -1)
    low, high = reachable(matrix, bias, zero_point)
    form = _linear(Stage(stage.multiplier, stage.shift, stage.zero_point, low, high), shifts)
    matrix = np.where(form.constant[:, None], 0, matrix)
    sums = np.where(form.constant, 0, bias) - zero_point * matrix.sum(1)
    constants = np.stack([_UNIT * sums + form.start, form.factor], 1) & 0xFFFFFFFF
    used = group if channels >= GROUP else 1
    name = next(name for name, pitch in PITCHES.items() if pitch == planes.pitch)
    values = planes.fields() | {"channels": channels, "group": used, "fill": zero_point}
    values |= {"output_bytes": window.output[0] * window.output[1] * channels}
    fields = {"weights": "{weights}", "constants": "{constants}"} | {key: str(value) for key, value in values.items()}
    return LayerCode(
        function=f"nn_depthwise_planes_s{planes.stride}_{form.shift}{name}",
        params_type="nn_depthwise_planes_params",
        fields=fields | clamp_fields(stage),
        constants=(
            Constant("weights", np.pad(matrix.reshape(-1), (0, 3)).astype(np.int8)),
            Constant("constants", constants.astype(np.uint32).view(np.int32)),
        ),
        sources=("depthwise_planes.c", "step_depthwise.c"),
        scratch_bytes=used * planes.rows * planes.pitch,
        summary=f"{window.summary()}, {'x'.join(map(str, (*window.size, channels)))} -> "
        f"{'x'.join(map(str, (*window.output, channels)))}, planes linear_{form.shift}",
    )


def _linear(stage: Stage, shifts: tuple[int, ...]) -> LinearForm:
    reason = Unpackable("no shift was tried")
    for shift in shifts:
        try:
            return linear_form(stage, shift)
        except Unpackable as error:
            reason = error
    raise reason


def depthwise_layer(graph: Graph, node: Node, *, group: int = GROUP, shifts: tuple[int, ...] = SHIFTS) -> LayerCode:
    """depthwise_code of a checked depthwise_conv2d node.

    Raises:
        Unpackable: see depthwise_code; the fallback is depthwise_conv2d.c.
    """
    x, weights = int8_image(graph, node), int8_weights(graph, node, rank=4, axis=3)
    assert weights.data is not None
    outputs = weights.shape[3]
    bias = int32_bias(graph, node, outputs)
    sums = np.zeros(outputs, np.int64) if bias is None else bias.reshape(-1).astype(np.int64)
    window = Window.of(node, x, (weights.shape[1], weights.shape[2]))
    stage = OutputStage.of(graph, node, outputs)
    return depthwise_code(window, weights.data, sums, x.zero_point, stage, group=group, shifts=shifts)
