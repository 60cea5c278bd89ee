"""Which channels belong together: checked by poisoning one input channel and looking at which output channels change."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from example_cases import Case, cases_of
from graph_builder import Build

from firmware_export.graph import ABSENT, Graph, Node, Quantization, Tensor
from firmware_export.operators import registry
from firmware_export.passes._channel_ties import CHANNELWISE, FREE, channel_labels, channels, classes
from firmware_export.passes._weighted import WEIGHTED
from firmware_export.simulate import simulate

UNWEIGHTED = [name for name in registry() if name not in WEIGHTED]


def labels_of(op: str, inputs: list[tuple[int, ...]], outputs: list[tuple[int, ...]], **attributes: Any) -> Any:
    build = Build()
    tensors = [build.activation(shape) for shape in (*inputs, *outputs)]
    node = Node(op, tuple(tensors[: len(inputs)]), tuple(tensors[len(inputs) :]), attributes)
    of_inputs, of_outputs = channel_labels(Graph(build.tensors, [node], (0,), (1,)), node)
    return [labels.tolist() for labels in of_inputs], [labels.tolist() for labels in of_outputs]


def test_the_last_axis_holds_the_channels() -> None:
    q = Quantization.per_tensor(1.0, 0)
    assert [channels(Tensor("", shape, "int8", q)) for shape in ((), (5,), (1, 2, 3))] == [1, 5, 3]


def test_channel_by_channel() -> None:
    assert labels_of("relu", [(1, 2, 2, 3)], [(1, 2, 2, 3)]) == ([[0, 1, 2]], [[0, 1, 2]])
    assert labels_of("add", [(1, 2, 2, 3), (3,)], [(1, 2, 2, 3)]) == ([[0, 1, 2], [0, 1, 2]], [[0, 1, 2]])
    assert labels_of("mul", [(1, 2, 1), (1, 2, 3)], [(1, 2, 3)]) == ([[FREE], [0, 1, 2]], [[0, 1, 2]])


def test_reshapes() -> None:
    assert labels_of("reshape", [(1, 2, 2)], [(1, 4)], shape=(1, 4)) == ([[0, 1]], [[0, 1, 0, 1]])
    assert labels_of("reshape", [(1, 4)], [(1, 2, 2)], shape=(1, 2, 2)) == ([[0, 1, 0, 1]], [[0, 1]])
    assert labels_of("reshape", [(1, 3, 2)], [(1, 2, 3)], shape=(1, 2, 3)) == ([[0, 0]], [[0, 0, 0]])


def test_concatenation() -> None:
    assert labels_of("concatenation", [(1, 2), (1, 1), (1, 2)], [(1, 5)], axis=1) == ([[0, 1], [2], [3, 4]], [[0, 1, 2, 3, 4]])
    assert labels_of("concatenation", [(1, 2, 2), (1, 3, 2)], [(1, 5, 2)], axis=1) == ([[0, 1], [0, 1]], [[0, 1]])


def test_split() -> None:
    assert labels_of("split", [(1, 5)], [(1, 2), (1, 3)], axis=1, sizes=(2, 3)) == ([[0, 1, 2, 3, 4]], [[0, 1], [2, 3, 4]])
    assert labels_of("split", [(1, 4, 2)], [(1, 3, 2), (1, 1, 2)], axis=1, sizes=(3, 1)) == ([[0, 1]], [[0, 1], [0, 1]])


def test_moved_and_repeated() -> None:
    assert labels_of("transpose", [(1, 4, 2)], [(4, 1, 2)], perm=(1, 0, 2)) == ([[0, 1]], [[0, 1]])
    assert labels_of("transpose", [(1, 4, 2)], [(1, 2, 4)], perm=(0, 2, 1)) == ([[0, 0]], [[0, 0, 0, 0]])
    assert labels_of("tile", [(1, 4, 2)], [(1, 8, 2)], repeats=(1, 2, 1)) == ([[0, 1]], [[0, 1]])
    assert labels_of("tile", [(1, 2)], [(1, 4)], repeats=(1, 2)) == ([[0, 0]], [[0, 0, 0, 0]])
    assert labels_of("pack", [(1, 2), (1, 2)], [(1, 2, 2)], axis=1) == ([[0, 1], [0, 1]], [[0, 1]])
    assert labels_of("pack", [(1, 2), (1, 2)], [(1, 2, 2)], axis=2) == ([[0, 0], [0, 0]], [[0, 0]])
    assert labels_of("unpack", [(1, 2, 3)], [(1, 3), (1, 3)], axis=1) == ([[0, 1, 2]], [[0, 1, 2], [0, 1, 2]])
    assert labels_of("unpack", [(1, 3, 2)], [(1, 3), (1, 3)], axis=2) == ([[0, 0]], [[0, 0, 0], [0, 0, 0]])


def test_borders_and_reductions() -> None:
    assert labels_of("pad", [(1, 2, 2)], [(1, 4, 2)], paddings=(0, 0, 1, 1, 0, 0)) == ([[0, 1]], [[0, 1]])
    assert labels_of("pad", [(1, 2, 2)], [(1, 2, 3)], paddings=(0, 0, 0, 0, 0, 1)) == ([[0, 0]], [[0, 0, 0]])
    assert labels_of("mean", [(1, 2, 3)], [(1, 3)], axes=(1,), keep_dims=0) == ([[0, 1, 2]], [[0, 1, 2]])
    assert labels_of("mean", [(1, 2, 3)], [(1, 2)], axes=(2,), keep_dims=0) == ([[0, 0, 0]], [[0, 0]])


def test_an_unknown_operator_ties_everything() -> None:
    assert labels_of("something new", [(1, 2), (1, 3)], [(1, 2)]) == ([[0, 0], [0, 0, 0]], [[0, 0]])


def test_absent_inputs_have_no_channels() -> None:
    build = Build()
    x, y = build.activation((1, 2)), build.activation((1, 2))
    of_inputs, _ = channel_labels(Graph(build.tensors, [], (x,), (y,)), Node("something new", (x, ABSENT), (y,)))
    assert [len(labels) for labels in of_inputs] == [2, 0]


def test_classes() -> None:
    labels = [np.array([0, 1, 0, 1]), np.array([2]), np.array([FREE])]
    masks = [np.array([False, True, False, False]), np.array([False]), np.array([False])]
    assert classes(labels, masks).tolist() == [False, True, False, True]
    assert classes(labels[2:], masks[2:]).tolist() == [True]


# Against what the operators do


def poisoned(case: Case, place: int, channel: int) -> list[np.ndarray]:
    """The case's first vector with one channel of one input turned upside down."""
    vector = [value.copy() for value in case.vectors[-1]]
    value = vector[place][..., channel] if vector[place].ndim else vector[place]
    value[...] = 1 - value if value.dtype == np.float32 else np.invert(value)
    return vector


