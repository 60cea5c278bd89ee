"""Estimates of instructions against exact counts in the emulator, on layers that the models were not fitted to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from firmware_builder import compiler, needs_gcc
from graph_builder import Build
from kernel_harness.machine import run_unicorn
from kernel_harness.program import Case, build_program
from packed_cases import packed_case, random_input, trained_layer
from test_fast_kernels_fully_connected import layer

from firmware_export.graph import Graph
from firmware_export.kernels import kernel_options, node_options
from firmware_export.operators import LayerCode
from firmware_export.packing import Unpackable
from firmware_export.packing.conv2d_r256 import conv2d_layer
from firmware_export.packing.conv2d_winograd import winograd_layer
from firmware_export.packing.depthwise_planes import depthwise_layer
from firmware_export.packing.fully_connected_r256 import fully_connected_layer
from firmware_export.packing.instructions import estimate
from firmware_export.target import Target

ERRORS = {"conv2d_r256": 0.12, "conv2d_winograd": 0.08, "depthwise_planes": 0.18, "fully_connected_r256": 0.05}
"""What the models may be off on layers of more than 5,000 instructions."""


def convolutions() -> Iterator[tuple[Graph, partial[LayerCode]]]:
    rng = np.random.default_rng(77)
    for size, outputs, kernel, stride in (
        ((14, 10, 12), 20, (3, 3), (1, 1)), ((20, 20, 3), 12, (3, 3), (2, 2)), ((11, 7, 40), 24, (1, 1), (1, 1)),
        ((9, 16, 16), 32, (3, 3), (2, 2)), ((18, 18, 8), 10, (5, 5), (1, 1)), ((8, 30, 24), 12, (1, 3), (1, 1)),
    ):  # fmt: skip
        for zero_point in (-128, 20):
            weights = (outputs, *kernel, size[2])
            graph = trained_layer(rng, "conv2d", size, weights, stride=stride, zero_points=(-128, zero_point))
            yield graph, partial(conv2d_layer, border_limit=0)
            yield graph, partial(conv2d_layer, border_limit=8192)
            yield graph, partial(winograd_layer, scratch_limit=20_000)
            yield graph, partial(winograd_layer, scratch_limit=5000)


def depthwise() -> Iterator[tuple[Graph, partial[LayerCode]]]:
    rng = np.random.default_rng(78)
    for size, stride in (((20, 20, 12), 1), ((10, 30, 8), 1), ((14, 14, 24), 2), ((7, 7, 40), 1), ((30, 12, 8), 2)):
        graph = trained_layer(rng, "depthwise_conv2d", size, (1, 3, 3, size[2]), stride=(stride, stride))
        for limit in (8192, 3000, 1024, 0):
            yield graph, partial(depthwise_layer, scratch_limit=limit, in_place=True)


def fully_connected() -> Iterator[tuple[Graph, partial[LayerCode]]]:
    rng = np.random.default_rng(79)
    for depth, outputs in ((200, 90), (64, 200), (400, 30)):
        for direct in (False, True):
            yield layer(rng, depth, outputs), partial(fully_connected_layer, direct=direct)


def cases() -> list[Case]:
    found = []
    rng = np.random.default_rng(80)
    for graph, packer in (*convolutions(), *depthwise(), *fully_connected()):
        try:
            found.append(packed_case(graph, packer, random_input(rng, graph)))
        except Unpackable:
            continue
    return found


@needs_gcc
def test_estimates_are_as_close_as_they_say() -> None:
    found = cases()
    run = run_unicorn(build_program(found, compiler("gcc")))
    assert not run.failed
    seen = set()
    for case, count in zip(found, run.instructions, strict=True):
        kind = next(name for name in ERRORS if name in case.code.function)
        seen.add(kind)
        if count > 5000:
            assert abs(estimate(case.code) / count - 1) <= ERRORS[kind], (case.code.summary, estimate(case.code), count)
    assert seen == set(ERRORS)


def test_kernels_without_a_model_have_none() -> None:
    assert estimate(LayerCode("nn_relu", "nn_relu_params", {})) == 0


def test_every_option_has_an_estimate() -> None:
    """Of its own, or by products and outputs; more memory is never offered for more instructions alone."""
    build = Build()
    x = build.activation((1, 12, 12, 8), name="x")
    y = build.conv(x, 8)
    z = build.node("relu", (y,), build.activation((1, 12, 12, 8)), clamp=(0, 127))
    graph = build.graph(x, build.reshape(z, (1, 1152)))
    for target in (Target(), Target("dsp"), Target("dsp", "ram"), Target("v7m"), Target("mve")):
        for codes in kernel_options(graph, target):
            assert codes and all(code.instructions > 0 for code in codes)


def test_the_packers_own_estimate_goes_first() -> None:
    graph = trained_layer(np.random.default_rng(1), "conv2d", (6, 6, 4), (4, 3, 3, 4))
    codes = node_options(graph, graph.nodes[0], Target("dsp"))
    assert {code.instructions for code in codes} == {estimate(replace(code, instructions=0)) for code in codes}


def test_known_options_are_the_same() -> None:
    """Nodes with the same numbers share their options; other constants or quantizations do not."""
    build = Build()
    x = build.activation((1, 6, 6, 4), name="x")
    graph = build.graph(x, build.conv(build.conv(x, 4, scale=0.05), 4, scale=0.05))
    known: dict[tuple[object, ...], list[LayerCode]] = {}
    first = kernel_options(graph, Target("dsp"), known)
    assert len(known) == 2
    again = kernel_options(graph, Target("dsp"), known)
    assert len(known) == 2 and all(one is other for one, other in zip(first, again, strict=True))
    fresh = kernel_options(graph, Target("dsp"))
    assert [[code.function for code in codes] for codes in fresh] == [[code.function for code in codes] for codes in first]
    for ours, theirs in zip(first, fresh, strict=True):
        for code, other in zip(ours, theirs, strict=True):
            assert code.fields == other.fields and code.scratch_bytes == other.scratch_bytes
            assert all(np.array_equal(a.data, b.data) for a, b in zip(code.constants, other.constants, strict=True))


@pytest.mark.parametrize("core_class", ["dsp", "v7m", "v6m", "mve", "portable"])
def test_each_core_class_has_kernels_for_every_node(core_class: str) -> None:
    graph = trained_layer(np.random.default_rng(2), "depthwise_conv2d", (6, 6, 4), (1, 3, 3, 4))
    assert node_options(graph, graph.nodes[0], Target(core_class))
