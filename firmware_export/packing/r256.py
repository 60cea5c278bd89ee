"""Records of packed weights for runtime/step_r256.h and step_r256_vector.h, one for every few output channels."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from firmware_export.operators._accumulator import OutputStage
from firmware_export.packing import Unpackable
from firmware_export.packing.requantize_forms import (
    LinearForm,
    SignedForm,
    Stage,
    linear_form,
    reachable,
    remembered,
    signed_form,
)
from firmware_export.requantize import INT8_MIN, Int64

ELEMENTS = 4
"""Weights of one channel in one word, activations in a pair of words A and B."""
_UNIT = 256
_LIMIT = (1 << 31) // _UNIT


@dataclass(frozen=True)
class Records:
    """words: uint32, all records, size words each. kernel: end of the C function's name: form and, unless fixed, shift.

    loose: channels of which the form is not exact; loose_words: their records once more, as the general kernel has them.
    """

    words: npt.NDArray[np.uint32]
    size: int
    rounding: int
    form: LinearForm | SignedForm | None
    loose: Int64 = field(default_factory=lambda: np.zeros(0, np.int64))
    loose_words: npt.NDArray[np.uint32] = field(default_factory=lambda: np.zeros(0, np.uint32))

    @property
    def needs_stage(self) -> bool:
        """Whether some channel is requantized by the reference's output stage."""
        return self.form is None or self.loose.size > 0

    @property
    def form_name(self) -> str:
        """ "linear", "signed", or "general": no form is exact, so that the kernel needs the reference's tables."""
        return "general" if self.form is None else "linear" if isinstance(self.form, LinearForm) else "signed"


def pack(
    weights: Int64,
    bias: Int64,
    zero_point: int,
    stage: OutputStage,
    *,
    group: int,
    words: int,
    shifts: tuple[int, ...],
    most_loose: int = 0,
) -> Records:
    """Records for weights [channels, depth] in the order in which a kernel reads the activations.

    A record is start[group], words x word[group], factor[group], negative[group]; linear forms have no negative, the general
    kernel has no factor either. Channels and weights that are missing at the end are 0.

    Args:
        bias: int64 [channels], at the scale of the sums, zero point not folded in.
        zero_point: of the activations; every activation that is read may have any int8 value.
        group: channels in a record.
        words: of each channel in a record, at least depth / 4.
        shifts: the kernel's, in the order in which they are tried.
        most_loose: how many channels may be left to the reference's output stage, where the others have a linear form.
    Returns:
        Records with the shortest output stage that is exact for all channels but the loose ones.
    Raises:
        Unpackable: a sum may leave 24 bits, or two neighbouring weights do not fit 16 bits together.
    """
    low, high = reachable(weights, bias, zero_point)
    form, loose = shortest_form(Stage.of(stage, low, high), shifts), np.zeros(0, np.int64)
    if form is None and most_loose > 0:
        nearly = nearly_linear_form(Stage.of(stage, low, high), shifts)
        places = np.flatnonzero(nearly.factor == 0).astype(np.int64)
        form, loose = (nearly, places) if places.size <= most_loose else (None, loose)
    live = np.ones(len(bias), bool) if form is None else ~form.constant
    if np.any(live & ((low <= -_LIMIT) | (high >= _LIMIT))):
        raise Unpackable("a sum may leave 24 bits")
    records = _packed(weights, bias, zero_point, form, group=group, words=words)
    apart = _packed(weights[loose], bias[loose], zero_point, None, group=group, words=words) if loose.size else records[:0]
    return Records(records.reshape(-1), records.shape[1], getattr(form, "rounding", 0), form, loose, apart.reshape(-1))


def _packed(
    weights: Int64, bias: Int64, zero_point: int, form: LinearForm | SignedForm | None, *, group: int, words: int
) -> npt.NDArray[np.uint32]:
    """uint32 [records, size]."""
    channels, depth = weights.shape
    live = np.ones(channels, bool) if form is None else ~form.constant
    padded = np.zeros((-(-channels // group) * group, ELEMENTS * words), np.int64)
    padded[:channels, :depth] = np.where(live[:, None], weights, 0)
    sums = np.where(live, bias, 0) - zero_point * padded[:channels].sum(1)
    start = _UNIT * sums - 127 * padded[:channels, 1::2].sum(1) + (0 if form is None else form.start)
    lanes = _lanes(padded).reshape(-1, group, words).transpose(0, 2, 1)
    parts = [_grouped(start, group), lanes.reshape(lanes.shape[0], -1), *(_grouped(c, group) for c in _constants(form))]
    return (np.concatenate(parts, 1) & 0xFFFFFFFF).astype(np.uint32)


@remembered
def shortest_form(stage: Stage, shifts: tuple[int, ...]) -> LinearForm | SignedForm | None:
    """The linear form with the first shift that has one, else the signed one; None if neither is exact for all channels."""
    for find in (linear_form, signed_form):
        for shift in shifts:
            try:
                return find(stage, shift)
            except Unpackable:
                continue
    return None


@remembered
def nearly_linear_form(stage: Stage, shifts: tuple[int, ...]) -> LinearForm:
    """The linear form with the fewest channels that have none: their factor is 0."""
    forms = [linear_form(stage, shift, partial=True) for shift in shifts]
    return min(forms, key=lambda form: int(np.count_nonzero(form.factor == 0)))


def _constants(form: LinearForm | SignedForm | None) -> list[Int64]:
    """What stands behind the weights of a record, each [channels]."""
    if form is None:
        return []
    return [form.factor] if isinstance(form, LinearForm) else [form.factor, form.negative]


def _grouped(values: Int64, group: int) -> Int64:
    """[channels] -> [records, group], 0 for channels that are missing at the end."""
    return np.pad(values, (0, -values.size % group)).reshape(-1, group)


def _lanes(weights: Int64) -> Int64:
    """Four weights as one word: 256 w0 + w1 in the low half, 256 w2 + w3 in the high one."""
    quads = weights.reshape(weights.shape[0], -1, ELEMENTS)
    lanes = _UNIT * quads[..., 0::2] + quads[..., 1::2]
    if lanes.min() < -(1 << 15):
        raise Unpackable(f"a weight of {INT8_MIN} stands before a negative one")
    words: Int64 = (lanes[..., 0] & 0xFFFF) | ((lanes[..., 1] & 0xFFFF) << 16)
    return words


def general_fields(stage: OutputStage, records: Records) -> dict[str, str]:
    """Initializers of the nn_output_stage named `stage`: all of it where some channel needs it, else nothing."""
    return stage.fields("stage") if records.needs_stage else {}


def clamp_fields(stage: OutputStage) -> dict[str, str]:
    """Initializers of min and max."""
    return {"min": str(stage.clamp[0]), "max": str(stage.clamp[1])}
