"""Operators that sum products of computed tensors, once more as plain loops over Python numbers."""

from __future__ import annotations

import numpy as np
from second_implementation_lstm import lstm

from firmware_export.graph import Graph, Node

Arrays = list[np.ndarray]


def transpose_conv(graph: Graph, node: Node, inputs: Arrays) -> np.ndarray:
    """Every pixel adds its products to where each tap of the kernel lies over the output; bias and rounding come last."""
    from second_implementation import accumulated

    (image,), zero = inputs[0], graph.tensors[node.inputs[0]].zero_point
    weights = graph.tensors[node.inputs[1]].data
    output = np.zeros(graph.tensors[node.outputs[0]].shape, np.int8)
    (down, right), (top, left) = node.integers("stride"), node.integers("padding")
    sums = dict.fromkeys(np.ndindex(output.shape[1:]), 0)
    for y, x, o, i, j in np.ndindex(*image.shape[:2], *weights.shape[:3]):
        place = (y * down - top + i, x * right - left + j, o)
        if place in sums:
            sums[place] += sum(int(w) * (int(value) - zero) for w, value in zip(weights[o, i, j], image[y, x], strict=True))
    for place, total in sums.items():
        output[0][place] = accumulated(graph, node, place[2], total)
    return output


def batch_matmul(graph: Graph, node: Node, inputs: Arrays) -> np.ndarray:
    """Each output on its own; batches of 1 are read again and again."""
    from second_implementation import multiplier_of, scale_of, scaled, stored, wrapped

    tensors, computed = [graph.tensors[index] for index in node.inputs], iter(inputs)
    factors = []
    for tensor, adjoint in zip(tensors, (node.attributes["adj_x"], node.attributes["adj_y"]), strict=True):
        values = (next(computed) if tensor.data is None else tensor.data).astype(object) - tensor.zero_point
        factors.append(values.swapaxes(-1, -2) if adjoint else values)
    y = graph.tensors[node.outputs[0]]
    factor = multiplier_of(scale_of(tensors[0]) * scale_of(tensors[1]) / scale_of(y))
    output = np.zeros(y.shape, np.int8)
    for place in np.ndindex(output.shape):
        batch, row, column = place[:-2], place[-2], place[-1]
        a, b = (_matrix(values, batch) for values in factors)
        total = sum(int(a[row, k]) * int(b[k, column]) for k in range(a.shape[1]))
        output[place] = stored(scaled(wrapped(total), *factor), y.zero_point, (-128, 127))
    return output


def _matrix(values: np.ndarray, batch: tuple[int, ...]) -> np.ndarray:
    """The matrix of a batch; leading axes that are not there and axes of 1 are the same for all."""
    own = batch[len(batch) - (values.ndim - 2) :]
    return values[tuple(min(index, size - 1) for index, size in zip(own, values.shape, strict=False))]


PRODUCTS = {implementation.__name__: implementation for implementation in (transpose_conv, batch_matmul, lstm)}
