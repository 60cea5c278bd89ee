"""Fully connected layers for runtime/fully_connected_mve.c: weights at one byte each, no scratch."""

from __future__ import annotations

import numpy as np

from firmware_export.graph import Array, Graph, Node
from firmware_export.operators import Constant, LayerCode
from firmware_export.operators._accumulator import OutputStage, int8_weights
from firmware_export.operators._checks import int8_input
from firmware_export.packing.mve import GROUP, VECTOR, clamp_fields, pack
from firmware_export.packing.operands import sums_of
from firmware_export.requantize import Int64


def fully_connected_code(weights: Array, bias: Int64, zero_point: int, stage: OutputStage, *, batches: int = 1) -> LayerCode:
    """The call of a kernel of fully_connected_mve.c.

    Args:
        weights: int8 [outputs, depth].
        bias: [outputs], at the scale of the sums, without the zero point.
        zero_point: of the input, int8 [batches, depth].
    Raises:
        Unpackable: see mve.pack; the fallback is fully_connected.c.
    """
    outputs, depth = weights.shape
    records = pack(weights.astype(np.int64), bias, zero_point, stage)
    values = {"words": records.words.size, "batches": batches, "outputs": outputs}
    values |= {"vectors": depth // VECTOR, "tail": depth % VECTOR}
    return LayerCode(
        function=f"nn_fully_connected_mve_{records.form}",
        params_type="nn_fully_connected_mve_params",
        fields={"weights": "{weights}"} | {name: str(value) for name, value in values.items()} | clamp_fields(stage),
        constants=(Constant("weights", records.words),),
        sources=("fully_connected_mve.c", "step_mve.c"),
        instructions=batches * (60 + -(-outputs // GROUP) * (46 + 19 * (depth // VECTOR) + (30 if depth % VECTOR else 0))),
        summary=f"{depth} -> {outputs}" + (f", {batches} times" if batches > 1 else "") + f", mve {records.form}",
    )


def fully_connected_layer(graph: Graph, node: Node) -> LayerCode:
    """fully_connected_code of a checked fully_connected node.

    Raises:
        Unpackable: see mve.pack; the fallback is fully_connected.c.
    """
    x, weights = int8_input(graph, node), int8_weights(graph, node, rank=2, axis=0)
    assert weights.data is not None
    outputs, depth = weights.shape
    sums = sums_of(graph, node, outputs)
    stage = OutputStage.of(graph, node, outputs)
    return fully_connected_code(weights.data, sums, x.zero_point, stage, batches=x.elements // depth)
