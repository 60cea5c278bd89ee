"""2-D convolution for runtime/conv2d_r256.c: any window, any channels, weights at one byte each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from firmware_export.graph import Array, Graph, Node
from firmware_export.operators import Constant, LayerCode
from firmware_export.operators._accumulator import OutputStage, int8_weights, int32_bias
from firmware_export.operators._checks import MAX_SIZE, int8_image
from firmware_export.operators._window import Window
from firmware_export.packing.r256 import ELEMENTS, Records, clamp_fields, general_fields, pack
from firmware_export.planning.reach import distance_in_groups
from firmware_export.requantize import Int64

SHIFTS = (10, 7, 13, 16)
"""Shifts of the kernels' forms, most usual first: shift n takes scale ratios 2^-p of about p in n - 7 < p < n / 2 + 5."""
BORDER_LIMIT = 4096
"""Bytes of an image with its border up to which copying it first is worth the scratch."""
CHANNELS = 2
"""In one record."""
PIXELS = 3
"""NN_R256_PIXELS of runtime/step_r256.h."""
MAX_LOOSE, LOOSE_SHARE = 16, 4
"""At most so many channels, and at most one in so many, may have no short form while the others have one."""
STEP_BYTES = 24
"""NN_R256_STEP_WORDS words."""


@dataclass(frozen=True)
class Reading:
    """How the kernel reads what lies under a window: rows x row_words words from the image, then row_tail bytes of each row.

    gathered: the window is copied and read as one row, because its pixels do not lie side by side or are less than a word.
    """

    rows: int
    row_words: int
    row_tail: int
    gathered: bool

    @staticmethod
    def of(window: Window) -> Reading:
        """The cheapest way for a window."""
        words, tail = divmod(window.kernel[1] * window.channels, ELEMENTS)
        scattered = window.dilation[1] > 1 and window.kernel[1] > 1
        if scattered or (words == 0 and window.kernel[0] > 1):
            return Reading(1, -(-window.taps * window.channels // ELEMENTS), 0, gathered=True)
        if window.kernel[0] == 1:
            return Reading(1, words + (tail > 0), 0, gathered=False)
        return Reading(window.kernel[0], words, tail, gathered=False)

    @property
    def steps(self) -> int:
        """Of 4 activations each."""
        return self.rows * self.row_words + -(-self.rows * self.row_tail // ELEMENTS)

    def order(self, weights: Int64) -> Int64:
        """Weights [outputs, kernel h, kernel w, channels] -> [outputs, depth] as the activations are read."""
        rows = weights.reshape(weights.shape[0], self.rows, -1)
        whole = rows.shape[2] - self.row_tail
        return np.concatenate([part.reshape(weights.shape[0], -1) for part in (rows[..., :whole], rows[..., whole:])], 1)


def conv2d_code(
    window: Window, weights: Array, bias: Int64, zero_point: int, stage: OutputStage, *, border_limit: int = BORDER_LIMIT
) -> LayerCode:
    """The call of a kernel of conv2d_r256.c.

    Args:
        weights: int8 [outputs, kernel h, kernel w, channels].
        bias: [outputs], at the scale of the sums, without the zero point.
        zero_point: of the input, int8 [1, h, w, channels].
        border_limit: images with padding that have at most so many bytes are first copied with their border.
    Raises:
        Unpackable: see r256.pack; the fallback is conv2d.c.
    """
    summary = f"{window.summary()}, {'x'.join(map(str, (*window.size, window.channels)))}"
    output, window = window.output, _as_one_row(window)
    ahead = partial(distance, window, weights.shape[0])
    border = _border_fields(window, border_limit)
    window = _with_border(window) if border else window
    reading, outputs = Reading.of(window), weights.shape[0]
    matrix = reading.order(weights.astype(np.int64))
    most_loose = min(MAX_LOOSE, outputs // LOOSE_SHARE)
    records = pack(matrix, bias, zero_point, stage, group=CHANNELS, words=reading.steps, shifts=SHIFTS, most_loose=most_loose)
    limit = records.words.size - 1 + outputs % CHANNELS
    values = {"limit": limit, "outputs": outputs, "steps": reading.steps, "rows": reading.rows, "fill": zero_point}
    values |= {"row_words": reading.row_words, "row_tail": reading.row_tail, "gathered": int(reading.gathered)}
    values |= {"rounding": records.rounding}
    fields = {"weights": "{weights}"} | {name: str(value) for name, value in (values | border).items()} | window.fields()
    kernel = "general" if records.form is None else f"{records.form_name}_{records.form.shift}"
    return LayerCode(
        function=f"nn_conv2d_r256_{kernel}",
        params_type="nn_conv2d_r256_params",
        fields=fields | clamp_fields(stage) | general_fields(stage, records) | _loose_fields(records),
        constants=(Constant("weights", records.words), *_other_constants(stage, records)),
        sources=("conv2d_r256.c", "step_r256.c", "patch.c"),
        scratch_bytes=_scratch_bytes(window, reading, records, outputs) + (_round_up(_image_bytes(window)) if border else 0),
        distances=(ahead(copied=bool(border)),),
        summary=f"{summary} -> {'x'.join(map(str, (*output, outputs)))}, r256 {kernel}",
    )


def _loose_fields(records: Records) -> dict[str, str]:
    """Values of the C struct for channels without short form, if there are any."""
    if records.loose.size == 0:
        return {}
    numbers = {"loose": records.loose.size, "loose_limit": records.loose_words.size - 1}
    tables = {"loose_weights": "{loose_weights}", "loose_channels": "{loose_channels}", "loose_stage": "nn_conv2d_r256_loose"}
    return tables | {name: str(value) for name, value in numbers.items()}


def _other_constants(stage: OutputStage, records: Records) -> tuple[Constant, ...]:
    """Tables beside the weights of all channels."""
    found = stage.constants() if records.needs_stage else ()
    if records.loose.size == 0:
        return found
    channels = Constant("loose_channels", records.loose.astype(np.uint16))
    return (*found, Constant("loose_weights", records.loose_words), channels)


def _as_one_row(window: Window) -> Window:
    """A 1x1 window with stride 1 sees no rows: all pixels in one row spare the kernel their ends."""
    pixels = window.size[0] * window.size[1]
    if not window.is_pointwise or window.stride != (1, 1) or pixels > MAX_SIZE:
        return window
    return replace(window, size=(1, pixels), output=(1, pixels))


def _with_border(window: Window) -> Window:
    """The same window over the image with its padding."""
    top, bottom, left, right = window.padding
    size = (window.size[0] + top + bottom, window.size[1] + left + right)
    return replace(window, size=size, padding=(0, 0, 0, 0))


def _image_bytes(window: Window) -> int:
    return window.size[0] * window.size[1] * window.channels


def _border_fields(window: Window, limit: int) -> dict[str, int]:
    """Values of the C struct if the image is to be copied with its border, else none."""
    padded = _with_border(window)
    if not any(window.padding) or _image_bytes(padded) > limit or max(padded.size) > MAX_SIZE:
        return {}
    names = ("image_h", "image_w", "border_top", "border_left")
    return {"padded": 1} | dict(zip(names, (*window.size, window.padding[0], window.padding[2]), strict=True))


def conv2d_layer(graph: Graph, node: Node, *, border_limit: int = BORDER_LIMIT) -> LayerCode:
    """conv2d_code of a checked conv2d node.

    Raises:
        Unpackable: see r256.pack; the fallback is conv2d.c.
    """
    x, weights = int8_image(graph, node), int8_weights(graph, node, rank=4, axis=0)
    assert weights.data is not None
    outputs = weights.shape[0]
    bias = int32_bias(graph, node, outputs)
    sums = np.zeros(outputs, np.int64) if bias is None else bias.reshape(-1).astype(np.int64)
    window = Window.of(node, x, (weights.shape[1], weights.shape[2]))
    stage = OutputStage.of(graph, node, outputs)
    return conv2d_code(window, weights.data, sums, x.zero_point, stage, border_limit=border_limit)


def _scratch_bytes(window: Window, reading: Reading, records: Records, outputs: int) -> int:
    """Expanded pixels, copied windows and row ends, and for the general kernel the sums of all channels."""
    copies = _round_up(window.taps * window.channels) + _round_up(reading.rows * reading.row_tail)
    summed = outputs if records.form is None else records.loose.size
    sums = (summed + 1) // 2 * 2 * PIXELS * 4
    return reading.steps * STEP_BYTES + PIXELS * copies + sums


def _round_up(count: int) -> int:
    return -(-count // 4) * 4


def distance(window: Window, outputs: int, *, copied: bool = False) -> int:
    """How many bytes the output must begin before the input at least, if they overlap; negative: it may begin behind.

    copied: whether the kernel copies the image with its border first: the output may then lie anywhere over it.
    Scratch overlaps neither.
    """
    return -_image_bytes(window) if copied else distance_in_groups(window, outputs, PIXELS)
