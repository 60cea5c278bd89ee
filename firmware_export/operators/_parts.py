"""What operators that join or divide tensors along an axis share: blocks of runtime/parts.c, outputs stored like the inputs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from firmware_export.graph import Graph, GraphError, Node, Tensor
from firmware_export.operators import Constant, LayerCode
from firmware_export.operators._checks import same_quantization
from firmware_export.operators._movement import Shape, moved_input

if TYPE_CHECKING:
    from firmware_export.write_tflite import TfliteWriter

TFLITE_MICRO_INPUTS = 10
"""kMaxInputNum of TFLite Micro's CONCATENATION."""
MAX_PARTS = 64
"""Tensors of one call; C99 promises 127 arguments."""


def check_parts(parts: Sequence[int], what: str) -> None:
    """Raises GraphError unless there are 1 to MAX_PARTS."""
    if not 1 <= len(parts) <= MAX_PARTS:
        raise GraphError(f"{len(parts)} {what}; supported: 1 to {MAX_PARTS}")


def joined_inputs(graph: Graph, node: Node) -> list[Tensor]:
    """All inputs, of one type and with one quantization. Raises GraphError for anything else."""
    check_parts(node.inputs, "inputs")
    if len(node.outputs) != 1:
        raise GraphError(f"{len(node.outputs)} outputs; expected 1")
    found = [moved_input(graph, node, place) for place in range(len(node.inputs))]
    if all(x.is_constant for x in found) and len({(x.dtype, x.quantization) for x in found}) == 1:
        return found
    for place, x in enumerate(found):
        if x.is_constant:
            raise GraphError(f"input {place} '{x.name}' is a constant; supported: computed tensors")
        same_quantization(found[0], x)
    return found


def write_joined(writer: TfliteWriter, inputs: Sequence[int], output: int, axis: int) -> None:
    """Adds a CONCATENATION, or several where TFLite Micro does not take so many inputs."""
    waiting, y = list(inputs), writer.tensor(output)
    while len(waiting) > TFLITE_MICRO_INPUTS:
        first = waiting[:TFLITE_MICRO_INPUTS]
        total = sum(writer.tensor(index).shape[axis] for index in first)
        shape = (*y.shape[:axis], total, *y.shape[axis + 1 :])
        joined = writer.add_activation(f"{y.name}/first {total}", shape, y.dtype, y.quantization)
        writer.add("CONCATENATION", first, (joined,), schema.ConcatenationOptionsT(axis=axis), 2)
        waiting = [joined, *waiting[TFLITE_MICRO_INPUTS:]]
    writer.add("CONCATENATION", waiting, (output,), schema.ConcatenationOptionsT(axis=axis), 2)


def parts_code(op: str, graph: Graph, node: Node, axis: int, whole: Shape, sizes: Sequence[int], summary: str) -> LayerCode:
    """The call of an operator over nn_parts.

    Args:
        whole: shape of the joined tensor.
        sizes: how much of `axis` each part has.
    """
    inner = math.prod(whole[axis + 1 :])
    bytes_of_parts = np.array([size * inner for size in sizes], np.uint32)
    fields = {
        "parts.blocks": str(math.prod(whole[:axis])),
        "parts.block_size": str(int(bytes_of_parts.sum())),
        "parts.sizes": "{parts}",
        "parts.count": str(len(sizes)),
    }
    constants = (Constant("parts", bytes_of_parts),)
    return LayerCode(f"nn_{op}", f"nn_{op}_params", fields, constants, (f"{op}.c", "parts.c"), summary=summary)
