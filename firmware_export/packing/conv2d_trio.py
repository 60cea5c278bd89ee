"""2-D convolution for runtime/conv2d_trio.c: any window, any channels, weights at one byte each, for Cortex-M3 and M0+."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from firmware_export.graph import Array, Graph, Node
from firmware_export.operators import Constant, LayerCode
from firmware_export.operators._accumulator import OutputStage, int8_weights, int32_bias
from firmware_export.operators._checks import int8_image
from firmware_export.operators._window import Window
from firmware_export.packing import Unpackable
from firmware_export.packing.conv2d_r256 import _as_one_row
from firmware_export.packing.r256 import clamp_fields
from firmware_export.packing.requantize_forms import Stage, reachable
from firmware_export.packing.trio import (
    PIXELS,
    STEP_BYTES,
    Records,
    as_words,
    even,
    fits,
    form_code,
    form_constants,
    pack_records,
)
from firmware_export.packing.trio_forms import NARROW, WIDE, Form, find_form
from firmware_export.planning.reach import distance_in_groups
from firmware_export.requantize import Int64

MAX_PASSES = 64
INSTRUCTIONS = {"v7m": (6.2, 60, 13, 150), "v6m": (10.3, 240, 27, 300)}


@dataclass(frozen=True)
class Reading:
    """How the kernel reads what lies under a window: passes x rows x row_bytes, gathered or from the image."""

    passes: int
    rows: int
    row_bytes: int
    gathered: bool

    @property
    def depth(self) -> int:
        """Elements of one pass."""
        return self.rows * self.row_bytes


def choose_reading(window: Window, weights: Int64) -> Reading:
    """The one with the fewest passes in which the sums of weights [outputs, depth] fit, copied windows last.

    Raises:
        Unpackable: more than MAX_PASSES are needed.
    """
    depth, rows = weights.shape[1], window.kernel[0]
    scattered = window.dilation[1] > 1 and window.kernel[1] > 1
    enough = [
        passes
        for passes in range(1, min(MAX_PASSES, depth) + 1)
        if depth % passes == 0 and all(fits(part) for part in np.split(weights, passes, axis=1))
    ]
    for passes in enough:
        if not scattered and rows == 1:
            return Reading(passes, 1, depth // passes, gathered=False)
        if not scattered and rows % passes == 0:
            return Reading(passes, rows // passes, depth // rows, gathered=False)
    if not enough:
        raise Unpackable(f"the sums need more than {MAX_PASSES} passes")
    return Reading(enough[0], 1, depth // enough[0], gathered=True)


def conv2d_code(
    window: Window, weights: Array, bias: Int64, zero_point: int, stage: OutputStage, *, core_class: str
) -> LayerCode:
    """The call of a kernel of conv2d_trio.c.

    Args:
        weights: int8 [outputs, kernel h, kernel w, channels].
        bias: [outputs], at the scale of the sums, without the zero point.
        zero_point: of the input, int8 [1, h, w, channels].
        core_class: "v7m" or "v6m".
    Raises:
        Unpackable: an accumulator may leave int32, or see choose_reading; the fallback is conv2d.c.
    """
    outputs = weights.shape[0]
    matrix = weights.astype(np.int64).reshape(outputs, -1)
    low, high = reachable(matrix, bias, zero_point)
    accumulators = Stage.of(stage, low, high)
    form = find_form(accumulators, NARROW)
    live = _live(matrix, form)
    reading = choose_reading(window, live)
    is_wide = form is None or reading.passes > 1
    if is_wide:
        form = find_form(accumulators, WIDE)
        live = _live(matrix, form)
    sums = bias - zero_point * live.sum(1)
    flipped = core_class == "v6m"
    records, constants = _wide(live, reading, form, sums, flipped) if is_wide else _narrow(live, form, sums, flipped)
    flat = _spread_as_one_column(window) if reading.gathered else _as_one_row(_spread_as_one_column(window))
    values = {"limit": records.limit, "pass_bytes": records.data.size // reading.passes, "row_bytes": reading.row_bytes}
    values |= {"depth": even(reading.depth), "outputs": outputs, "rows": reading.rows, "passes": reading.passes}
    values |= {"gathered": int(reading.gathered), "form": form_code(form), "fill": zero_point}
    values |= {} if form is None else {"shift": form.shift, "rounding": form.rounding}
    fields = {"weights": "{weights}"} | {name: str(value) for name, value in values.items()} | flat.fields()
    fields |= {"constants": "{constants}"} if is_wide else {}
    kernel = f"nn_conv2d_trio{'_wide' if is_wide else ''}{'_flipped' if flipped else ''}"
    return LayerCode(
        function=kernel,
        params_type="nn_conv2d_trio_params",
        fields=fields | clamp_fields(stage) | (stage.fields("stage") if form is None else {}),
        constants=(
            Constant("weights", as_words(records.data)),
            *constants,
            *(stage.constants() if form is None else ()),
        ),
        sources=("conv2d_trio.c", "step_trio.c", "step_trio_v7m.c", "step_trio_v6m.c", "patch.c"),
        scratch_bytes=_scratch_bytes(window, reading, outputs, is_wide=is_wide),
        summary=f"{window.summary()}, {'x'.join(map(str, (*window.size, window.channels)))} -> "
        f"{'x'.join(map(str, (*window.output, outputs)))}, {kernel.removeprefix('nn_conv2d_').replace('_', ' ')}",
        distances=(distance(window, outputs),),
        instructions=_instructions(window, reading, outputs, core_class),
    )


def _spread_as_one_column(window: Window) -> Window:
    """Windows of one column are not spread along the rows: the kernel copies neighbouring ones together."""
    return replace(window, dilation=(window.dilation[0], 1)) if window.kernel[1] == 1 else window


def _live(weights: Int64, form: Form | None) -> Int64:
    """The weights, 0 in channels of one value."""
    return weights if form is None else np.where(form.constant[:, None], 0, weights)


def _narrow(weights: Int64, form: Form | None, sums: Int64, flipped: bool) -> tuple[Records, tuple[Constant, ...]]:
    assert form is not None
    return pack_records(weights, form_constants(form, sums, columns=3 if form.is_signed else 2), flipped=flipped), ()


def _wide(
    weights: Int64, reading: Reading, form: Form | None, sums: Int64, flipped: bool
) -> tuple[Records, tuple[Constant, ...]]:
    """Raw records of all passes, limit as in one of them; constants of the channels."""
    parts = [pack_records(part, None, flipped=flipped) for part in np.split(weights, reading.passes, axis=1)]
    table = sums if form is None else form_constants(form, sums, columns=3)
    data = np.concatenate([part.data for part in parts])
    wrapped = (table & 0xFFFFFFFF).astype(np.uint32).view(np.int32)
    return Records(data, parts[0].limit), (Constant("constants", wrapped),)


def conv2d_layer(graph: Graph, node: Node, *, core_class: str) -> LayerCode:
    """conv2d_code of a checked conv2d node.

    Raises:
        Unpackable: see conv2d_code; the fallback is conv2d.c.
    """
    x, weights = int8_image(graph, node), int8_weights(graph, node, rank=4, axis=0)
    assert weights.data is not None
    outputs = weights.shape[0]
    bias = int32_bias(graph, node, outputs)
    sums = np.zeros(outputs, np.int64) if bias is None else bias.reshape(-1).astype(np.int64)
    window = Window.of(node, x, (weights.shape[1], weights.shape[2]))
    stage = OutputStage.of(graph, node, outputs)
    return conv2d_code(window, weights.data, sums, x.zero_point, stage, core_class=core_class)


def _instructions(window: Window, reading: Reading, outputs: int, core_class: str) -> int:
    """About how many, to choose between kernels: of an element and a channel, of a channel, of an element, of six pixels."""
    element, channel, expanded, rest = INSTRUCTIONS[core_class]
    sixes = -(-window.output[0] * window.output[1] // PIXELS)
    passes = reading.passes * (outputs * (element * reading.depth + channel) + expanded * reading.depth + rest)
    return round(sixes * passes)


def _scratch_bytes(window: Window, reading: Reading, outputs: int, *, is_wide: bool) -> int:
    """Expanded pixels, copied windows, outputs of the last pixels; and for wide sums their words and sums."""
    copies = _round_up(PIXELS * window.taps * window.channels) + _round_up(PIXELS * outputs)
    wide = outputs * PIXELS * 4 + even(outputs) * STEP_BYTES if is_wide else 0
    return even(reading.depth) * STEP_BYTES + copies + wide


def _round_up(count: int) -> int:
    return -(-count // 4) * 4


def distance(window: Window, outputs: int) -> int:
    """How many bytes the output must begin before the input at least, if they overlap; negative: it may begin behind.

    Scratch overlaps neither.
    """
    return distance_in_groups(window, outputs, PIXELS)
