"""Elementwise sum for runtime/add_linear.c: one linear form, proven on all 65536 pairs of values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from firmware_export.graph import Graph, Node, Tensor
from firmware_export.operators import LayerCode
from firmware_export.operators._checks import clamp_attribute, int8_input, int8_output, shape_text
from firmware_export.operators._xnnpack import sum_factors
from firmware_export.operators.add import OPERATOR
from firmware_export.packing import Unpackable
from firmware_export.requantize import INT8_MAX, INT8_MIN, Int64, wrap_int32

SHIFT = 20
"""SHIFT of runtime/add_linear.c."""
SEARCH = 4
"""How many factors on each side of the nearest ones are tried."""
SIGN_SHIFT = 28
_VALUES: Int64 = np.arange(INT8_MIN, INT8_MAX + 1, dtype=np.int64)
_INT32_MAX = (1 << 31) - 1


@dataclass(frozen=True)
class LinearSum:
    """sum = start + (factor_0 * a >> 8) + (factor_1 * b >> 8); sum >> SHIFT, saturated to int8.

    signed: (sum - uint32(sum) >> SIGN_SHIFT + rounding) >> SHIFT: sums below 0 lose up to 15, so that what lies halfway is
    rounded away from zero on both sides.
    """

    start: int
    factor_0: int
    factor_1: int
    rounding: int
    signed: bool

    def apply(self, a: Int64, b: Int64) -> Int64:
        """What the kernel computes before its clamp."""
        total: Int64 = self.start + (self.factor_0 * a >> 8) + (self.factor_1 * b >> 8)
        wide = (_pushed(total) + self.rounding if self.signed else total) >> SHIFT
        return wide.clip(INT8_MIN, INT8_MAX)


def linear_sum(exact: Int64, ratios: tuple[float, float], zero_points: tuple[int, int]) -> LinearSum:
    """The linear form that gives `exact` [256, 256], the sum of every pair of values -128..127, unclamped by an activation.

    Args:
        ratios: scale of each input by the scale of the output.
        zero_points: of the inputs.
    Raises:
        Unpackable: there is none.
    """
    nearest = [round(ratio * 2 ** (SHIFT + 8)) for ratio in ratios]
    if not all(0 < factor < _INT32_MAX - SEARCH for factor in nearest):
        raise Unpackable(f"scale ratios {ratios[0]:g} and {ratios[1]:g}")
    for signed in (False, True):
        for factors in _near(nearest):
            total = (factors[0] * _VALUES >> 8)[:, None] + (factors[1] * _VALUES >> 8)[None, :]
            start = -(factors[0] * zero_points[0] >> 8) - (factors[1] * zero_points[1] >> 8) if signed else 0
            if np.abs(total + start).max() > _INT32_MAX:
                break
            offset = _offset(exact, _pushed(total + start) if signed else total)
            if offset is not None:
                return LinearSum(start, *factors, offset, True) if signed else LinearSum(offset, *factors, 0, False)
    raise Unpackable("no linear form is exact for all pairs")


def _near(nearest: list[int]) -> Iterator[tuple[int, int]]:
    """Pairs of factors, the nearest first."""
    offsets = sorted(np.ndindex(2 * SEARCH + 1, 2 * SEARCH + 1), key=lambda o: abs(o[0] - SEARCH) + abs(o[1] - SEARCH))
    return ((nearest[0] + first - SEARCH, nearest[1] + second - SEARCH) for first, second in offsets)


def _pushed(total: Int64) -> Int64:
    return total - ((total & 0xFFFFFFFF) >> SIGN_SHIFT)


def _offset(exact: Int64, total: Int64) -> int | None:
    """What to add to `total` so that >> SHIFT, saturated, gives `exact` everywhere and no sum leaves int32; None if nothing."""
    low = int(((exact << SHIFT) - total).max(where=exact > INT8_MIN, initial=-(1 << 40)))
    high = int((((exact + 1) << SHIFT) - total).min(where=exact < INT8_MAX, initial=1 << 40)) - 1
    low, high = max(low, -_INT32_MAX - int(total.min())), min(high, _INT32_MAX - int(total.max()))
    middle = (low + high) // 2
    return middle if low <= high and int(wrap_int32(np.array(middle))) == middle else None


def add_layer(graph: Graph, node: Node) -> LayerCode:
    """The call of a kernel of add_linear.c for a checked add node.

    Raises:
        Unpackable: different shapes, a constant, or no linear form is exact; the fallback is the operator's own call.
    """
    if OPERATOR.emit(graph, node).function != "nn_add":
        raise Unpackable("the inputs are no two activations of one shape")
    a, b, y = int8_input(graph, node, 0), int8_input(graph, node, 1), int8_output(graph, node)
    low, high = clamp_attribute(node)
    form = linear_sum(_unclamped(graph, node), _ratios(graph.arithmetic, a, b, y), (a.zero_point, b.zero_point))
    values = {"size": a.elements, "start": form.start, "factor_0": form.factor_0, "factor_1": form.factor_1}
    values |= {"rounding": form.rounding, "min": low, "max": high}
    return LayerCode(
        "nn_add_linear_signed" if form.signed else "nn_add_linear",
        "nn_add_linear_params",
        {name: str(value) for name, value in values.items()},
        sources=("add_linear.c",),
        distances=(0, 0),
        summary=f"{shape_text(a)}, linear{' signed' if form.signed else ''}",
    )


def _ratios(arithmetic: str, a: Tensor, b: Tensor, y: Tensor) -> tuple[float, float]:
    """Scale of each input by the scale of the output; in float32 the fixed-point factors that XNNPACK makes of them."""
    factors = sum_factors(a.scale, b.scale, y.scale) if arithmetic == "float32" else None
    if factors is None:
        return a.scale / y.scale, b.scale / y.scale
    return factors.first / 2**factors.bits, factors.second / 2**factors.bits


def _unclamped(graph: Graph, node: Node) -> Int64:
    """The operator's own sum of every pair of values."""
    pairs = [np.broadcast_to(values, (256, 256)).astype(np.int8) for values in (_VALUES[:, None], _VALUES[None, :])]
    free = Node(node.op, node.inputs, node.outputs, {**node.attributes, "clamp": (INT8_MIN, INT8_MAX)})
    return OPERATOR.simulate(graph, free, pairs)[0].astype(np.int64)
