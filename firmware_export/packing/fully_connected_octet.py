"""Fully connected layers for runtime/fully_connected_octet.c: weights at one byte each, for Cortex-M3 and M0+."""

from __future__ import annotations

import numpy as np

from firmware_export.graph import Array, Graph, Node
from firmware_export.operators import Constant, LayerCode
from firmware_export.operators._accumulator import OutputStage, int8_weights
from firmware_export.operators._checks import int8_input
from firmware_export.packing import Unpackable
from firmware_export.packing.operands import sums_of
from firmware_export.packing.r256 import clamp_fields
from firmware_export.packing.requantize_forms import Stage, reachable
from firmware_export.packing.trio import FLIP, form_constants
from firmware_export.packing.trio_forms import WIDE, find_form
from firmware_export.requantize import Int64

OUTPUTS = 8
"""NN_OCTET_OUTPUTS."""
LIMIT = 1 << 23
"""T of step_octet.h is below it, and not below its negative."""
BYTES = {"v7m": 1, "v6m": 4}
"""NN_OCTET_BYTES of a core class."""
INSTRUCTIONS = {"v7m": (8, 25), "v6m": (25, 45)}


def fully_connected_code(
    weights: Array, bias: Int64, zero_point: int, stage: OutputStage, *, core_class: str, batches: int = 1
) -> LayerCode:
    """The call of a kernel of fully_connected_octet.c.

    Args:
        weights: int8 [outputs, depth].
        bias: [outputs], at the scale of the sums, without the zero point.
        zero_point: of the input, int8 [batches, depth].
        core_class: "v7m" or "v6m".
    Raises:
        Unpackable: a sum may leave 24 bits; the fallback is fully_connected.c.
    """
    outputs, depth = weights.shape
    matrix = weights.astype(np.int64)
    low, high = reachable(matrix, bias, zero_point)
    form = find_form(Stage.of(stage, low, high), WIDE)
    if form is not None:
        matrix = np.where(form.constant[:, None], 0, matrix)
    positive, negative = 255 * np.maximum(matrix, 0).sum(1), 255 * np.minimum(matrix, 0).sum(1)
    if positive.max() >= LIMIT or negative.min() < -LIMIT:
        raise Unpackable("a sum may leave 24 bits")
    sums = bias - (zero_point + FLIP) * matrix.sum(1)
    if form is None:
        table, kernel = sums, "general"
    else:
        table, kernel = form_constants(form, sums, columns=3 if form.is_signed else 2), "signed" if form.is_signed else "linear"
    padded = np.zeros((-(-outputs // OUTPUTS) * OUTPUTS, depth), np.int64)
    padded[:outputs] = matrix
    octets = (padded + FLIP).astype(np.uint8).reshape(-1, OUTPUTS, depth).transpose(0, 2, 1)
    values = {"depth": depth, "outputs": outputs, "batches": batches}
    values |= {} if form is None else {"shift": form.shift, "rounding": form.rounding}
    fields = {"weights": "(const uint8_t *){weights}", "constants": "{constants}"}
    return LayerCode(
        function=f"nn_fully_connected_octet_{kernel}",
        params_type="nn_fully_connected_octet_params",
        fields=fields
        | {name: str(value) for name, value in values.items()}
        | clamp_fields(stage)
        | (stage.fields("stage") if form is None else {}),
        constants=(
            Constant("weights", octets.reshape(-1).view("<u4").astype(np.uint32)),
            Constant("constants", (table & 0xFFFFFFFF).astype(np.uint32).view(np.int32)),
            *(stage.constants() if form is None else ()),
        ),
        sources=("fully_connected_octet.c", "step_octet.c", "step_octet_v7m.c", "step_octet_v6m.c"),
        scratch_bytes=BYTES[core_class] * depth,
        instructions=batches * _instructions(depth, outputs, core_class),
        summary=f"{depth} -> {outputs}" + (f", {batches} times" if batches > 1 else "") + f", octet {kernel}",
    )


def _instructions(depth: int, outputs: int, core_class: str) -> int:
    """About how many a vector takes, to choose between kernels: of an element for eight outputs, of a sum, of an element."""
    element, value = INSTRUCTIONS[core_class]
    return -(-outputs // OUTPUTS) * (element * depth + 80) + outputs * value + 9 * depth


def fully_connected_layer(graph: Graph, node: Node, *, core_class: str) -> LayerCode:
    """fully_connected_code of a checked fully_connected node.

    Raises:
        Unpackable: see fully_connected_code; the fallback is fully_connected.c.
    """
    x, weights = int8_input(graph, node), int8_weights(graph, node, rank=2, axis=0)
    assert weights.data is not None
    outputs, depth = weights.shape
    sums = sums_of(graph, node, outputs)
    stage = OutputStage.of(graph, node, outputs)
    return fully_connected_code(weights.data, sums, x.zero_point, stage, core_class=core_class, batches=x.elements // depth)
