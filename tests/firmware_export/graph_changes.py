"""Changes of an example that make it something an operator refuses; test_operator_refusals.py applies them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from firmware_export.graph import ABSENT, Graph, Quantization

Change = Callable[[Graph], None]


def tensor(place: int, **changes: Any) -> Change:
    """Changes the tensor that the node reads at a place; -1 is its output."""

    def change(graph: Graph) -> None:
        node = graph.nodes[0]
        index = node.outputs[0] if place < 0 else node.inputs[place]
        graph.tensors[index] = replace(graph.tensors[index], **changes)

    return change


def scales(place: int, *values: float, zero_point: int = 0, axis: int | None = None) -> Change:
    quantization = Quantization(np.array(values, np.float32), np.full(len(values), zero_point, np.int64), axis)
    return tensor(place, quantization=quantization)


def attribute(key: str, value: Any) -> Change:
    def change(graph: Graph) -> None:
        node = graph.nodes[0]
        kept = {k: v for k, v in node.attributes.items() if k != key}
        graph.nodes[0] = replace(node, attributes=kept if value is None else {**kept, key: value})

    return change


def inputs(*places: int | None) -> Change:
    """Takes only some of the inputs; None is an absent one."""

    def change(graph: Graph) -> None:
        node = graph.nodes[0]
        graph.nodes[0] = replace(node, inputs=tuple(ABSENT if place is None else node.inputs[place] for place in places))

    return change


def data(place: int, array: np.ndarray) -> Change:
    return tensor(place, data=array, shape=array.shape, dtype=str(array.dtype))


def all_of(*changes: Change) -> Change:
    def change(graph: Graph) -> None:
        for one in changes:
            one(graph)

    return change
