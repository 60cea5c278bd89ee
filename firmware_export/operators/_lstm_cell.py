"""The arithmetic of one LSTM step: sums of a gate, logistic and tanh in int16, the cell's update; runtime/lstm.c in numpy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from firmware_export.graph import ABSENT, Array, Graph, GraphError, Node, Tensor
from firmware_export.operators._accumulator import check_shift
from firmware_export.operators._checks import int8_input, int8_output
from firmware_export.requantize import Int64, quantize_multiplier, requantize, to_int8, wrap_int32

GATES = 4
"""input, forget, cell (g), output."""
SUM_SCALE = 2.0**-12
RESULT_SCALE = 2.0**-15
"""Of what logistic and tanh make."""
INT16_MIN, INT16_MAX = -32768, 32767
TABLE_STEPS = 24
"""Entries of the logistic's table for 1."""
TABLE_LAST = 255
EXPONENTS = (-24, 0)
"""Scales of the cell state that neither overflow nor lose all bits."""
Factor = tuple[int, int]


@dataclass(frozen=True)
class Gate:
    """Weights of one gate. factors: multiplier and shift from the sums of each side to int16 in steps of 2^-12."""

    weights: Array
    recurrent: Array
    bias: Array
    factors: tuple[Factor, Factor]

    @property
    def units(self) -> int:
        """Rows of the weights."""
        return int(self.weights.shape[0])

    def matrix(self, side: str) -> Array:
        """int8 [units, depth]; side: "input" or "recurrent"."""
        return self.weights if side == "input" else self.recurrent

    def factor(self, side: str) -> Factor:
        """Multiplier and shift of a side."""
        return self.factors[0 if side == "input" else 1]

    def sums(self, x: Int64, hidden: Int64) -> Int64:
        """int16 [units] in steps of 2^-12, from x and h without their zero points: each side rounded and saturated."""
        ours = self.weights.astype(np.int64) @ x + self.bias.astype(np.int64)
        others = self.recurrent.astype(np.int64) @ hidden
        parts = [requantize(wrap_int32(s), *factor) for s, factor in zip((ours, others), self.factors, strict=True)]
        return saturated(saturated(parts[0]) + saturated(parts[1]))


def gates_of(graph: Graph, node: Node) -> list[Gate]:
    """The four gates, checked. Raises GraphError: got X, supported Y."""
    x, y = int8_input(graph, node), int8_output(graph, node)
    units = _constant(graph, node, 1, "int8", 2).shape[0]
    gates = []
    for gate in range(GATES):
        weights = _constant(graph, node, 1 + gate, "int8", 2)
        recurrent = _constant(graph, node, 1 + GATES + gate, "int8", 2)
        bias = _constant(graph, node, 1 + 2 * GATES + gate, "int32", 1)
        shapes = (weights.shape, recurrent.shape, bias.shape)
        if shapes != ((units, x.shape[-1]), (units, units), (units,)):
            raise GraphError(
                f"weights, recurrent weights and bias of gate {gate} are {shapes} for {x.shape[-1]} inputs; "
                f"supported: {((units, x.shape[-1]), (units, units), (units,))}"
            )
        factors = (_factor(x.scale * weights.scale / SUM_SCALE), _factor(y.scale * recurrent.scale / SUM_SCALE))
        assert weights.data is not None and recurrent.data is not None and bias.data is not None
        gates.append(Gate(weights.data, recurrent.data, bias.data, factors))
    return gates


def _constant(graph: Graph, node: Node, place: int, dtype: str, rank: int) -> Tensor:
    index = node.inputs[place]
    if index == ABSENT:
        raise GraphError(f"input {place} is missing; expected constant {dtype}")
    tensor = graph.tensors[index]
    if not tensor.is_constant or tensor.dtype != dtype or len(tensor.shape) != rank:
        kind = "constant" if tensor.is_constant else "computed"
        raise GraphError(f"input {place} '{tensor.name}' is {kind} {tensor.dtype} {tensor.shape}; supported: constant {dtype}")
    if dtype == "int8" and tensor.zero_point != 0:
        raise GraphError(f"weights '{tensor.name}' have the zero point {tensor.zero_point}; supported: 0")
    return tensor


def _factor(real: float) -> Factor:
    multiplier, shift = quantize_multiplier(real)
    check_shift(shift, real)
    return int(multiplier[0]), int(shift[0])


def saturated(x: Int64) -> Int64:
    """Into int16."""
    return np.clip(x, INT16_MIN, INT16_MAX)


