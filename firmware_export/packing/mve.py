"""Records of packed weights for runtime/step_mve.h, one for every eight output channels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from firmware_export.operators._accumulator import OutputStage
from firmware_export.packing import Unpackable
from firmware_export.packing.requantize_forms import reachable
from firmware_export.requantize import INT8_MAX, INT8_MIN, Int64

GROUP = 8
"""NN_MVE_GROUP of runtime/step_mve.h: channels in a record."""
VECTOR = 16
"""NN_MVE_BYTES: activations in a vector."""
BLOCKS = 2
"""In a record: even channels, then odd ones."""
_INT32_MAX = (1 << 31) - 1


@dataclass(frozen=True)
class Records:
    """words: uint32, all records. form: end of the C function's name."""

    words: npt.NDArray[np.uint32]
    form: str


def pack(weights: Int64, bias: Int64, zero_point: int, stage: OutputStage) -> Records:
    """Records for weights [channels, depth] in the order in which a kernel reads the activations.

    A record is for each block int32 start[4] and int8 weights: [depth // 16, 4, 16], then [4, depth % 16]; then for each block
    int32 multiplier[4] and int8 shift[4]. Channels that are missing at the end are 0.

    Args:
        bias: int64 [channels], at the scale of the sums, zero point not folded in.
        zero_point: of the activations.
    Raises:
        Unpackable: a sum, or what it becomes before it saturates, may leave int32.
    """
    form = requantization_form(stage, *reachable(weights, bias, zero_point))
    start = bias - zero_point * weights.sum(1)
    channels = -(-weights.shape[0] // GROUP) * GROUP
    per_channel = (start, stage.multiplier, stage.shift)
    padded = [np.pad(values, (0, channels - values.size)) for values in per_channel]
    matrix = np.pad(weights, ((0, channels - weights.shape[0]), (0, 0)))
    starts, multipliers, shifts = (_in_blocks(values) for values in padded)
    parts = []
    for group in range(channels // GROUP):
        blocks = _in_blocks(matrix)[group]
        for block in range(BLOCKS):
            parts += [_bytes(starts[group, block], np.int32), _block_weights(blocks[block])]
        for block in range(BLOCKS):
            parts += [_bytes(multipliers[group, block], np.int32), _bytes(shifts[group, block], np.int8)]
    return Records(np.concatenate(parts).view(np.uint32), form)


def requantization_form(stage: OutputStage, low: Int64, high: Int64) -> str:
    """The shortest form of runtime/step_mve.h that is the reference for sums low <= sum <= high of every channel.

    Raises:
        Unpackable: a sum may leave int32 when it is shifted left or its zero point is added; the arithmetic is float32.
    """
    if stage.scale is not None:
        raise Unpackable("the vector instructions round as the arithmetic double does")
    largest = np.maximum(-low, high) << np.maximum(stage.shift, 0)
    if largest.max() > _INT32_MAX - 256:
        raise Unpackable("a requantized sum may leave int32")
    if stage.shift.max() <= 0 and stage.clamp[0] >= stage.zero_point:
        return "plain"
    return "signed" if stage.shift.max() < 0 else "general"


def clamp_fields(stage: OutputStage) -> dict[str, str]:
    """Initializers of zero_point, min, max and clamped."""
    low, high = stage.clamp
    clamped = int(low > INT8_MIN or high < INT8_MAX)
    return {"zero_point": str(stage.zero_point), "min": str(low), "max": str(high), "clamped": str(clamped)}


def _in_blocks(values: Int64) -> Int64:
    """[channels, ...] -> [groups, blocks, 4, ...]: even channels of a group, then odd ones."""
    return values.reshape(-1, GROUP // BLOCKS, BLOCKS, *values.shape[1:]).swapaxes(1, 2)


def _block_weights(weights: Int64) -> npt.NDArray[np.uint8]:
    """[4, depth] -> bytes."""
    whole = weights.shape[1] // VECTOR * VECTOR
    vectors = weights[:, :whole].reshape(weights.shape[0], -1, VECTOR).swapaxes(0, 1)
    return np.concatenate([_bytes(vectors, np.int8), _bytes(weights[:, whole:], np.int8)])


def _bytes(values: Int64, kind: type[np.int32] | type[np.int8]) -> npt.NDArray[np.uint8]:
    return np.ascontiguousarray(values.astype(kind)).reshape(-1).view(np.uint8)
