"""Shrinks a graph on which something fails to a small one on which it still fails, by delta debugging.

A candidate is kept if it is a graph by all rules, still fails, and is smaller by `measure`. First nodes go (the graph is cut
before and behind each node, or a node is stepped over), then sizes of inputs and numbers of outputs, then attributes,
zero points and constants.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from firmware_export.check import check
from firmware_export.graph import ABSENT, Graph, GraphError, Node, Quantization, Tensor
from firmware_export.operators import operator_of

Vectors = tuple[np.ndarray, ...]
Fails = Callable[[Graph, "Vectors | None"], "Vectors | None"]
"""(graph, inputs to try; None: some of its own) -> the inputs on which it fails, None if it does not."""
SIMPLE = {"stride": 1, "dilation": 1, "padding": 0}
NO_CLAMP = (-128, 127)


@dataclass
class Shrinker:
    """fails: tells whether a graph fails, and on what. attempts: how often it may be asked."""

    fails: Fails
    attempts: int = 2000
    asked: int = field(default=0, init=False)

    def shrink(self, graph: Graph, vectors: Vectors | None = None) -> tuple[Graph, Vectors]:
        """The smallest graph found, with inputs on which it fails. Raises ValueError if the given one does not fail.

        vectors: inputs on which it is said to fail; None tries others.
        """
        failing = self.fails(graph, vectors)
        if failing is None:
            raise ValueError("the graph does not fail")
        found = self._smaller(graph, failing)
        while found is not None:
            graph, failing = found
            found = self._smaller(graph, failing)
        return graph, self._fewer_values(graph, failing)

    def _smaller(self, graph: Graph, failing: Vectors) -> tuple[Graph, Vectors] | None:
        """The first candidate that is smaller and fails."""
        size = measure(graph)
        for candidate in candidates(graph):
            if self.asked >= self.attempts:
                return None
            if measure(candidate) >= size or not is_sound(candidate):
                continue
            self.asked += 1
            vectors = self._failing(candidate, failing)
            if vectors is not None:
                return candidate, vectors
        return None

    def _failing(self, graph: Graph, known: Vectors) -> Vectors | None:
        """Inputs on which a graph fails: those of the larger one where they fit, or others."""
        shapes = [graph.tensors[index].shape for index in graph.inputs]
        fitting = shapes == [value.shape for value in known]
        found = self.fails(graph, known) if fitting else None
        return self.fails(graph, None) if found is None else found

    def _fewer_values(self, graph: Graph, vectors: Vectors) -> Vectors:
        """The inputs with as many values as possible at their zero point: halves of halves are tried."""
        for place in range(len(vectors)):
            tensor = graph.tensors[graph.inputs[place]]
            rest = tensor.zero_point if tensor.quantization is not None else 0
            step = vectors[place].size
            while step >= 1:
                for first in range(0, vectors[place].size, step):
                    changed = vectors[place].copy()
                    changed.reshape(-1)[first : first + step] = rest
                    vectors = self._if_failing(graph, vectors, place, changed)
                step //= 2
        return vectors

    def _if_failing(self, graph: Graph, vectors: Vectors, place: int, changed: np.ndarray) -> Vectors:
        if np.array_equal(changed, vectors[place]) or self.asked >= self.attempts:
            return vectors
        candidate = (*vectors[:place], changed, *vectors[place + 1 :])
        self.asked += 1
        return candidate if self.fails(graph, candidate) is not None else vectors


def measure(graph: Graph) -> tuple[int, int, int, int]:
    """Nodes, elements of all tensors, attributes that are not the simplest, bytes that are not the simplest."""
    attributes = sum(
        (value if isinstance(value, tuple) else (value,)) != _simplest(key, value)
        for node in graph.nodes
        for key, value in node.attributes.items()
    )
    zero_points = sum(int(np.count_nonzero(t.quantization.zero_point)) for t in graph.tensors if t.quantization is not None)
    data = sum(int(np.abs(t.data.astype(np.float64)).sum()) for t in graph.tensors if t.data is not None)
    edges = len(graph.inputs) + len(graph.outputs)
    return len(graph.nodes), sum(t.elements for t in graph.tensors) + edges, attributes + zero_points, data


def is_sound(graph: Graph) -> bool:
    """Whether a graph keeps the rules that every graph has to."""
    try:
        check(graph)
    except (GraphError, ValueError, IndexError, KeyError, AssertionError, TypeError):
        return False
    return True


def candidates(graph: Graph) -> Iterator[Graph]:
    """Simpler graphs, the boldest changes first; some are no sound graphs."""
    yield from _cuts(graph)
    yield from _steps_over(graph)
    yield from _smaller_inputs(graph)
    yield from _fewer_outputs(graph)
    yield from _single_pixels(graph)
    yield from _simpler_attributes(graph)
    yield from _simpler_zero_points(graph)
    yield from _simpler_constants(graph)


# Nodes


def pruned(graph: Graph) -> Graph:
    """The graph without nodes, inputs and tensors that its outputs do not need; tensors are numbered anew."""
    needed, nodes = set(graph.outputs), []
    for node in reversed(graph.nodes):
        if needed & {*node.outputs}:
            needed |= {index for index in node.inputs if index != ABSENT} | {*node.outputs}
            nodes.append(node)
    order = sorted(needed)
    new = {old: place for place, old in enumerate(order)} | {ABSENT: ABSENT}
    return replace(
        graph,
        tensors=[graph.tensors[index] for index in order],
        nodes=[
            replace(node, inputs=tuple(new[i] for i in node.inputs), outputs=tuple(new[i] for i in node.outputs))
            for node in reversed(nodes)
        ],
        inputs=tuple(new[index] for index in graph.inputs if index in needed),
        outputs=tuple(new[index] for index in graph.outputs),
    )


def _cuts(graph: Graph) -> Iterator[Graph]:
    """One node's outputs as the graph's, its inputs too; or the part before, or the part behind a node."""
    for node in graph.nodes:
        alone = replace(graph, inputs=_fed(graph, node), outputs=node.outputs, nodes=[node])
        yield pruned(alone)
    for place, node in enumerate(graph.nodes):
        yield pruned(replace(graph, outputs=node.outputs, nodes=graph.nodes[: place + 1]))
    for node in graph.nodes:
        others = [other for other in graph.nodes if other is not node]
        kept = tuple(index for index in graph.outputs if index not in node.outputs)
        if kept:
            yield pruned(replace(graph, inputs=(*graph.inputs, *node.outputs), outputs=kept, nodes=others))
    for output in graph.outputs:
        yield pruned(replace(graph, outputs=(output,)))


def _fed(graph: Graph, node: Node) -> tuple[int, ...]:
    return tuple(dict.fromkeys(graph.activation_inputs(node)))


def _steps_over(graph: Graph) -> Iterator[Graph]:
    """A node is left out, and what it reads stands for what it made."""
    for node in graph.nodes:
        for source in graph.activation_inputs(node):
            for made in node.outputs:
                if graph.tensors[source].shape != graph.tensors[made].shape or made in graph.outputs:
                    continue
                others = [
                    replace(other, inputs=tuple(source if index == made else index for index in other.inputs))
                    for other in graph.nodes
                    if other is not node
                ]
                yield pruned(replace(graph, nodes=others))


# Sizes


def _sizes(size: int) -> Iterator[int]:
    """Smaller sizes, the smallest first."""
    yield from sorted({1, size // 2, size - 1} - {0, size})


def _smaller_inputs(graph: Graph) -> Iterator[Graph]:
    for index in graph.inputs:
        shape = graph.tensors[index].shape
        for axis in range(len(shape)):
            for size in _sizes(shape[axis]):
                tensors = list(graph.tensors)
                tensors[index] = replace(tensors[index], shape=(*shape[:axis], size, *shape[axis + 1 :]))
                yield from _inferred(graph, tensors, graph.nodes)


def _fewer_outputs(graph: Graph) -> Iterator[Graph]:
    """Fewer channels of convolutions and dense layers; a bias goes."""
    for place, node in enumerate(graph.nodes):
        if node.op not in ("conv2d", "fully_connected", "depthwise_conv2d"):
            continue
        if len(node.inputs) == 3 and node.inputs[2] != ABSENT:
            nodes = list(graph.nodes)
            nodes[place] = replace(node, inputs=(*node.inputs[:2], ABSENT))
            yield pruned(replace(graph, nodes=nodes))
        if node.op != "depthwise_conv2d":
            yield from _parts(graph, [index for index in node.inputs[1:] if index != ABSENT], 0)


def _parts(graph: Graph, constants: list[int], axis: int) -> Iterator[Graph]:
    """The first or the last elements along an axis of constants."""
    for count in _sizes(graph.tensors[constants[0]].shape[axis]):
        for last in (False, True):
            tensors = list(graph.tensors)
            for index in constants:
                tensors[index] = part_of(tensors[index], axis, count, last)
            yield from _inferred(graph, tensors, graph.nodes)


def _single_pixels(graph: Graph) -> Iterator[Graph]:
    """Windows with fewer pixels, or of one pixel and without padding."""
    for place, node in enumerate(graph.nodes):
        tensors, nodes = list(graph.tensors), list(graph.nodes)
        plain = {key: (SIMPLE[key],) * len(node.integers(key)) for key in SIMPLE if key in node.attributes}
        if node.op in ("conv2d", "depthwise_conv2d"):
            for axis in (1, 2):
                yield from _parts(graph, [node.inputs[1]], axis)
            for axis in (1, 2):
                tensors[node.inputs[1]] = part_of(tensors[node.inputs[1]], axis, 1)
        elif node.op in ("average_pool2d", "max_pool2d"):
            plain["kernel"] = (1, 1)
        else:
            continue
        nodes[place] = replace(node, attributes={**node.attributes, **plain})
        yield from _inferred(graph, tensors, nodes)


def part_of(tensor: Tensor, axis: int, count: int, last: bool = False) -> Tensor:
    """The first or the last `count` elements along an axis of a constant, with their scales."""
    assert tensor.data is not None
    first = max(0, tensor.shape[axis] - count) if last else 0
    data = np.take(tensor.data, range(first, min(first + count, tensor.shape[axis])), axis)
    quantization = tensor.quantization
    if quantization is not None and quantization.axis == axis:
        part = slice(first, first + count)
        quantization = Quantization(quantization.scale[part], quantization.zero_point[part], axis)
    return replace(tensor, data=data, shape=data.shape, quantization=quantization)


def _inferred(graph: Graph, tensors: list[Tensor], nodes: list[Node]) -> Iterator[Graph]:
    """The graph with shapes that follow from changed ones, constants cut to them; nothing where an operator refuses."""
    changed = replace(graph, tensors=tensors, nodes=[])
    try:
        for node in nodes:
            fitted = _fitted(graph, tensors, node)
            changed.nodes.append(fitted)
            for index, spec in zip(fitted.outputs, operator_of(fitted).infer(changed, fitted), strict=True):
                tensors[index] = replace(tensors[index], shape=spec.shape)
    except (GraphError, ValueError, IndexError, ZeroDivisionError, AssertionError):
        return
    yield changed


def _fitted(old: Graph, tensors: list[Tensor], node: Node) -> Node:
    """A node whose constants and shape attribute fit its changed input."""
    before, now = old.tensors[node.inputs[0]], tensors[node.inputs[0]]
    if node.op == "reshape":
        return replace(node, attributes={"shape": _fitted_shape(node.integers("shape"), before, now)})
    if before.shape == now.shape or len(node.inputs) < 2:
        return node
    for index in node.inputs[1:]:
        if index == ABSENT or not tensors[index].is_constant:
            continue
        if node.op == "conv2d" and index == node.inputs[1]:
            tensors[index] = part_of(tensors[index], 3, now.shape[3])
        elif node.op == "depthwise_conv2d":
            axis = 3 if index == node.inputs[1] else 0
            multiplier = tensors[index].shape[axis] // before.shape[3]
            tensors[index] = part_of(tensors[index], axis, now.shape[3] * multiplier)
        elif node.op == "fully_connected" and index == node.inputs[1]:
            whole = tensors[index].shape[1] == before.elements
            tensors[index] = part_of(tensors[index], 1, now.elements if whole else now.shape[-1])
        elif node.op not in ("conv2d", "fully_connected"):
            tensors[index] = _broadcast_part(tensors[index], now.shape)
    return node


def _broadcast_part(constant: Tensor, shape: tuple[int, ...]) -> Tensor:
    for back in range(1, min(len(constant.shape), len(shape)) + 1):
        constant = part_of(constant, len(constant.shape) - back, shape[-back])
    return constant


def _fitted_shape(shape: tuple[int, ...], before: Tensor, now: Tensor) -> tuple[int, ...]:
    """A target shape of as many elements as there are now: its largest size takes what is left."""
    if math.prod(shape) == now.elements:
        return shape
    sizes = list(shape)
    largest = sizes.index(max(sizes))
    sizes[largest] = 1
    rest = math.prod(sizes)
    if now.elements % rest:
        return (1,) * (len(shape) - 1) + (now.elements,)
    sizes[largest] = now.elements // rest
    return tuple(sizes)


# Attributes, zero points, constants


def _simplest(key: str, value: object) -> tuple[object, ...]:
    count = len(value) if isinstance(value, tuple) else 1
    if key == "clamp":
        return NO_CLAMP
    return (SIMPLE[key],) * count if key in SIMPLE else value if isinstance(value, tuple) else (value,)


def _simpler_attributes(graph: Graph) -> Iterator[Graph]:
    for place, node in enumerate(graph.nodes):
        for key, value in node.attributes.items():
            simplest = _simplest(key, value)
            if value != simplest and isinstance(value, tuple):
                nodes = list(graph.nodes)
                nodes[place] = replace(node, attributes={**node.attributes, key: simplest})  # type: ignore[dict-item]
                yield from _inferred(graph, list(graph.tensors), nodes)


def _simpler_zero_points(graph: Graph) -> Iterator[Graph]:
    """Zero points of all tensors that are stored alike become 0."""
    for quantization in dict.fromkeys(t.quantization for t in graph.tensors if t.quantization is not None):
        if quantization.zero_point.any():
            simple = replace(quantization, zero_point=np.zeros_like(quantization.zero_point))
            tensors = [replace(t, quantization=simple) if t.quantization == quantization else t for t in graph.tensors]
            yield replace(graph, tensors=tensors)


def _simpler_constants(graph: Graph) -> Iterator[Graph]:
    """Constants become 0, or 1, or their values halve; a half of them becomes 0."""
    for index, tensor in enumerate(graph.tensors):
        if tensor.data is None or not tensor.data.size:
            continue
        flat = tensor.data.reshape(-1)
        half = flat.size // 2
        simpler = [np.zeros_like(flat), np.ones_like(flat), (flat / 2).astype(flat.dtype)]
        if half:
            simpler += [np.concatenate([flat[:half], flat[half:] * 0]), np.concatenate([flat[:half] * 0, flat[half:]])]
        for data in simpler:
            tensors = list(graph.tensors)
            tensors[index] = replace(tensor, data=data.reshape(tensor.shape).astype(tensor.data.dtype))
            yield replace(graph, tensors=tensors)
