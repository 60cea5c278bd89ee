"""Depthwise convolution for runtime/depthwise_mve.c: windows up to 3x3, any stride; twelve bytes and two words a channel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from firmware_export.graph import Array, Graph, Node
from firmware_export.operators import Constant, LayerCode
from firmware_export.operators._accumulator import OutputStage
from firmware_export.operators._window import Window
from firmware_export.packing import Unpackable
from firmware_export.packing.mve import clamp_fields, requantization_form
from firmware_export.packing.operands import depthwise_operands
from firmware_export.packing.requantize_forms import reachable
from firmware_export.requantize import Int64

WINDOW, STRIP_ROWS = 3, 4
"""Of runtime/step_depthwise_mve.h."""
OVERFLOW = 64
"""Bytes of the strip that are written for the last few elements at most."""
STEP_COLUMNS = {2: 2, 1: 4}
"""Columns of outputs at a time, by rows at a time."""
STEP_INSTRUCTIONS = {2: 18, 1: 23}
CHANNEL_INSTRUCTIONS = 20


@dataclass(frozen=True)
class Strips:
    """How the kernel walks: rows of outputs at a time, 1 or 2; transposed: its rows are columns of the image."""

    window: Window
    rows: int
    transposed: bool

    @staticmethod
    def of(window: Window, *, small: bool = False) -> Strips:
        """The way with the fewest instructions; small: among those whose rows are the image's, which overlap their input."""
        ways = [Strips(window, rows, transposed) for transposed in ((False,) if small else (False, True)) for rows in (2, 1)]
        return min((way for way in ways if way.possible), key=lambda way: way.instructions)

    @property
    def possible(self) -> bool:
        """Two rows at a time need stride 1 and two rows and columns."""
        return self.rows == 1 or (self.window.stride == (1, 1) and min(self.window.output) > 1)

    def turned(self, pair: tuple[int, int]) -> tuple[int, int]:
        """(h, w) -> (rows, columns)."""
        return (pair[1], pair[0]) if self.transposed else pair

    @property
    def columns(self) -> int:
        """Of the strip."""
        return (self.turned(self.window.output)[1] - 1) * self.turned(self.window.stride)[1] + WINDOW

    @property
    def instructions(self) -> int:
        """About how many the steps execute."""
        rows, columns = self.turned(self.window.output)
        step = CHANNEL_INSTRUCTIONS + STEP_INSTRUCTIONS[self.rows] * -(-columns // STEP_COLUMNS[self.rows])
        loads = self.columns * (max(1, self.window.channels // 16) * 13 + (30 if self.transposed else 0))
        return -(-rows // self.rows) * (self.window.channels * step + loads)

    @property
    def scratch_bytes(self) -> int:
        """The strip, and what is read of it for columns that are missing where there are few."""
        columns = self.turned(self.window.output)[1]
        missing = max(0, STEP_COLUMNS[self.rows] - columns) if self.rows == 1 else 0
        pitch = STRIP_ROWS * self.window.channels
        return pitch * (self.columns + missing * self.turned(self.window.stride)[1]) + OVERFLOW

    def fields(self) -> dict[str, int]:
        """Values of the C struct."""
        channels = self.window.channels
        row_bytes, output_row_bytes = self.window.size[1] * channels, self.window.output[1] * channels
        pairs = {"bytes": (row_bytes, channels), "output_bytes": (output_row_bytes, channels), "size": self.window.size}
        pairs |= {"output": self.window.output, "stride": self.window.stride}
        pairs |= {"padding": (self.window.padding[0], self.window.padding[2])}
        names = {"bytes": "{}_bytes", "output_bytes": "output_{}_bytes"}
        return {"channels": channels} | {
            names.get(name, name + "_{}s").format(edge): value
            for name, pair in pairs.items()
            for edge, value in zip(("row", "column"), self.turned(pair), strict=True)
        }


def depthwise_code(
    window: Window, weights: Array, bias: Int64, zero_point: int, stage: OutputStage, *, small: bool = False
) -> LayerCode:
    """The call of a kernel of depthwise_mve.c.

    Args:
        weights: int8 [1, kernel h, kernel w, channels].
        bias: [channels], at the scale of the sums, without the zero point.
        zero_point: of the input, int8 [1, h, w, channels].
        small: whether memory counts more than instructions, see Strips.of.
    Raises:
        Unpackable: the window is larger than 3x3 or dilated, channels are multiplied, a factor is 1 or more, or
            mve.requantization_form. The fallback is depthwise_conv2d.c.
    """
    channels = weights.shape[3]
    if channels != window.channels:
        raise Unpackable(f"{channels // window.channels} outputs for each channel")
    if max(window.kernel) > WINDOW or window.dilation != (1, 1):
        raise Unpackable(f"a window of {window.kernel}, dilation {window.dilation}")
    matrix = weights[0].reshape(-1, channels).T.astype(np.int64)
    form = requantization_form(stage, *reachable(matrix, bias, zero_point))
    if form == "general":
        raise Unpackable("a factor is 1/2 or more and not clamped at the zero point")
    strips = Strips.of(window, small=small)
    values = strips.fields() | {"fill": zero_point}
    return LayerCode(
        function=f"nn_depthwise_mve_{'two_rows' if strips.rows == 2 else 'one_row'}_{form}",
        params_type="nn_depthwise_mve_params",
        fields={"records": "{weights}"} | {name: str(value) for name, value in values.items()} | clamp_fields(stage),
        constants=(Constant("weights", _records(weights[0], bias, zero_point, stage, transposed=strips.transposed)),),
        sources=("depthwise_mve.c", "step_depthwise_mve.c", "step_mve.c"),
        scratch_bytes=strips.scratch_bytes,
        distances=(distance(strips),),
        instructions=strips.instructions,
        summary=f"{window.summary()}, {window.size[0]}x{window.size[1]}x{channels}, mve {strips.rows} "
        f"{'columns' if strips.transposed else 'rows'} {form}",
    )


def depthwise_layer(graph: Graph, node: Node, *, small: bool = False) -> LayerCode:
    """depthwise_code of a checked depthwise_conv2d node.

    Raises:
        Unpackable: see depthwise_code; the fallback is depthwise_conv2d.c.
    """
    return depthwise_code(*depthwise_operands(graph, node), small=small)


def _records(weights: Array, bias: Int64, zero_point: int, stage: OutputStage, *, transposed: bool) -> npt.NDArray[np.uint32]:
    """Weights [kernel h, kernel w, channels] -> a channel's int8 [3 columns][4], the shift at [0][3], start, multiplier."""
    turned = weights.astype(np.int64) if transposed else weights.astype(np.int64).swapaxes(0, 1)
    columns, rows, channels = turned.shape
    places = np.zeros((channels, WINDOW, STRIP_ROWS), np.int8)
    places[:, :columns, :rows] = turned.transpose(2, 0, 1)
    places[:, 0, WINDOW] = stage.shift
    start = bias - zero_point * turned.sum((0, 1))
    words = [start.astype(np.int32)[:, None], stage.multiplier.astype(np.int32)[:, None]]
    return np.concatenate([places.reshape(channels, -1).view(np.int32), *words], 1).view(np.uint32).reshape(-1)


def distance(strips: Strips) -> int | None:
    """How many bytes the output must begin before the input at least, if they overlap; None: they must not.

    A strip is copied before its outputs are written: they must not reach the first image row that a later strip begins at.
    """
    if strips.transposed:
        return None
    window, rows = strips.window, strips.rows
    starts = np.minimum(np.arange(0, window.output[0], rows), window.output[0] - rows)
    written = (starts[:-1] + rows) * window.output[1] * window.channels
    needed = np.maximum(starts[1:] * window.stride[0] - window.padding[0], 0) * window.size[1] * window.channels
    return int((written - needed).max(initial=-window.size[0] * window.size[1] * window.channels))
