"""Operators that sum products of computed tensors, once more as plain loops over Python numbers."""

from __future__ import annotations

import numpy as np

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


PRODUCTS = {implementation.__name__: implementation for implementation in (transpose_conv,)}
