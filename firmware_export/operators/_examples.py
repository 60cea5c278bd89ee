"""Small random graphs for the operators' `examples`: tensors, scales and zero points worth comparing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from firmware_export.graph import ABSENT, Array, Attribute, Graph, Node, Quantization, Tensor
from firmware_export.operators import operator_of

Shape = tuple[int, ...]
ZERO_POINTS = (-128, 127, 0, -1, 1, -100, 90)
NO_CLAMP = (-128, 127)


def pick(rng: np.random.Generator, low: int, high: int) -> int:
    """An integer in low..high, both included."""
    return int(rng.integers(low, high + 1))


def pick_zero_point(rng: np.random.Generator) -> int:
    """One of ZERO_POINTS."""
    return ZERO_POINTS[pick(rng, 0, len(ZERO_POINTS) - 1)]


def random_quantization(rng: np.random.Generator) -> Quantization:
    """One scale, log-uniform in 2^-9 .. 2^1 (a power of two every fourth time, which makes ties), a telling zero point."""
    exponent = float(rng.uniform(-9, 1))
    scale = 2.0 ** (round(exponent) if rng.random() < 0.25 else exponent)
    return Quantization.per_tensor(float(np.float32(scale)), pick_zero_point(rng))


def as_type(quantization: Quantization, dtype: str) -> Quantization:
    """An int8 quantization for int8 or uint8: the same real values, the zero point of uint8 is 128 higher."""
    higher = 128 if dtype == "uint8" else 0
    return Quantization.per_tensor(float(quantization.scale[0]), int(quantization.zero_point[0]) + higher)


def activation(shape: Shape, quantization: Quantization, name: str = "x") -> Tensor:
    """An int8 activation."""
    return Tensor(name, shape, "int8", quantization)


def random_image(rng: np.random.Generator, height: int, width: int, channels: int) -> Tensor:
    """An int8 image [1, h, w, c] with a random quantization."""
    return activation((1, height, width, channels), random_quantization(rng))


def random_weights(rng: np.random.Generator, shape: Shape, axis: int | None) -> Tensor:
    """int8 weights in -127..127; one scale per index of `axis`, log-uniform over two octaves, or one for all."""
    data = rng.integers(-127, 128, shape).astype(np.int8)
    count = 1 if axis is None else shape[axis]
    scale = np.exp2(rng.uniform(-10, -8, count)).astype(np.float32)
    return Tensor("w", shape, "int8", Quantization(scale, np.zeros(count, np.int64), axis), data)


def random_bias(rng: np.random.Generator, x: Tensor, weights: Tensor, channels: int, magnitude: int = 20000) -> Tensor:
    """int32 bias [channels] at the scale input x weights."""
    assert weights.quantization is not None
    scale = (np.float32(x.scale) * weights.quantization.scale).astype(np.float32)
    quantization = Quantization(scale, np.zeros(scale.size, np.int64), 0 if scale.size > 1 else None)
    data = rng.integers(-magnitude, magnitude + 1, channels).astype(np.int32)
    return Tensor("b", (channels,), "int32", quantization, data)


def spread_output(rng: np.random.Generator, x: Tensor, weights: Tensor, depth: int, spread: float = 40.0) -> Quantization:
    """An output scale at which random sums of `depth` products have a standard deviation of about `spread` steps."""
    assert weights.quantization is not None
    deviation = 74.0 * 73.0 * np.sqrt(depth) * x.scale * float(np.median(weights.quantization.scale))
    return Quantization.per_tensor(float(np.float32(deviation / spread)), pick_zero_point(rng))


def tied(x: Tensor, weights: Tensor, depth: int) -> tuple[Tensor, Tensor, Quantization]:
    """Input, weights and output scale as powers of two: many sums of `depth` products lie halfway between two outputs."""
    assert weights.quantization is not None
    powers = replace(weights.quantization, scale=np.full_like(weights.quantization.scale, 2.0**-6))
    output = 2.0 ** round(np.log2(74 * 73 * np.sqrt(depth) * 2.0**-10 / 40))
    x = replace(x, quantization=Quantization.per_tensor(2.0**-4, x.zero_point))
    return x, replace(weights, quantization=powers), Quantization.per_tensor(output, 3)


def random_clamp(rng: np.random.Generator, quantization: Quantization) -> tuple[int, int]:
    """A clamp that TFLite can fuse (none, RELU or RELU6), for a tensor of this quantization."""
    zero_point, scale = int(quantization.zero_point[0]), quantization.scale[0]
    six = min(127, zero_point + int(np.floor(min(np.float32(6) / scale, np.float32(1000)) + 0.5)))
    return (NO_CLAMP, (zero_point, 127), (zero_point, six))[pick(rng, 0, 2)]


def single_node(
    op: str, inputs: Sequence[Tensor | None], output: Quantization, attributes: dict[str, Attribute], name: str = "network"
) -> Graph:
    """A graph of one node whose activations are the graph's inputs; the output's shape is what the operator infers."""
    tensors = [tensor for tensor in inputs if tensor is not None]
    places = iter(range(len(tensors)))
    indexes = tuple(ABSENT if tensor is None else next(places) for tensor in inputs)
    node = Node(op, indexes, (len(tensors),), attributes)
    edges = tuple(i for i, tensor in enumerate(tensors) if not tensor.is_constant)
    graph = Graph([*tensors, activation((), output, "y")], [node], edges, (len(tensors),), name=name)
    shape = operator_of(node).infer(graph, node)[0].shape
    graph.tensors[-1] = replace(graph.tensors[-1], shape=shape)
    return graph


def extreme_inputs(graph: Graph) -> tuple[Array, ...]:
    """Inputs that alternate between -128 and 127, the furthest that sums and differences reach."""
    shapes = [graph.tensors[index].shape for index in graph.inputs]
    return tuple((255 * (np.indices(shape).sum(0) % 2) - 128).astype(np.int8) for shape in shapes)
