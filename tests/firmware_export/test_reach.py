"""How far outputs reach over inputs: every kernel run in C exactly at its limit, and one byte beyond it, where it must fail.

Each example graph of an operator is one node; its plan is made here by hand.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from example_cases import cases_of
from overlap_model import outputs_of, pixels_under
from packed_cases import random_input, trained_layer
from plan_verifier import PoisonedRuns

from firmware_export.graph import Graph
from firmware_export.kernels import node_options
from firmware_export.operators import LayerCode, registry
from firmware_export.operators._window import Window
from firmware_export.plan import Plan
from firmware_export.planning.reach import window_distance
from firmware_export.target import Target

EXAMPLES = 14
"""Of each operator, spread over all it has."""
FAST = ("conv2d", "fully_connected", "add", "average_pool2d", "max_pool2d", "mean")
"""Operators with kernels of their own in the class "dsp"."""
SPACE = 64


@dataclass(frozen=True)
class Trial:
    """A node with its output over one of its inputs: at the limit, or `beyond` it."""

    label: str
    function: str
    graph: Graph
    layout: Plan
    inputs: tuple[np.ndarray, ...]
    beyond: bool


def trials(target: Target) -> Iterator[Trial]:
    """Two for each distance of each example of each operator, and one for each place in place."""
    for operator in registry() if target == Target() else FAST:
        cases = cases_of(operator)
        for case in cases[:: max(1, len(cases) // EXAMPLES)]:
            for code in node_options(case.graph, case.graph.nodes[0], target):
                for slot, distance in enumerate(code.distances):
                    if distance is not None:
                        yield from at_limit(case.label, case.graph, code, slot, distance, case.vectors[0])
                for slot, level in enumerate(code.in_place):
                    if level:
                        yield trial(case.label, case.graph, code, slot, 0, case.vectors[0], beyond=False)


def at_limit(
    label: str, graph: Graph, code: LayerCode, slot: int, distance: int, inputs: tuple[np.ndarray, ...]
) -> Iterator[Trial]:
    """Float tensors stay at multiples of four."""
    tensors = [graph.tensors[index] for index in (*graph.activation_inputs(graph.nodes[0]), graph.nodes[0].outputs[0])]
    step = 4 if any(tensor.dtype in ("float32", "int32") for tensor in tensors) else 1
    yield trial(label, graph, code, slot, -(-distance // step) * step, inputs, beyond=False)
    if distance > -tensors[slot].nbytes:
        yield trial(label, graph, code, slot, -(-distance // step) * step - step, inputs, beyond=True)


def trial(
    label: str, graph: Graph, code: LayerCode, slot: int, ahead: int, inputs: tuple[np.ndarray, ...], *, beyond: bool
) -> Trial:
    """Output 0 begins `ahead` bytes before the input in a slot; everything else lies apart, behind both."""
    node = graph.nodes[0]
    under = graph.activation_inputs(node)[slot]
    output = SPACE + max(0, -ahead + 3) // 4 * 4
    offsets = {node.outputs[0]: output, under: output + ahead}
    end = max(offsets[index] + graph.tensors[index].nbytes for index in offsets)
    for index in (*graph.inputs, *node.outputs):
        if index not in offsets:
            offsets[index] = end = -(-end // 16) * 16 + 16
            end += graph.tensors[index].nbytes
    scratch = -(-end // 16) * 16 + 16
    layout = Plan(offsets, {0: scratch} if code.scratch_bytes else {}, scratch + code.scratch_bytes, 0, False, 0, (code,))
    return Trial(f"{label}, input {slot}, {ahead}", code.function, graph, layout, inputs, beyond)


def failing(folder: Path, found: list[Trial]) -> list[bool]:
    """Which trials answer wrong."""
    runs = PoisonedRuns(folder, [one.graph for one in found], [one.layout for one in found])
    return [bool(runs.faults(number, one.inputs)) for number, one in enumerate(found)]


@pytest.mark.parametrize("target", [Target(), Target("dsp")], ids=lambda target: target.core_class)
def test_every_kernel_at_its_limit_and_beyond(target: Target, tmp_path: Path) -> None:
    """Of packed convolutions test_packing_distance.py proves it; beyond nn_quantize_float's only low bits of floats change."""
    found = list(trials(target))
    wrong = failing(tmp_path, found)
    assert [one.label for one, fails in zip(found, wrong, strict=True) if fails and not one.beyond] == []
    told = {one.function for one in found if one.beyond}
    caught = {one.function for one, fails in zip(found, wrong, strict=True) if fails and one.beyond}
    unproven = {name for name in told - caught if "r256" not in name and "winograd" not in name}
    assert unproven <= {"nn_quantize_float"}, "limits that nothing proves to be the lowest ones"


