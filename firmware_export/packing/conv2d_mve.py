"""2-D convolution for runtime/conv2d_mve.c: any window, any channels, weights at one byte each."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from firmware_export.graph import Array, Graph, Node
from firmware_export.operators import Constant, LayerCode
from firmware_export.operators._accumulator import OutputStage
from firmware_export.operators._checks import MAX_SIZE
from firmware_export.operators._window import Window
from firmware_export.packing.mve import BLOCKS, GROUP, VECTOR, clamp_fields, pack
from firmware_export.packing.operands import conv2d_operands
from firmware_export.requantize import Int64

PIXELS = 2
"""That the kernel computes at a time."""


@dataclass(frozen=True)
class Reading:
    """How the kernel reads what lies under a window: rows of vectors * 16 + tail bytes; tail only if there is one row.

    gathered: the window is copied and read as one row.
    """

    rows: int
    vectors: int
    tail: int
    gathered: bool

    @staticmethod
    def of(window: Window) -> Reading:
        """From the image where rows are whole vectors or there is one row."""
        row = window.kernel[1] * window.channels
        scattered = window.dilation[1] > 1 and window.kernel[1] > 1
        if scattered or (row % VECTOR and window.kernel[0] > 1):
            return Reading(1, *divmod(window.kernel[0] * row, VECTOR), gathered=True)
        return Reading(window.kernel[0], *divmod(row, VECTOR), gathered=False)


def conv2d_code(window: Window, weights: Array, bias: Int64, zero_point: int, stage: OutputStage) -> LayerCode:
    """The call of a kernel of conv2d_mve.c.

    Args:
        weights: int8 [outputs, kernel h, kernel w, channels].
        bias: [outputs], at the scale of the sums, without the zero point.
        zero_point: of the input, int8 [1, h, w, channels].
    Raises:
        Unpackable: see mve.pack; the fallback is conv2d.c.
    """
    outputs = weights.shape[0]
    summary = f"{window.summary()}, {'x'.join(map(str, (*window.size, window.channels)))}"
    summary += f" -> {'x'.join(map(str, (*window.output, outputs)))}"
    window = _as_one_row(window)
    reading = Reading.of(window)
    records = pack(weights.reshape(outputs, -1).astype(np.int64), bias, zero_point, stage)
    values = {"words": records.words.size, "outputs": outputs, "rows": reading.rows, "vectors": reading.vectors}
    values |= {"tail": reading.tail, "gathered": int(reading.gathered), "fill": zero_point}
    fields = {"weights": "{weights}"} | {name: str(value) for name, value in values.items()} | window.fields()
    return LayerCode(
        function=f"nn_conv2d_mve_{records.form}",
        params_type="nn_conv2d_mve_params",
        fields=fields | clamp_fields(stage),
        constants=(Constant("weights", records.words),),
        sources=("conv2d_mve.c", "step_mve.c", "patch.c"),
        scratch_bytes=_scratch_bytes(window, reading),
        distances=(distance(window, outputs),),
        instructions=_instructions(window, reading, outputs),
        summary=f"{summary}, mve {records.form}",
    )


def conv2d_layer(graph: Graph, node: Node) -> LayerCode:
    """conv2d_code of a checked conv2d node.

    Raises:
        Unpackable: see mve.pack; the fallback is conv2d.c.
    """
    return conv2d_code(*conv2d_operands(graph, node))


def _as_one_row(window: Window) -> Window:
    """A 1x1 window with stride 1 sees no rows: all pixels in one row spare the kernel their ends."""
    pixels = window.size[0] * window.size[1]
    if not window.is_pointwise or window.stride != (1, 1) or pixels > MAX_SIZE:
        return window
    return replace(window, size=(1, pixels), output=(1, pixels))


def _instructions(window: Window, reading: Reading, outputs: int) -> int:
    """About how many the kernel executes."""
    products = 14 * reading.rows * reading.vectors + 7 * (reading.rows - 1) + (22 if reading.tail else 0)
    pair = 50 + -(-outputs // GROUP) * (68 + BLOCKS * products)
    inside, all_pixels = _inside(window), window.output[0] * window.output[1]
    vectors = -(-window.kernel[1] * window.channels // VECTOR)
    copies = (all_pixels - inside) * (80 + window.kernel[0] * (20 + 8 * vectors))
    if reading.gathered:
        copies += inside * (20 + 4 * window.kernel[0] if vectors == 1 else 50 + window.kernel[0] * (8 + 3 * vectors))
    return window.output[0] * -(-window.output[1] // PIXELS) * pair + copies


def _inside(window: Window) -> int:
    """Outputs whose windows lie on the image."""
    counts = []
    for axis in (0, 1):
        begin = np.arange(window.output[axis]) * window.stride[axis] - window.padding[2 * axis]
        end = begin + (window.kernel[axis] - 1) * window.dilation[axis]
        counts.append(int(np.count_nonzero((begin >= 0) & (end < window.size[axis]))))
    return counts[0] * counts[1]


def _scratch_bytes(window: Window, reading: Reading) -> int:
    """Two copied windows, a vector behind each that may be written too; the least there is where none is copied."""
    if _inside(window) == window.output[0] * window.output[1] and not reading.gathered:
        return VECTOR
    return PIXELS * (-(-window.taps * window.channels // VECTOR) + 1) * VECTOR


def distance(window: Window, outputs: int) -> int:
    """How many bytes the output must begin before the input at least, if they overlap; negative: it may begin behind.

    The kernel reads the windows of two pixels of a row again for every eight channels that it writes: the last byte of the two
    outputs must not lie behind the first byte that they or later ones need. Scratch overlaps neither.
    """
    rows, columns = np.arange(window.output[0])[:, None], np.arange(window.output[1])[None, :]
    top = np.maximum(rows * window.stride[0] - window.padding[0], 0)
    left = np.maximum(columns * window.stride[1] - window.padding[2], 0)
    first = (np.minimum(top, window.size[0]) * window.size[1] + np.minimum(left, window.size[1])) * window.channels
    needed = np.minimum.accumulate(first.reshape(-1)[::-1])[::-1].reshape(first.shape)
    written = (rows * window.output[1] + np.minimum(columns + PIXELS, window.output[1])) * outputs
    return int((written - needed)[:, ::PIXELS].max())
