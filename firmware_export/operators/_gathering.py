"""Parameters of runtime/gather.c: each axis of the output takes elements of the input's axis by a table of indexes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from firmware_export.operators import Constant, LayerCode
from firmware_export.operators._movement import Shape, steps

Indexes = Sequence[Sequence[int]]


def gather_code(op: str, shape: Shape, indexes: Indexes, summary: str) -> LayerCode:
    """The call of an operator over nn_gather.

    Args:
        shape: of the input, int8.
        indexes: for each axis the input's index of every index of the output, up to 65535.
    """
    rank = len(shape)
    while rank > 0 and list(indexes[rank - 1]) == list(range(shape[rank - 1])):
        rank -= 1
    fields = {"gather.run": str(math.prod(shape[rank:])), "gather.rank": str(rank), "gather.indexes": "{indexes}"}
    for axis, step in enumerate(steps(shape)[:rank]):
        fields[f"gather.axes[{axis}]"] = f"{{{len(indexes[axis])}, {step}}}"
    table = np.array([index for axis in indexes[:rank] for index in axis] or [0], np.uint16)
    constants = (Constant("indexes", table),)
    return LayerCode(f"nn_{op}", f"nn_{op}_params", fields, constants, (f"{op}.c", "gather.c"), summary=summary)
