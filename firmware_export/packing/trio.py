"""Records of packed weights for runtime/step_trio.h: six pixels at a time on cores without DSP extension."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from firmware_export.packing.trio_forms import Form
from firmware_export.requantize import INT8_MIN, Int64

CHANNELS = 2
"""In one record."""
PIXELS = 6
"""NN_TRIO_PIXELS."""
STEP_BYTES = 16
"""NN_TRIO_WORDS words for each element of the depth."""
LIMIT = 1 << 20
"""Sums below this, and from its negative on, are held."""
LINEAR, SIGNED, RAW = range(3)
"""nn_trio_form."""
FLIP = 0x80
CORE_CLASSES = ("v7m", "v6m")


@dataclass(frozen=True)
class Records:
    """data: uint8, all records. limit: as in nn_trio_block, in bytes from their start."""

    data: npt.NDArray[np.uint8]
    limit: int


def fits(weights: Int64) -> bool:
    """Whether sum(w x) over int8 x [channels, depth] stays within what the words hold."""
    positive, negative = np.maximum(weights, 0).sum(1), np.minimum(weights, 0).sum(1)
    high, low = 127 * positive + INT8_MIN * negative, INT8_MIN * positive + 127 * negative
    return bool(high.max() < LIMIT and low.min() >= -LIMIT)


def even(depth: int) -> int:
    """The depth of records."""
    return depth + depth % 2


def pack_records(weights: Int64, constants: Int64 | None, *, flipped: bool) -> Records:
    """Records of weights [channels, depth] and constants [channels, 2 or 3]; None for raw records.

    Weights that are missing at the end are 0. flipped: bytes are weights + 128, for ARMv6-M.
    """
    channels, depth = weights.shape
    padded = np.zeros((channels + channels % CHANNELS, even(depth)), np.int64)
    padded[:channels, :depth] = weights
    pairs = padded.reshape(-1, CHANNELS, padded.shape[1]).transpose(0, 2, 1).reshape(padded.shape[0] // CHANNELS, -1)
    parts = [(pairs.astype(np.int8).view(np.uint8) ^ (FLIP if flipped else 0)).astype(np.uint8)]
    if constants is not None:
        words = np.zeros((padded.shape[0], constants.shape[1]), np.int64)
        words[:channels] = constants
        parts.append((words & 0xFFFFFFFF).astype("<u4").reshape(pairs.shape[0], -1).view(np.uint8))
    data = np.concatenate(parts, 1).reshape(-1)
    if constants is None or channels % CHANNELS == 0:
        return Records(data, data.size - 1)
    end = data.size - 4 * constants.shape[1]
    return Records(data[:end], end)


def form_code(form: Form | None) -> int:
    """nn_trio_form."""
    return RAW if form is None else SIGNED if form.is_signed else LINEAR


def form_constants(form: Form, sums: Int64, *, columns: int) -> Int64:
    """start, factor and negative [channels, columns]; sums: bias with the zero point folded in."""
    start = form.scale.unit * np.where(form.constant, 0, sums) + form.start
    return np.stack([start, form.factor, form.negative], 1)[:, :columns]


def as_words(data: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint32]:
    """Bytes as words of a little-endian core, so that the array is aligned."""
    return np.pad(data, (0, -data.size % 4)).view("<u4").astype(np.uint32)
