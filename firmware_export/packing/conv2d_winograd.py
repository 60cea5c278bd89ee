"""3x3 convolution with stride 1 for runtime/conv2d_winograd.c: fewer instructions than conv2d_r256 for more scratch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from firmware_export.graph import Array, Graph, Node
from firmware_export.operators import Constant, LayerCode
from firmware_export.operators._accumulator import OutputStage
from firmware_export.operators._window import Window
from firmware_export.packing import Unpackable
from firmware_export.packing.operands import conv2d_operands
from firmware_export.packing.r256 import clamp_fields, shortest_form
from firmware_export.packing.requantize_forms import LinearForm, Stage, reachable
from firmware_export.requantize import Int64

SHIFTS = (10, 7, 13)
"""Shifts of the kernels' forms, most usual first."""
GROUP = 4
MAX_CHANNELS = 64
"""NN_WINOGRAD_MAX_GROUPS groups."""
PAIR = 2
KERNEL = 3
TILE = 4
_UNIT = 256
_POINTER_BYTES = 8
"""Of the host; the boards' are 4."""


@dataclass(frozen=True)
class Blocking:
    """How much is transformed at a time: tiles, and whether the kernels' transforms are all kept."""

    tiles: int
    resident: bool

    def scratch_bytes(self, channels: int, outputs: int) -> int:
        """Pointers to outputs, transformed kernels and tiles, a copied tile, outputs that nobody wants."""
        transformed = 32 * channels * (self.tiles + (outputs if self.resident else PAIR))
        return 4 * _POINTER_BYTES * self.tiles + transformed + TILE * TILE * channels + outputs

    def instructions(self, tiles: int, channels: int, outputs: int) -> int:
        """About how many the transforms cost, to choose between ways."""
        kernels = 38 * channels * outputs
        return 53 * channels * tiles + (kernels if self.resident else -(-tiles // self.tiles) * kernels)


def blockings(tiles: int, outputs: int) -> Iterator[Blocking]:
    """Every way that makes sense for so many tiles and output channels."""
    yield Blocking(PAIR, True)
    for passes in range(1, tiles // PAIR + 1):
        yield Blocking(-(-tiles // (passes * PAIR)) * PAIR, False)


def tile_counts(window: Window) -> tuple[int, int]:
    """Tiles along height and width."""
    return -(-window.output[0] // 2), -(-window.output[1] // 2)


def best_blocking(window: Window, outputs: int, scratch_limit: int) -> Blocking:
    """The one with the fewest instructions whose scratch is within the limit.

    Raises:
        Unpackable: there is none.
    """
    rows, columns = tile_counts(window)
    fitting = [b for b in blockings(rows * columns, outputs) if b.scratch_bytes(window.channels, outputs) <= scratch_limit]
    if not fitting:
        raise Unpackable(f"no blocking needs at most {scratch_limit:,} bytes of scratch")
    return min(fitting, key=lambda b: (b.instructions(rows * columns, window.channels, outputs), b.tiles))


def winograd_code(
    window: Window,
    weights: Array,
    bias: Int64,
    zero_point: int,
    stage: OutputStage,
    *,
    scratch_limit: int,
    blocking: Blocking | None = None,
) -> LayerCode:
    """The call of a kernel of conv2d_winograd.c.

    Args:
        weights: int8 [outputs, 3, 3, channels].
        bias: [outputs], at the scale of the sums, without the zero point.
        zero_point: of the input, int8 [1, h, w, channels].
        scratch_limit: bytes that the kernel may use; more makes it faster.
        blocking: None for the best one.
    Raises:
        Unpackable: not a 3x3 window with stride 1, channels that are no multiple of 4 or more than 64, an odd number of
            outputs, an output stage without short form, or too little scratch. The fallback is conv2d_r256.
    """
    outputs = weights.shape[0]
    _check(window, outputs)
    blocking = blocking or best_blocking(window, outputs, scratch_limit)
    matrix = weights.reshape(outputs, -1).astype(np.int64)
    low, high = reachable(matrix, bias, zero_point)
    form = shortest_form(Stage.of(stage, low, high), SHIFTS)
    if form is None:
        raise Unpackable("no short form of the output stage is exact")
    live = ~form.constant
    matrix = np.where(live[:, None], matrix, 0)
    start = _UNIT * (np.where(live, bias, 0) - zero_point * matrix.sum(1)) + form.start
    negative = np.zeros(outputs, np.int64) if isinstance(form, LinearForm) else form.negative
    constants = (np.stack([start, form.factor, negative], 1) & 0xFFFFFFFF).astype(np.uint32).view(np.int32)
    values = {"outputs": outputs, "tiles": blocking.tiles, "resident": int(blocking.resident), "fill": zero_point}
    values |= {"rounding": getattr(form, "rounding", 0)}
    fields = {"weights": "{weights}", "constants": "{constants}"} | {name: str(value) for name, value in values.items()}
    return LayerCode(
        function=f"nn_conv2d_winograd_shift_{form.shift}",
        params_type="nn_conv2d_winograd_params",
        fields=fields | window.fields() | clamp_fields(stage),
        constants=(Constant("weights", matrix.astype(np.int8)), Constant("constants", constants)),
        sources=("conv2d_winograd.c", "step_winograd.c", "step_winograd_transforms.c", "patch.c"),
        scratch_bytes=blocking.scratch_bytes(window.channels, outputs),
        distances=(distance(window, outputs, blocking),),
        summary=f"{window.summary()}, {'x'.join(map(str, (*window.size, window.channels)))} -> "
        f"{'x'.join(map(str, (*window.output, outputs)))}, winograd, {blocking.tiles} tiles",
    )


def _check(window: Window, outputs: int) -> None:
    if window.kernel != (KERNEL, KERNEL) or window.stride != (1, 1) or window.dilation != (1, 1):
        raise Unpackable(f"a window of {window.kernel}, stride {window.stride}, dilation {window.dilation}")
    if window.channels % GROUP or window.channels > MAX_CHANNELS or outputs % PAIR:
        raise Unpackable(f"{window.channels} channels and {outputs} outputs")


def winograd_layer(graph: Graph, node: Node, *, scratch_limit: int, blocking: Blocking | None = None) -> LayerCode:
    """winograd_code of a checked conv2d node.

    Raises:
        Unpackable: see winograd_code; the fallback is conv2d_r256.
    """
    return winograd_code(*conv2d_operands(graph, node), scratch_limit=scratch_limit, blocking=blocking)


def distance(window: Window, outputs: int, blocking: Blocking) -> int:
    """How many bytes the output must begin before the input at least, if they overlap; negative: it may begin behind.

    The kernel reads the 4x4 pixels of `tiles` tiles, row by row of tiles, then writes their 2x2 outputs.
    """
    rows, columns = tile_counts(window)
    row, column = (index.reshape(-1) for index in np.indices((rows, columns)))
    top = np.clip(2 * row - window.padding[0], 0, window.size[0])
    left = np.clip(2 * column - window.padding[2], 0, window.size[1])
    needed = np.minimum.accumulate(((top * window.size[1] + left) * window.channels)[::-1])[::-1]
    bottom, right = np.minimum(2 * row + 2, window.output[0]) - 1, np.minimum(2 * column + 2, window.output[1])
    written = np.maximum.accumulate((bottom * window.output[1] + right) * outputs)
    ends = np.arange(blocking.tiles, rows * columns, blocking.tiles)
    if ends.size == 0:
        return -window.size[0] * window.size[1] * window.channels
    return int((written[ends - 1] - needed[ends]).max())
