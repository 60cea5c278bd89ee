"""Random networks on an emulated Cortex-M55 and Cortex-M33: kernels, plan and generated code together, every byte."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import cache

import numpy as np
import pytest
from core_networks import Network, convolutional, main_text, run_networks
from firmware_builder import COMPILER, COMPILERS, compiler
from mve_checks import needs_qemu
from random_graphs import random_graph

from firmware_export.plan import Place
from firmware_export.target import GOALS, Target

CORES = {"cortex-m55": "fpv5-d16", "cortex-m33": "fpv5-sp-d16"}


@cache
def networks(core: str, goal: str, seeds: range) -> tuple[Network, ...]:
    """Networks like those people build, planned for a core and a goal."""
    return tuple(Network.of(convolutional(seed), Target.of(core, goal), seed) for seed in seeds)


def wrong(found: tuple[Network, ...], kind: str, core: str) -> list[int]:
    """Places of the networks whose outputs differ or that write beside their buffer."""
    failures = run_networks(found, compiler(kind), core, CORES[core]).failures
    assert len(failures) == len(found), "the program did not come to its end"
    return [place for place, count in enumerate(failures) if count]


def test_the_networks_use_what_the_core_has() -> None:
    functions = set().union(*(network.functions for network in networks("cortex-m55", "balanced", range(8))))
    for word in ("conv2d_mve_plain", "conv2d_mve_signed", "depthwise_mve", "fully_connected_mve", "add_mve"):
        assert any(word in function for function in functions), word
    functions = set().union(*(network.functions for network in networks("cortex-m33", "balanced", range(8))))
    assert not any("mve" in function for function in functions)
    assert any("r256" in function or "winograd" in function for function in functions)


@pytest.mark.parametrize("core", sorted(CORES))
def test_plans_let_outputs_overlap_inputs(core: str) -> None:
    """Else the kernels' distances would not be tried here."""
    overlapping = [any(itertools.starmap(share, pairs_of(network))) for network in networks(core, "ram", range(8))]
    assert sum(overlapping) >= 4


def pairs_of(network: Network) -> Iterator[tuple[Place, Place]]:
    return itertools.combinations(network.layout.places, 2)


def share(a: Place, b: Place) -> bool:
    """Whether two places have bytes in common at some time."""
    return a.first <= b.last and b.first <= a.last and a.offset < b.offset + b.size and b.offset < a.offset + a.size


@needs_qemu
@pytest.mark.parametrize(
    "core, goal",
    [
        ("cortex-m55", "balanced"), ("cortex-m55", "ram"), ("cortex-m33", "ram"),
        pytest.param("cortex-m33", "balanced", marks=pytest.mark.long),
    ],
)  # fmt: skip
def test_networks(core: str, goal: str) -> None:
    assert wrong(networks(core, goal, range(8)), COMPILER, core) == []


@needs_qemu
@pytest.mark.long
@pytest.mark.parametrize("core", sorted(CORES))
@pytest.mark.parametrize("goal", GOALS)
@pytest.mark.parametrize("kind", COMPILERS)
def test_many_networks(core: str, goal: str, kind: str) -> None:
    assert wrong(networks(core, goal, range(100, 160)), kind, core) == []


@needs_qemu
@pytest.mark.parametrize("core", ["cortex-m55", pytest.param("cortex-m33", marks=pytest.mark.long)])
def test_networks_of_every_operator(core: str) -> None:
    """Operators without a fast kernel beside those with one."""
    found = tuple(Network.of(random_graph(seed), Target.of(core, "balanced"), seed) for seed in range(10) if is_int8(seed))
    assert len(found) > 5
    assert wrong(found, COMPILER, core) == []


def is_int8(seed: int) -> bool:
    graph = random_graph(seed)
    return all(graph.tensors[index].dtype == "int8" for index in (*graph.inputs, *graph.outputs))


@needs_qemu
def test_a_wrong_answer_is_seen() -> None:
    """The judge itself: one expected byte changed fails one network, the others pass."""
    found = list(networks("cortex-m55", "balanced", range(3)))
    changed = tuple(output.copy() for output in found[1].outputs)
    changed[0].reshape(-1)[-1] ^= 1
    found[1] = Network(found[1].graph, found[1].layout, found[1].inputs, changed)
    run = run_networks(found, compiler(COMPILER), "cortex-m55", CORES["cortex-m55"])
    assert run.failures == [0, 1, 0] and run.failed
    assert all(count > 1000 for count in run.instructions)


@needs_qemu
def test_instructions_with_helium_are_less_than_half() -> None:
    """The same networks on both cores: what the vectors are for."""
    counts = [
        sum(run_networks(networks(core, "time", range(4)), compiler(COMPILER), core, CORES[core]).instructions)
        for core in CORES
    ]
    assert counts[0] < counts[1] / 2.2


def test_the_program_names_every_network_once() -> None:
    text = main_text(networks("cortex-m55", "balanced", range(3)))
    for place in range(3):
        assert text.count(f"run(&net{place}_network") == 1
        assert text.count(f'#include "net{place}.h"') == 1


def test_networks_differ() -> None:
    """Seeds give other shapes: no test of one network over and over."""
    shapes = {tuple(network.graph.tensors[0].shape) for network in networks("cortex-m55", "balanced", range(8))}
    layers = {len(network.graph.nodes) for network in networks("cortex-m55", "balanced", range(8))}
    assert len(shapes) > 5 and len(layers) > 3
    assert all(np.ptp(network.outputs[0].astype(int)) > 0 for network in networks("cortex-m55", "balanced", range(8)))
