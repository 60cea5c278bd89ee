"""Random layers on Cortex-M3 and M0+: sizes, windows, scales and places in memory that nobody has thought of; bytes that never
went through our simulator; and no byte beside the buffers under the sanitizers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from firmware_builder import COMPILER, COMPILERS, compiler
from kernel_harness.program import RUNTIME, Case, host
from oracles import tflite_micro
from packed_cases import Packer, packed_case, random_input, trained_layer
from plain_core_cases import (
    CORES,
    conv2d_packer,
    depthwise_packer,
    fails_on_host,
    fully_connected_packer,
    moved,
    packable,
    run,
    vector_layer,
    wrong,
)
from sanitized import run_sanitized

from firmware_export.graph import Graph
from firmware_export.operators import _examples as make
from firmware_export.packing.add_linear import add_layer
from firmware_export.packing.plain_cores import PACKERS
from firmware_export.write_tflite import write_tflite

each_core = pytest.mark.parametrize("core_class", CORES)
FILES = sorted(path.name for pattern in ("*trio*.c", "*octet*.c") for path in RUNTIME.glob(pattern))


def zero_points(rng: np.random.Generator) -> tuple[int, int]:
    """Mostly behind a ReLU, as in trained networks."""
    return int(rng.integers(-128, 128)), -128 if rng.random() < 0.6 else int(rng.integers(-128, 128))


def deviation(rng: np.random.Generator) -> float:
    return float(np.exp2(rng.uniform(1, 10)))


def convolution(rng: np.random.Generator, core_class: str) -> Case:
    """Up to 12 x 14 pixels, 24 channels, 5x5 taps, stride 3."""
    kernel = tuple(int(k) for k in rng.integers(1, 6, 2)) if rng.random() < 0.6 else (1, 1)
    size = (int(rng.integers(1, 13)), int(rng.integers(1, 15)), int(rng.integers(1, 25)))
    stride = (int(rng.integers(1, 4)), int(rng.integers(1, 4)))
    graph = trained_layer(
        rng, "conv2d", size, (int(rng.integers(1, 14)), *kernel, size[2]), stride=stride,
        same=bool(rng.random() < 0.8), zero_points=zero_points(rng), deviation=deviation(rng),
    )  # fmt: skip
    return moved(rng, packed_case(graph, conv2d_packer(core_class), random_input(rng, graph)))


def wide_convolution(rng: np.random.Generator, core_class: str) -> Case:
    """So many channels that the sums take several passes."""
    kernel = tuple(int(k) for k in rng.integers(1, 4, 2))
    channels = int(rng.integers(1, 4)) * 16 * (12 // (kernel[0] * kernel[1]) + 1) * 2
    size = (int(rng.integers(1, 5)), int(rng.integers(1, 8)), channels)
    graph = trained_layer(
        rng,
        "conv2d",
        size,
        (int(rng.integers(1, 6)), *kernel, channels),
        zero_points=zero_points(rng),
        deviation=deviation(rng),
    )
    return moved(rng, packed_case(graph, conv2d_packer(core_class), random_input(rng, graph)))


def depthwise(rng: np.random.Generator, core_class: str) -> Case:
    size = (int(rng.integers(1, 20)), int(rng.integers(1, 20)), int(rng.integers(1, 7)))
    stride = int(rng.integers(1, 3))
    graph = trained_layer(
        rng, "depthwise_conv2d", size, (1, 3, 3, size[2]), stride=(stride, stride), same=bool(rng.random() < 0.7),
        zero_points=zero_points(rng), deviation=deviation(rng),
    )  # fmt: skip
    return moved(rng, packed_case(graph, depthwise_packer(core_class), random_input(rng, graph)))


def fully_connected(rng: np.random.Generator, core_class: str) -> Case:
    graph = vector_layer(
        rng,
        int(rng.integers(1, 200)),
        int(rng.integers(1, 40)),
        zero_points(rng),
        deviation(rng),
        batches=int(rng.integers(1, 3)),
    )
    return moved(rng, packed_case(graph, fully_connected_packer(core_class), random_input(rng, graph)))


KINDS: list[Callable[[np.random.Generator, str], Case]] = [convolution, wide_convolution, depthwise, fully_connected]


def check(kind: Callable[[np.random.Generator, str], Case], core_class: str, count: int, seed: int) -> None:
    found = packable(partial(kind, core_class=core_class), count, seed)
    failures = run(found, core_class, COMPILER).failures
    assert [found[place].code.summary for place, count in enumerate(failures) if count] == []
    assert not fails_on_host(found)


@each_core
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_some(kind: Callable[[np.random.Generator, str], Case], core_class: str) -> None:
    check(kind, core_class, 10 if kind is wide_convolution else 25, 1)


@pytest.mark.long
@each_core
@pytest.mark.parametrize("seed", range(2, 10))
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_many(kind: Callable[[np.random.Generator, str], Case], core_class: str, seed: int) -> None:
    check(kind, core_class, 120, seed)


def judged(graph: Graph, packer: Packer, rng: np.random.Generator) -> Case:
    """A packed call whose expected bytes come from the tflite-micro wheel."""
    inputs = random_input(rng, graph)
    given = tuple(inputs[graph.inputs.index(index)] for index in graph.activation_inputs(graph.nodes[0]))
    return Case(packer(graph, graph.nodes[0]), given, tflite_micro(write_tflite(graph), list(inputs))[0])


@each_core
@pytest.mark.parametrize("points", [(-128, -128), (-128, 4), (31, -90)])
def test_tflite_micro_agrees(core_class: str, points: tuple[int, int]) -> None:
    rng = np.random.default_rng(80)
    layers = {
        "3x3": (trained_layer(rng, "conv2d", (9, 8, 8), (6, 3, 3, 8), zero_points=points), conv2d_packer),
        "stride 2": (trained_layer(rng, "conv2d", (8, 8, 3), (8, 3, 3, 3), stride=(2, 2), zero_points=points), conv2d_packer),
        "1x1": (trained_layer(rng, "conv2d", (6, 7, 12), (10, 1, 1, 12), zero_points=points), conv2d_packer),
        "wide": (trained_layer(rng, "conv2d", (3, 4, 64), (5, 3, 3, 64), zero_points=points), conv2d_packer),
        "depthwise": (trained_layer(rng, "depthwise_conv2d", (9, 7, 5), (1, 3, 3, 5), zero_points=points), depthwise_packer),
        "vector": (vector_layer(rng, 77, 13, points), fully_connected_packer),
    }
    cases = {label: judged(graph, packer(core_class), rng) for label, (graph, packer) in layers.items()}
    assert wrong(cases, core_class, COMPILER) == []
    assert not fails_on_host(list(cases.values()))


@each_core
def test_sums_of_two_images(core_class: str) -> None:
    """add_linear's products take 32 bits on a Cortex-M0+, 64 elsewhere."""
    rng = np.random.default_rng(81)
    cases = {}
    for scales in ((0.031, 0.047, 0.039), (0.07, 0.005, 0.06), (0.01, 0.01, 0.01)):
        quantizations = [make.Quantization.per_tensor(scale, int(rng.integers(-128, 128))) for scale in scales]
        sides = tuple(make.activation((1, 8, 9), q, name) for q, name in zip(quantizations[:2], "ab", strict=True))
        graph = make.single_node("add", sides, quantizations[2], {"clamp": (-128, 127)})
        cases[f"{scales}"] = packed_case(graph, add_layer, random_input(rng, graph))
    assert wrong(cases, core_class, COMPILER) == []


