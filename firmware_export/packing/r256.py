"""Records of packed weights for runtime/step_r256.h, one for every two output channels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from firmware_export.operators._accumulator import OutputStage
from firmware_export.packing import Unpackable
from firmware_export.packing.requantize_forms import LinearForm, SignedForm, Stage, linear_form, reachable, signed_form
from firmware_export.requantize import INT8_MAX, INT8_MIN, Int64

SHIFTS = (10, 7, 13, 16)
"""Shifts of the kernels' forms, most usual first: shift n takes scale ratios 2^-p of about p in n - 7 < p < n / 2 + 5."""
ELEMENTS = 4
"""Weights of one channel in one word, activations of one pixel in one step."""
_UNIT = 256
_LIMIT = (1 << 31) // _UNIT


@dataclass(frozen=True)
class Records:
    """words: uint32, all records. limit: as nn_r256_block has it, in words. kernel: end of the C function's name."""

    words: npt.NDArray[np.uint32]
    limit: int
    steps: int
    rounding: int
    kernel: str

    @property
    def is_general(self) -> bool:
        """Whether the records hold no output stage, so that the kernel needs the reference's tables."""
        return self.kernel == "general"


def pack(weights: Int64, bias: Int64, zero_point: int, stage: OutputStage) -> Records:
    """Records for weights [channels, depth] in the order in which a kernel reads the activations.

    Args:
        bias: int64 [channels], at the scale of the sums, zero point not folded in.
        zero_point: of the activations; every activation that is read may have any int8 value.
    Returns:
        Records with the shortest output stage that is exact for all channels.
    Raises:
        Unpackable: a sum may leave 24 bits, or two neighbouring weights do not fit 16 bits together.
    """
    channels, depth = weights.shape
    low, high = reachable(weights, bias, zero_point)
    form = _shortest_form(Stage(stage.multiplier, stage.shift, stage.zero_point, low, high))
    live = np.ones(channels, bool) if form is None else ~form.constant
    if np.any(live & ((low <= -_LIMIT) | (high >= _LIMIT))):
        raise Unpackable("a sum may leave 24 bits")
    steps = -(-depth // ELEMENTS)
    padded = np.zeros((channels + channels % 2, ELEMENTS * steps), np.int64)
    padded[:channels, :depth] = np.where(live[:, None], weights, 0)
    sums = np.where(live, bias, 0) - zero_point * padded[:channels].sum(1)
    start = _UNIT * sums - 127 * padded[:channels, 1::2].sum(1) + (0 if form is None else form.start)
    tail = _constants(form)
    words = _records(padded, _in_pairs(start), np.concatenate([_in_pairs(row) for row in tail], 1) if tail else None)
    return Records(words, words.size - 1 + channels % 2, steps, getattr(form, "rounding", 0), _kernel(form))


def _shortest_form(stage: Stage) -> LinearForm | SignedForm | None:
    for find in (linear_form, signed_form):
        for shift in SHIFTS:
            try:
                return find(stage, shift)
            except Unpackable:
                continue
    return None


def _kernel(form: LinearForm | SignedForm | None) -> str:
    if form is None:
        return "general"
    return f"{'linear' if isinstance(form, LinearForm) else 'signed'}_{form.shift}"


def _constants(form: LinearForm | SignedForm | None) -> list[Int64]:
    """What stands behind the weights of a record, each [channels]."""
    if form is None:
        return []
    return [form.factor] if isinstance(form, LinearForm) else [form.factor, form.negative]


def _in_pairs(values: Int64) -> Int64:
    """[channels] -> [pairs, 2], 0 for a channel that is missing at the end."""
    return np.pad(values, (0, values.size % 2)).reshape(-1, 2)


def _records(weights: Int64, start: Int64, tail: Int64 | None) -> npt.NDArray[np.uint32]:
    """weights [2 * pairs, 4 * steps]: start[2], steps x one word of each channel, tail."""
    quads = weights.reshape(weights.shape[0] // 2, 2, -1, ELEMENTS)
    lanes = _UNIT * quads[..., 0::2] + quads[..., 1::2]
    if lanes.min() < -(1 << 15) or lanes.max() >= 1 << 15:
        raise Unpackable(f"a weight of {INT8_MIN} stands before a negative one")
    words = (lanes[..., 0] & 0xFFFF) | ((lanes[..., 1] & 0xFFFF) << 16)
    parts = [start, words.transpose(0, 2, 1).reshape(words.shape[0], -1), *([] if tail is None else [tail])]
    return (np.concatenate(parts, 1) & 0xFFFFFFFF).astype(np.uint32).reshape(-1)


def general_stage_fields(stage: OutputStage, records: Records) -> dict[str, str]:
    """Initializers of the nn_output_stage named `stage`: all of it for the general kernel, nothing for the others."""
    return stage.fields("stage") if records.is_general else {}


def clamp_fields(stage: OutputStage) -> dict[str, str]:
    """Initializers of min and max."""
    assert INT8_MIN <= stage.clamp[0] <= stage.clamp[1] <= INT8_MAX
    return {"min": str(stage.clamp[0]), "max": str(stage.clamp[1])}
