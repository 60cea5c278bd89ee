"""The LSTM once more, as plain loops over Python integers: gate after gate for the whole step, as the reference does it."""

from __future__ import annotations

import math

import numpy as np

from firmware_export.graph import Graph, Node

Arrays = list[np.ndarray]


def table_entry(i: int) -> int:
    """65536 logistic(i / 24), lifted by half of what the line between two entries lies too low."""
    e = math.exp(-i / 24)
    curvature = e * (e - 1) / (1 + e) ** 3
    return 65535 if i == 255 else math.floor(65536 * (1 / (1 + e) - curvature / 24**2 / 16) + 0.5)


TABLE = [table_entry(i) for i in range(256)]


def int16(x: int) -> int:
    """Saturated."""
    return max(-32768, min(32767, x))


def logistic(x: int) -> int:
    """Table steps of 512 in 3 x; 10 bits are rounded off, towards the middle's side."""
    place, rest = divmod(abs(3 * x), 512)
    value = 32767 * 1024 if place >= 255 else 512 * TABLE[place] + rest * (TABLE[place + 1] - TABLE[place])
    return (value + 512) // 1024 if x >= 0 else (2**25 - value + 511) // 1024


def tanh(x: int, exponent: int) -> int:
    """2 logistic(2 x) - 1: table steps of 256 in 3 * 2^12 real x."""
    left = exponent + 12
    scaled = 3 * x * 2**left if left >= 0 else (3 * x + 2 ** (-left - 1)) // 2**-left
    place, rest = divmod(abs(scaled), 256)
    value = 65535 * 256 if place >= 255 else 256 * TABLE[place] + rest * (TABLE[place + 1] - TABLE[place])
    return (value - 2**23 + 128) // 256 if scaled >= 0 else (2**23 - value + 127) // 256


def product(a: int, b: int, real: float) -> int:
    """a * b * real, rounded twice."""
    from second_implementation import multiplier_of, scaled

    return scaled(a * b, *multiplier_of(real))


def side(weights: np.ndarray, bias: np.ndarray | None, x: list[int], real: float) -> list[int]:
    """A matrix times a vector, in int16 steps of 2^-12."""
    from second_implementation import multiplier_of, scaled, wrapped

    start = [0] * len(weights) if bias is None else [int(b) for b in bias]
    sums = [b + sum(int(w) * v for w, v in zip(row, x, strict=True)) for b, row in zip(start, weights, strict=True)]
    return [int16(scaled(wrapped(total), *multiplier_of(real))) for total in sums]


def lstm(graph: Graph, node: Node, inputs: Arrays) -> np.ndarray:
    """All four gates of a step, then its cell state, then its output."""
    from second_implementation import scale_of

    tensors, y = [graph.tensors[index] for index in node.inputs], graph.tensors[node.outputs[0]]
    x, exponent, clip = tensors[0], node.integer("cell_exponent"), node.integer("cell_clip")
    units = tensors[1].shape[0]
    cell, hidden, rows = [0] * units, [0] * units, []
    for step in inputs[0].reshape(-1, x.shape[2]):
        gates = []
        for gate in range(4):
            w, r, b = tensors[1 + gate], tensors[5 + gate], tensors[9 + gate]
            ours = side(w.data, b.data, [int(v) - x.zero_point for v in step], scale_of(x) * scale_of(w) * 2**12)
            others = side(r.data, None, hidden, scale_of(y) * scale_of(r) * 2**12)
            gates.append([int16(one + other) for one, other in zip(ours, others, strict=True)])
        opened, kept, new, shown = gates
        for u in range(units):
            old = int16(product(logistic(kept[u]), cell[u], 2.0**-15))
            cell[u] = int16(old + int16(product(logistic(opened[u]), tanh(new[u], -12), 2.0 ** (-30 - exponent))))
            cell[u] = max(-clip, min(clip, cell[u])) if clip else cell[u]
            made = product(tanh(cell[u], exponent), logistic(shown[u]), 2.0**-30 / scale_of(y))
            hidden[u] = max(-128, min(127, made + y.zero_point)) - y.zero_point
        rows.append([h + y.zero_point for h in hidden])
    return np.array(rows, np.int8).reshape(y.shape)