def changed_channels(case: Case, vector: list[np.ndarray]) -> list[set[int]]:
    """Of each output, the channels that are not as in the case's answer."""
    found = []
    for answer, result in zip(case.answers[-1], simulate(case.graph, *vector), strict=True):
        different = (answer != result).reshape(-1, answer.shape[-1] if answer.ndim else 1)
        found.append(set(np.flatnonzero(different.any(0)).tolist()))
    return found


@pytest.mark.parametrize("operator", UNWEIGHTED)
def test_a_channel_changes_no_output_channel_of_another_label(operator: str) -> None:
    """Of every operator's examples; otherwise removing the one would change the other."""
    cases = cases_of(operator)
    for case in cases[:: max(1, len(cases) // 12)]:
        node = case.graph.nodes[0]
        of_inputs, of_outputs = channel_labels(case.graph, node)
        places = {index: place for place, index in enumerate(case.graph.inputs)}
        for index, labels in zip(node.inputs, of_inputs, strict=True):
            if index not in places or len(case.graph.nodes) > 1 or node.inputs.count(index) > 1:
                continue
            for channel in range(min(3, len(labels))):
                changed = changed_channels(case, poisoned(case, places[index], channel))
                for output, found in zip(of_outputs, changed, strict=True):
                    allowed = set(np.flatnonzero(output == labels[channel]).tolist())
                    assert labels[channel] == FREE or found <= allowed, case.label


def test_every_channelwise_operator_exists() -> None:
    assert set(CHANNELWISE) <= set(registry())