@dataclass(frozen=True)
class CellState:
    """The state's scale and bound, and the factors of the three products; each a multiplier and a shift."""

    exponent: int
    clip: int
    forget: Factor
    update: Factor
    hidden: Factor
    zero_point: int

    @staticmethod
    def of(node: Node, y: Tensor) -> CellState:
        """From a node's attributes and its output. Raises GraphError if they are missing or out of range."""
        exponent, clip = node.attributes.get("cell_exponent"), node.attributes.get("cell_clip")
        if not isinstance(exponent, int) or not EXPONENTS[0] <= exponent <= EXPONENTS[1]:
            raise GraphError(f"a cell state of the scale 2^{exponent}; supported: 2^{EXPONENTS[0]} to 2^{EXPONENTS[1]}")
        if not isinstance(clip, int) or not 0 <= clip <= INT16_MAX:
            raise GraphError(f"cell_clip is {clip}; supported: 0 to {INT16_MAX}")
        update = RESULT_SCALE * RESULT_SCALE / 2.0**exponent
        hidden = RESULT_SCALE * RESULT_SCALE / y.scale
        return CellState(exponent, clip, _factor(RESULT_SCALE), _factor(update), _factor(hidden), y.zero_point)

    def step(self, cell: Int64, sums: list[Int64]) -> tuple[Int64, Int64]:
        """The next cell state, int16 [units], and the output as stored, int8 [units]."""
        i, f, o = (logistic(sums[gate]) for gate in (0, 1, 3))
        kept = saturated(requantize(f * cell, *self.forget))
        added = saturated(requantize(i * tanh(sums[2], -12), *self.update))
        cell = saturated(kept + added)
        if self.clip:
            cell = np.clip(cell, -self.clip, self.clip)
        product = requantize(tanh(cell, self.exponent) * o, *self.hidden)
        return cell, to_int8(product, self.zero_point, (-128, 127)).astype(np.int64)

    def fields(self) -> dict[str, str]:
        """Initializers of the parameters in C besides weights and sizes."""
        multiplier, shift = tanh_factor(self.exponent)
        values = {"cell_clip": self.clip, "zero_point": self.zero_point, "tanh_multiplier": multiplier, "tanh_shift": shift}
        for name, factor in (("forget", self.forget), ("update", self.update), ("hidden", self.hidden)):
            values |= {f"{name}.multiplier": factor[0], f"{name}.shift": factor[1]}
        return {key: str(value) for key, value in values.items()}


def sigmoid_table() -> Int64:
    """uint16 [256]: 65536 / (1 + exp(-i / 24)), lifted so that lines between the entries err alike to both sides.

    A line over a step h lies up to -f'' h^2 / 8 below the curve in its middle; half of that goes to its ends. The last
    entry is the end of the range. Source of the values: sigmoid_table_uint16 of TFLite's internal/common.h, which this
    formula gives entry for entry.
    """
    x = np.arange(TABLE_LAST + 1) / TABLE_STEPS
    f = 1 / (1 + np.exp(-x))
    second = f * (1 - f) * (1 - 2 * f)
    entries = np.floor(65536 * (f - second / (16 * TABLE_STEPS**2)) + 0.5).astype(np.int64)
    entries[TABLE_LAST] = 65535
    return entries


def _interpolated(size: Int64, bits: int, end: int) -> Int64:
    """The table between its entries, for `size` with that many fraction bits; `end` behind the last entry."""
    table, place, fraction = sigmoid_table(), size >> bits, size & ((1 << bits) - 1)
    inside = np.minimum(place, TABLE_LAST - 1)
    line = (table[inside] << bits) + fraction * (table[inside + 1] - table[inside])
    return np.where(place >= TABLE_LAST, end, line)


def logistic(x: Int64) -> Int64:
    """1 / (1 + exp(-x)) in steps of 2^-15, for int16 x in steps of 2^-12."""
    result = _interpolated(np.abs(3 * x), 9, INT16_MAX << 10)
    half = 1 << 9
    return np.where(x >= 0, result + half, (1 << 25) - result + half - 1) >> 10


def tanh_factor(exponent: int) -> Factor:
    """What brings steps of 2^exponent to 3 * 2^-12: a multiplier and a right shift."""
    return (3 << (exponent + 12), 0) if exponent >= -12 else (3, -12 - exponent)


def tanh(x: Int64, exponent: int) -> Int64:
    """tanh(x) in steps of 2^-15, for int16 x in steps of 2^exponent: 2 logistic(2 x) - 1."""
    multiplier, shift = tanh_factor(exponent)
    scaled = (x * multiplier + ((1 << shift) >> 1)) >> shift
    result = _interpolated(np.abs(scaled), 8, 65535 << 8)
    one, half = 1 << 23, 1 << 7
    return np.where(scaled >= 0, result - one + half, one - result + half - 1) >> 8
