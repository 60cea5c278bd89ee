"""Fully connected layers for runtime/fully_connected_r256.c: weights at one byte each, with or without scratch."""

from __future__ import annotations

import numpy as np

from firmware_export.graph import Array, Graph, Node
from firmware_export.operators import Constant, LayerCode
from firmware_export.operators._accumulator import OutputStage, int8_weights
from firmware_export.operators._checks import int8_input
from firmware_export.packing import Unpackable
from firmware_export.packing.operands import sums_of
from firmware_export.packing.r256 import ELEMENTS, Records, clamp_fields, general_fields, pack
from firmware_export.requantize import Int64

SHIFTS = (8, 12)
"""Shifts of the kernels' forms, most usual first: 8 takes scale ratios 2^-p of about 1 < p < 9, 12 of 5 < p < 11."""
OUTPUTS = 4
"""NN_R256_OUTPUTS of runtime/step_r256_vector.h: in one record."""
STEP = 8
"""NN_R256_VECTOR_ELEMENTS."""


def fully_connected_code(
    weights: Array, bias: Int64, zero_point: int, stage: OutputStage, *, batches: int = 1, direct: bool = False
) -> LayerCode:
    """The call of a kernel of fully_connected_r256.c.

    Args:
        weights: int8 [outputs, depth].
        bias: [outputs], at the scale of the sums, without the zero point.
        zero_point: of the input, int8 [batches, depth].
        direct: without scratch, for a fifth more instructions.
    Raises:
        Unpackable: see r256.pack; or `direct` with a depth that is no multiple of 8 or an output stage without short form.
            The fallback is fully_connected.c.
    """
    outputs, depth = weights.shape
    steps = -(-depth // STEP)
    if direct and depth % STEP:
        raise Unpackable(f"a depth of {depth} is no multiple of {STEP}")
    words = steps * STEP // ELEMENTS
    records = pack(weights.astype(np.int64), bias, zero_point, stage, group=OUTPUTS, words=words, shifts=SHIFTS)
    if direct and records.form is None:
        raise Unpackable("no short form of the output stage is exact")
    values = {"record_words": records.size, "depth": depth, "steps": steps, "outputs": outputs, "batches": batches}
    values |= {"rounding": records.rounding}
    fields = {"weights": "{weights}"} | {name: str(value) for name, value in values.items()}
    form = "general" if records.form is None else f"{records.form_name}_{records.form.shift}"
    kernel = f"{'direct_' if direct else ''}{form}"
    return LayerCode(
        function=f"nn_fully_connected_r256_{kernel}",
        params_type="nn_fully_connected_r256_params",
        fields=fields | clamp_fields(stage) | general_fields(stage, records),
        constants=(Constant("weights", records.words), *(stage.constants() if records.form is None else ())),
        sources=("fully_connected_r256.c", "step_r256_vector.c"),
        scratch_bytes=0 if direct else _scratch_bytes(records, steps, outputs),
        distances=() if direct or batches > 1 else (-depth,),
        scratch_distances=() if direct or batches > 1 else (input_in_scratch(depth),),
        summary=f"{depth} -> {outputs}" + (f", {batches} times" if batches > 1 else "") + f", r256 {kernel}",
    )


def fully_connected_layer(graph: Graph, node: Node, *, direct: bool = False) -> LayerCode:
    """fully_connected_code of a checked fully_connected node.

    Raises:
        Unpackable: see fully_connected_code; the fallback is fully_connected.c.
    """
    x, weights = int8_input(graph, node), int8_weights(graph, node, rank=2, axis=0)
    assert weights.data is not None
    outputs, depth = weights.shape
    sums = sums_of(graph, node, outputs)
    stage = OutputStage.of(graph, node, outputs)
    return fully_connected_code(weights.data, sums, x.zero_point, stage, batches=x.elements // depth, direct=direct)


def _scratch_bytes(records: Records, steps: int, outputs: int) -> int:
    """The expanded vector, and for the general kernel the sums."""
    return 16 * steps + (-(-outputs // OUTPUTS) * 16 if records.form is None else 0)


def input_in_scratch(depth: int) -> int:
    """Where in the scratch of a kernel that is not direct the input of one batch may lie at the earliest, to be overwritten.

    Every 4 bytes become 8, from the front, so that with this offset no byte is overwritten before it is read.
    """
    return (-(-depth // ELEMENTS) - 1) * ELEMENTS
