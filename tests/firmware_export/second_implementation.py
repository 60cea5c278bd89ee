"""Every operator once more, as plain loops over Python integers: slow, and written without a look at the simulator.

It is the oracle where no outside runtime goes: explicit padding of average pools, free clamps, overflowing sums, long
softmax rows. Sources are the same as the operators': gemmlowp's and TFLite's definitions, here in their original form.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator

import numpy as np
from second_arithmetic import (
    divide_by_power,
    doubling_high_mul,
    exp_on_negative,
    multiplier_of,
    reciprocal,
    scale_of,
    scaled,
    stored,
    wrapped,
)
from second_implementation_elementwise import ELEMENTWISE
from second_implementation_lookup import LOOKUPS
from second_implementation_movement import MOVEMENTS
from second_implementation_products import PRODUCTS
from second_implementation_reductions import REDUCTIONS

from firmware_export.graph import Graph, Node

Arrays = list[np.ndarray]


def window_taps(
    node: Node, kernel: tuple[int, int], size: tuple[int, int], at: tuple[int, int]
) -> Iterator[tuple[int, int, int, int]]:
    """(i, j, y, x) of the taps of one window that lie on the image."""
    dilation = node.attributes.get("dilation", (1, 1))
    top, _, left, _ = node.integers("padding")
    stride = node.integers("stride")
    for i, j in itertools.product(range(kernel[0]), range(kernel[1])):
        y, x = at[0] * stride[0] - top + i * dilation[0], at[1] * stride[1] - left + j * dilation[1]
        if 0 <= y < size[0] and 0 <= x < size[1]:
            yield i, j, y, x


def image_of(graph: Graph, node: Node) -> np.ndarray:
    """An empty output image."""
    return np.zeros(graph.tensors[node.outputs[0]].shape, np.int8)


def accumulated(graph: Graph, node: Node, channel: int, total: int) -> int:
    """Bias and requantisation of one sum of products."""
    x, w, y = graph.tensors[node.inputs[0]], graph.tensors[node.inputs[1]], graph.tensors[node.outputs[0]]
    if len(node.inputs) == 3 and node.inputs[2] >= 0:
        total += int(graph.tensors[node.inputs[2]].data.reshape(-1)[channel])
    real = scale_of(x) * scale_of(w, channel) / scale_of(y)
    return stored(scaled(wrapped(total), *multiplier_of(real)), y.zero_point, node.integers("clamp"))


def conv2d(graph: Graph, node: Node, inputs: Arrays) -> np.ndarray:
    """Sums over taps and channels."""
    (image,), output = inputs[0], image_of(graph, node)
    weights, zero = graph.tensors[node.inputs[1]].data, graph.tensors[node.inputs[0]].zero_point
    for row, column, o in np.ndindex(output.shape[1:]):
        total = 0
        for i, j, y, x in window_taps(node, weights.shape[1:3], image.shape[:2], (row, column)):
            for c in range(image.shape[2]):
                total += int(weights[o, i, j, c]) * (int(image[y, x, c]) - zero)
        output[0, row, column, o] = accumulated(graph, node, o, total)
    return output


def depthwise_conv2d(graph: Graph, node: Node, inputs: Arrays) -> np.ndarray:
    """Sums over taps; output channel o reads input channel o / multiplier."""
    (image,), output = inputs[0], image_of(graph, node)
    weights, zero = graph.tensors[node.inputs[1]].data, graph.tensors[node.inputs[0]].zero_point
    multiplier = weights.shape[3] // image.shape[2]
    for row, column, o in np.ndindex(output.shape[1:]):
        total = 0
        for i, j, y, x in window_taps(node, weights.shape[1:3], image.shape[:2], (row, column)):
            total += int(weights[0, i, j, o]) * (int(image[y, x, o // multiplier]) - zero)
        output[0, row, column, o] = accumulated(graph, node, o, total)
    return output


def fully_connected(graph: Graph, node: Node, inputs: Arrays) -> np.ndarray:
    """Sums over the inputs."""
    weights, zero = graph.tensors[node.inputs[1]].data, graph.tensors[node.inputs[0]].zero_point
    rows = inputs[0].reshape(-1, weights.shape[1])
    output = np.zeros((len(rows), len(weights)), np.int8)
    for b, o in np.ndindex(output.shape):
        total = sum(int(w) * (int(x) - zero) for w, x in zip(weights[o], rows[b], strict=True))
        output[b, o] = accumulated(graph, node, o, total)
    return output.reshape(graph.tensors[node.outputs[0]].shape)


def pool(graph: Graph, node: Node, inputs: Arrays, reduce: Callable[[list[int]], int]) -> np.ndarray:
    """One reduction for each window and channel."""
    (image,), output = inputs[0], image_of(graph, node)
    kernel, (low, high) = node.integers("kernel"), node.integers("clamp")
    for row, column, c in np.ndindex(output.shape[1:]):
        seen = [int(image[y, x, c]) for _, _, y, x in window_taps(node, kernel, image.shape[:2], (row, column))]
        output[0, row, column, c] = max(low, min(high, reduce(seen)))
    return output


def rounded_average(values: list[int]) -> int:
    """Half away from zero."""
    total, count = sum(values), len(values)
    return (total + count // 2) // count if total > 0 else -((-total + count // 2) // count)


def average_pool2d(graph: Graph, node: Node, inputs: Arrays) -> np.ndarray:
    """Pixels in the padding do not count."""
    return pool(graph, node, inputs, rounded_average)


def max_pool2d(graph: Graph, node: Node, inputs: Arrays) -> np.ndarray:
    """Pixels in the padding do not count."""
    return pool(graph, node, inputs, max)


def reshape(graph: Graph, node: Node, inputs: Arrays) -> np.ndarray:
    """The bytes in their order."""
    return np.frombuffer(inputs[0].tobytes(), np.int8).reshape(graph.tensors[node.outputs[0]].shape)


def relu(graph: Graph, node: Node, inputs: Arrays) -> np.ndarray:
    """Requantisation and clamp of each value."""
    x, y = graph.tensors[node.inputs[0]], graph.tensors[node.outputs[0]]
    factor = multiplier_of(scale_of(x) / scale_of(y))
    table = {v: stored(scaled(v - x.zero_point, *factor), y.zero_point, node.integers("clamp")) for v in range(-128, 128)}
    return np.array([table[int(v)] for v in inputs[0].reshape(-1)], np.int8).reshape(y.shape)


def softmax(graph: Graph, node: Node, inputs: Arrays) -> np.ndarray:
    """Row by row, exponential by exponential."""
    real = min(node.number("beta") * scale_of(graph.tensors[node.inputs[0]]) * 2.0**26, 2.0**31 - 1)
    multiplier, left = multiplier_of(real)
    furthest = -math.floor(31 * 2.0**26 / 2**left)
    rows = inputs[0].reshape(-1, inputs[0].shape[-1])
    output = np.full(rows.shape, -128, np.int8)
    for row, values in enumerate(rows.tolist()):
        distances = [value - max(values) for value in values]
        exps = [
            exp_on_negative(doubling_high_mul(distance << left, multiplier)) if distance >= furthest else None
            for distance in distances
        ]
        total = sum(divide_by_power(e, 12) for e in exps if e is not None)
        headroom = 32 - total.bit_length()
        share = reciprocal((total << headroom) - 2**31)
        for place, e in enumerate(exps):
            if e is not None:
                part = divide_by_power(doubling_high_mul(share, e), 12 - headroom + 31 - 8)
                output[row, place] = max(-128, min(127, part - 128))
    return output.reshape(inputs[0].shape)


Implementation = Callable[[Graph, Node, Arrays], np.ndarray | Arrays]
IMPLEMENTATIONS: dict[str, Implementation] = (ELEMENTWISE | LOOKUPS | MOVEMENTS | PRODUCTS | REDUCTIONS) | {
    implementation.__name__: implementation
    for implementation in (
        conv2d, depthwise_conv2d, fully_connected, average_pool2d, max_pool2d, reshape, relu, softmax
    )
}  # fmt: skip


def compute(graph: Graph, inputs: Arrays) -> list[np.ndarray]:
    """The outputs of a graph for one image."""
    values = dict(zip(graph.inputs, inputs, strict=True))
    for node in graph.nodes:
        arguments = [values[index] for index in graph.activation_inputs(node)]
        results = IMPLEMENTATIONS[node.op](graph, node, arguments)
        values |= zip(node.outputs, results if isinstance(results, list) else [results], strict=True)
    return [values[index] for index in graph.outputs]
