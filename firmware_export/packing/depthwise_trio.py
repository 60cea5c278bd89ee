"""3x3 depthwise convolution for runtime/depthwise_trio.c: strides 1 and 2, in place, for Cortex-M3 and M0+."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

import numpy as np

from firmware_export.graph import Array, Graph, Node
from firmware_export.operators import Constant, LayerCode
from firmware_export.operators._accumulator import OutputStage, int8_weights, int32_bias
from firmware_export.operators._checks import int8_image
from firmware_export.operators._window import Window
from firmware_export.packing import Unpackable
from firmware_export.packing.planes import KERNEL, Edge, edges_of
from firmware_export.packing.r256 import clamp_fields
from firmware_export.packing.requantize_forms import Stage, reachable
from firmware_export.packing.trio import form_constants
from firmware_export.packing.trio_forms import NARROW, find_form
from firmware_export.requantize import Int64

PLACES = 3
PAIR_BYTES = 8
INSTRUCTIONS = {"v7m": (57, 11, 250), "v6m": (155, 13, 400)}
"""Of three outputs, of a pair, of what else a channel needs."""


@dataclass(frozen=True)
class Places:
    """Rows of outputs shared out among three places. inner: the axis along the rows. transposed: it is the image's height."""

    stride: int
    inner: Edge
    outer: Edge
    transposed: bool

    @property
    def rows(self) -> int:
        """Of outputs in each place."""
        return -(-self.outer.outputs // PLACES)

    @property
    def begins(self) -> tuple[int, int, int]:
        """The first row of outputs in each place. Places overlap where the rows are no multiple of three."""
        last = self.outer.outputs - self.rows
        return 0, min(self.rows, last), last

    @property
    def x_rows(self) -> int:
        """Rows of pairs."""
        return (self.rows - 1) * self.stride + KERNEL

    @property
    def x_columns(self) -> int:
        """Pairs in a row."""
        return (self.inner.outputs - 1) * self.stride + KERNEL

    @property
    def scratch_bytes(self) -> int:
        """All pairs."""
        return self.x_rows * self.x_columns * PAIR_BYTES

    def instructions(self, core_class: str = "v7m") -> int:
        """About how many a channel takes, to choose between two ways or kernels."""
        trio, pair, rest = INSTRUCTIONS[core_class]
        return self.rows * (trio * self.inner.outputs + 14) + self.x_rows * (pair * self.x_columns + 20) + rest

    def image_rows(self) -> list[int]:
        """The row of the image that is the first row of pairs, in each place."""
        return [begin * self.stride - self.outer.before for begin in self.begins]

    def runs(self) -> list[int]:
        """How many neighbouring rows of pairs lie on the image in the same places, and in which: bits 0 to 2."""
        masks = [
            sum((0 <= begin + row < self.outer.size) << place for place, begin in enumerate(self.image_rows()))
            for row in range(self.x_rows)
        ]
        return [number for mask, rows in groupby(masks) for number in (len(list(rows)), mask)]

    def fields(self) -> dict[str, int]:
        """Values of the C struct."""
        begins = self.begins
        values = {f"begins[{place}]": row for place, row in enumerate(self.image_rows())}
        values |= {f"apart[{place}]": begins[place + 1] * self.outer.output_step for place in (0, 1)}
        return values | {
            "pixel_step": self.inner.step,
            "image_row_step": self.outer.step,
            "output_step": self.inner.output_step,
            "output_row_step": self.outer.output_step,
            "rows": self.rows,
            "columns": self.inner.outputs,
            "pixels": min(self.inner.size, self.x_columns - self.inner.before),
            "first": self.inner.before,
            "x_columns": self.x_columns,
            "x_rows": self.x_rows,
            "stride": self.stride,
        }


def choose_places(window: Window) -> Places:
    """The cheaper way for a window.

    Raises:
        Unpackable: the window is not 3x3 with stride 1 or 2, or does not reach the image.
    """
    edges = edges_of(window)
    ways = [Places(window.stride[0], edges[inner], edges[1 - inner], inner == 0) for inner in (1, 0)]
    usable = [way for way in ways if way.x_columns > way.inner.before]
    if not usable:
        raise Unpackable(f"padding {window.padding} before an image of {window.size}")
    return min(usable, key=Places.instructions)


def depthwise_code(
    window: Window, weights: Array, bias: Int64, zero_point: int, stage: OutputStage, *, core_class: str
) -> LayerCode:
    """The call of a kernel of depthwise_trio.c.

    Args:
        weights: int8 [1, 3, 3, channels].
        bias: [channels], at the scale of the sums, without the zero point.
        zero_point: of the input, int8 [1, h, w, channels].
        core_class: "v7m" or "v6m", which run the same call.
    Raises:
        Unpackable: see choose_places, channels are multiplied, or no form is exact; the fallback is depthwise_conv2d.c.
    """
    channels = weights.shape[3]
    if channels != window.channels:
        raise Unpackable(f"{channels // window.channels} outputs for each channel")
    places = choose_places(window)
    matrix = weights[0].astype(np.int64).transpose((2, 1, 0) if places.transposed else (2, 0, 1)).reshape(channels, -1)
    low, high = reachable(matrix, bias, zero_point)
    form = find_form(Stage.of(stage, low, high), NARROW)
    if form is None:
        raise Unpackable("no short form of the output stage is exact")
    matrix = np.where(form.constant[:, None], 0, matrix)
    table = form_constants(form, bias - zero_point * matrix.sum(1), columns=3 if form.is_signed else 2)
    values = places.fields() | {"channels": channels, "shift": form.shift, "rounding": form.rounding, "fill": zero_point}
    values |= {"output_bytes": window.output[0] * window.output[1] * channels}
    tables = {name: f"{{{name}}}" for name in ("weights", "constants", "runs")}
    kernel = "signed" if form.is_signed else "linear"
    return LayerCode(
        function=f"nn_depthwise_trio_{kernel}",
        params_type="nn_depthwise_trio_params",
        fields=tables | {name: str(value) for name, value in values.items()} | clamp_fields(stage),
        constants=(
            Constant("weights", matrix.astype(np.int8)),
            Constant("constants", (table & 0xFFFFFFFF).astype(np.uint32).view(np.int32)),
            Constant("runs", np.array(places.runs(), np.uint16)),
        ),
        sources=("depthwise_trio.c", "step_trio_depthwise.c", "step_trio_depthwise_v7m.c", "step_trio_depthwise_v6m.c"),
        scratch_bytes=places.scratch_bytes,
        summary=f"{window.summary()}, {'x'.join(map(str, (*window.size, channels)))} -> "
        f"{'x'.join(map(str, (*window.output, channels)))}, trio {kernel}",
        in_place=(True,),
        instructions=channels * places.instructions(core_class),
    )


def depthwise_layer(graph: Graph, node: Node, *, core_class: str) -> LayerCode:
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
    return depthwise_code(window, weights.data, sums, x.zero_point, stage, core_class=core_class)
