"""Cases for the fast kernels: operators' example graphs and layers with the statistics of trained ones, in packed form."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from example_cases import cases_of
from kernel_harness.program import Case

from firmware_export.geometry import same_padding
from firmware_export.graph import Graph, Node, Quantization, Tensor
from firmware_export.operators import LayerCode
from firmware_export.operators import _examples as make
from firmware_export.packing import Unpackable
from firmware_export.simulate import simulate

Packer = Callable[[Graph, Node], LayerCode]


def packed_case(graph: Graph, packer: Packer, inputs: tuple[np.ndarray, ...], **places: tuple[int, ...]) -> Case:
    """A packed call of a graph's only node, with the simulator's answer."""
    node = graph.nodes[0]
    given = tuple(inputs[graph.inputs.index(index)] for index in graph.activation_inputs(node))
    return Case(packer(graph, node), given, simulate(graph, *inputs)[0], **places)


def example_layers(operator: str, packer: Packer) -> Iterator[tuple[str, Case]]:
    """Every example of an operator that can be packed, with its first given and one random input."""
    for example in cases_of(operator):
        for inputs in example.vectors[1:3]:
            try:
                yield example.label, packed_case(example.graph, packer, inputs)
            except Unpackable:
                continue


def refused_layers(operator: str, packer: Packer) -> dict[str, str]:
    """Label -> reason of every example of an operator that cannot be packed."""
    refused = {}
    for example in cases_of(operator):
        try:
            packer(example.graph, example.graph.nodes[0])
        except Unpackable as reason:
            refused[example.label] = str(reason)
    return refused


def trained_weights(rng: np.random.Generator, shape: tuple[int, ...], axis: int) -> Tensor:
    """Bell-shaped int8 weights, one scale per output channel within an octave: narrow sums, as training leaves them."""
    data = np.clip(np.rint(rng.normal(0, 32, shape)), -127, 127).astype(np.int8)
    scale = np.exp2(rng.uniform(-8.5, -7.5, shape[axis])).astype(np.float32)
    return Tensor("w", shape, "int8", Quantization(scale, np.zeros(scale.size, np.int64), axis), data)


def trained_layer(
    rng: np.random.Generator,
    op: str,
    size: tuple[int, int, int],
    weights_shape: tuple[int, ...],
    *,
    stride: tuple[int, int] = (1, 1),
    same: bool = True,
    zero_points: tuple[int, int] = (-128, -128),
    deviation: float = 80,
) -> Graph:
    """A convolution with the statistics of a trained layer; output zero point -128 is one behind a ReLU.

    deviation: of the outputs, in steps, before they saturate.
    """
    axis = 3 if op == "depthwise_conv2d" else 0
    x = make.activation((1, *size), Quantization.per_tensor(0.02, zero_points[0]))
    weights = trained_weights(rng, weights_shape, axis)
    depth = int(np.prod(weights_shape)) // weights_shape[axis]
    spread = float(np.float32(74 * 32 * np.sqrt(depth) * 0.02 * 2.0**-8 / deviation))
    bias = make.random_bias(rng, x, weights, weights_shape[axis], 2000)
    padding = same_padding(size[:2], weights_shape[1:3], stride) if same else (0, 0, 0, 0)
    attributes = {"stride": stride, "dilation": (1, 1), "padding": padding, "clamp": (-128, 127)}
    return make.single_node(op, (x, weights, bias), Quantization.per_tensor(spread, zero_points[1]), attributes)


def random_input(rng: np.random.Generator, graph: Graph) -> tuple[np.ndarray, ...]:
    """Random values for a graph's inputs."""
    return tuple(rng.integers(-128, 128, graph.tensors[index].shape).astype(np.int8) for index in graph.inputs)