@pytest.mark.parametrize("kind", COMPILERS)
@pytest.mark.parametrize("core", ["cortex-m0plus", "cortex-m3", "cortex-m4", "cortex-m33"])
def test_every_core_compiles_without_a_warning(kind: str, core: str, tmp_path: Path) -> None:
    toolchain = compiler(kind)
    for name in FILES:
        toolchain.compile(RUNTIME / name, tmp_path / "out.o", toolchain.compile_flags(core, "none", "2"))


@pytest.mark.parametrize("optimize", ["s", "3"])
def test_other_optimizations_compile(optimize: str, tmp_path: Path) -> None:
    for toolchain, core in ((compiler("zig"), "cortex-m0plus"), (compiler("zig"), "cortex-m3"), (host(), "host")):
        for name in FILES:
            toolchain.compile(RUNTIME / name, tmp_path / "out.o", toolchain.compile_flags(core, "none", optimize))


def test_all_files_are_used() -> None:
    """By the layers of one of the classes; what a packer names is there."""
    rng = np.random.default_rng(82)
    graphs = [
        trained_layer(rng, "conv2d", (3, 4, 5), (3, 3, 3, 5)),
        trained_layer(rng, "depthwise_conv2d", (3, 4, 5), (1, 3, 3, 5)),
        vector_layer(rng, 5, 3),
    ]
    for packers in PACKERS.values():
        codes = [packers[graph.nodes[0].op][0](graph, graph.nodes[0]) for graph in graphs]
        used = {source for code in codes for source in code.sources}
        assert used - {"patch.c"} == set(FILES)
        assert all(code.instructions > 0 for code in codes)


@pytest.mark.parametrize("op", ["conv2d", "depthwise_conv2d", "fully_connected"])
def test_what_is_said_of_instructions_is_about_right(op: str) -> None:
    """To choose between kernels: within a quarter of the count."""
    rng = np.random.default_rng(83)
    graph = {
        "conv2d": trained_layer(rng, "conv2d", (12, 12, 16), (24, 3, 3, 16)),
        "depthwise_conv2d": trained_layer(rng, "depthwise_conv2d", (12, 12, 16), (1, 3, 3, 16)),
        "fully_connected": vector_layer(rng, 256, 64),
    }[op]
    for core_class, packers in PACKERS.items():
        case = packed_case(graph, packers[op][0], random_input(rng, graph))
        count = run([case], core_class, COMPILER).instructions[0]
        assert 0.75 < count / case.code.instructions < 1.25


def test_sanitizers(tmp_path: Path) -> None:
    """Each call has heap blocks of exactly its sizes: one byte beside them is an error."""
    found = [case for core_class in CORES for kind in KINDS for case in packable(partial(kind, core_class=core_class), 6, 7)]
    run_sanitized([Case(case.code, case.inputs, case.expected) for case in found], tmp_path)