def test_elementwise_kernels_are_among_them() -> None:
    functions = {one.function for one in trials(Target())}
    wanted = ("add", "mul", "sub", "maximum", "minimum", "relu", "lookup", "softmax", "mean", "max_pool2d", "average_pool2d")
    assert {f"nn_{name}" for name in wanted} <= functions
    assert {"nn_quantize", "nn_dequantize", "nn_conv2d", "nn_conv2d_pointwise", "nn_depthwise_conv2d"} <= functions


def test_broadcast_inputs_keep_apart() -> None:
    """An input that is read again for every row must not be overwritten by the first row."""
    for case in cases_of("mul"):
        inputs = [case.graph.tensors[index] for index in case.graph.activation_inputs(case.graph.nodes[0])]
        output = case.graph.tensors[case.graph.nodes[0].outputs[0]]
        (code,) = node_options(case.graph, case.graph.nodes[0], Target())
        for tensor, distance in zip(inputs, code.distances, strict=True):
            assert (distance is None) == (tensor.elements != output.elements)


# The formula for windows, against every byte that is read and written


def needed_ahead(window: Window, outputs: int) -> int:
    """The least distance from which on a kernel that reads a pixel's whole window, then writes its outputs, is right."""
    ahead = window.output[0] * window.output[1] * outputs
    while ahead > -window.size[0] * window.size[1] * window.channels and not spoils(window, outputs, ahead - 1):
        ahead -= 1
    return ahead


def spoils(window: Window, outputs: int, ahead: int) -> bool:
    """Whether a byte is read after it has been written."""
    written: set[int] = set()
    for number, output in enumerate(outputs_of(window)):
        for row, column in pixels_under(window, output):
            begin = (row * window.size[1] + column) * window.channels
            if written & set(range(begin, begin + window.channels)):
                return True
        written |= set(range(number * outputs - ahead, (number + 1) * outputs - ahead))
    return False


WINDOWS = [
    Window((4, 5), 2, (3, 3), (1, 1), (1, 1), (1, 1, 1, 1), (4, 5)),
    Window((5, 4), 1, (3, 3), (2, 2), (1, 1), (0, 1, 0, 1), (2, 2)),
    Window((3, 6), 2, (1, 1), (1, 1), (1, 1), (0, 0, 0, 0), (3, 6)),
    Window((6, 3), 1, (2, 3), (1, 1), (1, 1), (0, 0, 1, 1), (5, 3)),
    Window((5, 5), 1, (2, 2), (1, 1), (2, 2), (0, 0, 0, 0), (3, 3)),
    Window((4, 4), 3, (4, 4), (4, 4), (1, 1), (0, 0, 0, 0), (1, 1)),
]


@pytest.mark.parametrize("place", range(len(WINDOWS)))
@pytest.mark.parametrize("outputs", [1, 2, 4])
def test_the_window_formula_is_the_least_safe_distance(place: int, outputs: int) -> None:
    """Exact but where padding hides that a corner is never read; never too small."""
    window = WINDOWS[place]
    found = window_distance(window, outputs, last=outputs, before=0)
    least = needed_ahead(window, outputs)
    assert found >= least
    if not any(window.padding):
        assert found == least


def test_a_layout_that_is_only_safe_in_place_says_so(tmp_path: Path) -> None:
    """Depthwise kernels in planes: no distance, but level with the input wherever the layout allows it."""
    found = []
    for size, stride in (((9, 8, 4), (1, 1)), ((6, 6, 7), (2, 2)), ((25, 5, 8), (1, 1))):
        graph = trained_layer(np.random.default_rng(3), "depthwise_conv2d", size, (1, 3, 3, size[2]), stride=stride)
        inputs = random_input(np.random.default_rng(4), graph)
        codes = node_options(graph, graph.nodes[0], Target("dsp"))
        assert all("planes" in code.function and code.distances == () for code in codes)
        safe = [code for code in codes if code.in_place == (True,)]
        found += [trial(code.summary, graph, code, 0, 0, inputs, beyond=False) for code in safe]
    assert len(found) > 10 and not any(failing(tmp_path, found))


def test_a_moved_limit_is_seen(tmp_path: Path) -> None:
    """The trials would catch a distance that is one too small: the same trial, a byte lower."""
    case = next(case for case in cases_of("relu") if case.graph.tensors[case.graph.inputs[0]].elements > 40)
    (code,) = node_options(case.graph, case.graph.nodes[0], Target())
    wrong = replace(code, distances=(-1,))
    pair = list(at_limit(case.label, case.graph, wrong, 0, -1, case.vectors[0]))
    assert failing(tmp_path, pair)[0]
