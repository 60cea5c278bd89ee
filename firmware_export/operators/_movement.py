"""What operators that move values share: the strided copy of runtime/strided.c, checks of tensors, small graphs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from firmware_export.graph import Attribute, Graph, GraphError, Node, Tensor
from firmware_export.model_file import MAX_RANK
from firmware_export.operators import Example, operator_of
from firmware_export.operators import _examples as make
from firmware_export.operators._checks import int8_activation, same_quantization

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Axis:
    """One loop of a strided copy: how often, and how far input and output move each time, in elements."""

    size: int
    input_step: int
    output_step: int

    def holds(self, inner: Axis) -> bool:
        """Whether this loop around `inner` is one longer loop of the inner one's steps."""
        return self.input_step == inner.input_step * inner.size and self.output_step == inner.output_step * inner.size


@dataclass(frozen=True)
class StridedCopy:
    """output[output_start + sum i * output_step] = input[input_start + sum i * input_step], slowest axis first."""

    axes: tuple[Axis, ...]
    input_start: int = 0
    output_start: int = 0

    def merged(self) -> StridedCopy:
        """The same copy with as few loops as possible, at least one."""
        found: list[Axis] = []
        for axis in (axis for axis in self.axes if axis.size > 1):
            if found and found[-1].holds(axis):
                axis = replace(axis, size=found.pop().size * axis.size)
            found.append(axis)
        return replace(self, axes=tuple(found) or (Axis(1, 1, 1),))

    def fields(self) -> dict[str, str]:
        """Initializers of the nn_strided_copy that is the member `copy` of an operator's parameters.

        Raises:
            GraphError: more loops than the kernel has.
        """
        merged = self.merged()
        if len(merged.axes) > MAX_RANK:
            raise GraphError(f"a copy of {len(merged.axes)} nested loops; supported: up to {MAX_RANK}")
        fields = {"copy.input_start": self.input_start, "copy.output_start": self.output_start, "copy.rank": len(merged.axes)}
        texts = {key: str(value) for key, value in fields.items()}
        for place, axis in enumerate(merged.axes):
            texts[f"copy.axes[{place}]"] = f"{{{axis.size}, {axis.input_step}, {axis.output_step}}}"
        return texts


def steps(shape: Sequence[int]) -> Shape:
    """Elements from one index of each axis to the next, for a tensor without gaps."""
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def moved_input(graph: Graph, node: Node, place: int = 0) -> Tensor:
    """An input whose values are moved: an int8 activation, or a constant of any type, which is moved when read."""
    index = node.inputs[place]
    if index >= 0 and graph.tensors[index].is_constant:
        return graph.tensors[index]
    return int8_activation(graph, index, f"input {place}")


def check_outputs(graph: Graph, node: Node, x: Tensor) -> None:
    """Raises GraphError unless every output is int8 with the scale and zero point of x; other constants have neither."""
    for place, index in enumerate(node.outputs):
        if not x.is_constant:
            same_quantization(x, int8_activation(graph, index, f"output {place}" if place else "output"))
        elif x.dtype == "int8":
            same_quantization(x, graph.tensors[index])


def axis_attribute(node: Node, rank: int) -> int:
    """The attribute `axis`, 0..rank-1. Raises GraphError for anything else."""
    axis = node.attributes.get("axis")
    if not isinstance(axis, int) or not 0 <= axis < rank:
        raise GraphError(f"axis {axis} of {rank} dimensions; supported: 0 to {rank - 1}")
    return axis


def values_attribute(node: Node, key: str, count: int) -> Shape:
    """An attribute of `count` integers of any sign. Raises GraphError for anything else."""
    value = node.attributes.get(key)
    if not isinstance(value, tuple) or len(value) != count or not all(isinstance(v, int) for v in value):
        raise GraphError(f"{key} is {value}; expected {count} integers")
    return tuple(int(v) for v in value)


def from_end(axis: int, rank: int) -> int:
    """An axis where negative ones count from the end. Raises GraphError if out of range."""
    if not -rank <= axis < rank:
        raise GraphError(f"axis {axis} of a tensor with {rank} dimensions")
    return axis % rank


def random_shape(rng: np.random.Generator, rank: int, most: int = 6) -> Shape:
    """A shape [1, ...] of that rank."""
    return (1, *(make.pick(rng, 1, most) for _ in range(rank - 1)))


def moving_example(
    op: str, inputs: Sequence[Tensor], attributes: dict[str, Attribute], label: str, outputs: int = 1
) -> Example:
    """A graph of one node whose outputs all have the quantization of its first input."""
    count = len(inputs)
    node = Node(op, tuple(range(count)), tuple(range(count, count + outputs)), attributes)
    tensors = [*inputs, *(replace(inputs[0], name=f"y{place}", shape=()) for place in range(outputs))]
    graph = Graph(tensors, [node], node.inputs, node.outputs)
    for index, spec in zip(node.outputs, operator_of(node).infer(graph, node), strict=True):
        graph.tensors[index] = replace(graph.tensors[index], shape=spec.shape)
    return Example(graph, label)
