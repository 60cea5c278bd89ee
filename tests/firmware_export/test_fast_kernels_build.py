"""The fast kernels compile without a warning everywhere, and stay inside their buffers under the sanitizers."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from firmware_builder import COMPILERS, compiler
from kernel_harness.program import RUNTIME, Case, host
from packed_cases import packed_case, random_input, trained_layer, trained_weights
from sanitized import run_sanitized

from firmware_export.graph import Graph, Quantization
from firmware_export.operators import LayerCode
from firmware_export.operators import _examples as make
from firmware_export.packing.add_linear import add_layer
from firmware_export.packing.conv2d_r256 import conv2d_layer
from firmware_export.packing.conv2d_winograd import winograd_layer
from firmware_export.packing.depthwise_planes import depthwise_layer
from firmware_export.packing.fully_connected_r256 import fully_connected_layer
from firmware_export.packing.pools import fast_pool

FILES = sorted(
    path.name
    for pattern in ("*r256*.c", "*winograd*.c", "*depthwise*.c", "*_fast.c", "add_linear.c", "patch.c")
    for path in RUNTIME.glob(pattern)
    if path.name != "depthwise_conv2d.c" and not any(word in path.name for word in ("mve", "trio"))
)


def test_the_list_of_files_is_whole() -> None:
    packers = [
        conv2d_layer, depthwise_layer, fully_connected_layer, add_layer, partial(winograd_layer, scratch_limit=1 << 20),
    ]  # fmt: skip
    used = {source for graph, packer in zip(layers(), packers, strict=True) for source in packer(graph, graph.nodes[0]).sources}
    fast = {source for name in ("average_pool2d", "max_pool2d", "mean") for source in fast_pool(call(name)).sources}
    assert used | fast == set(FILES)


def call(name: str) -> LayerCode:
    return LayerCode(f"nn_{name}", "", {}, sources=(f"{name}.c",))


def layers() -> list[Graph]:
    """One small layer for each packer, in the order of test_the_list_of_files_is_whole."""
    rng = np.random.default_rng(70)
    x = make.activation((1, 19), Quantization.per_tensor(0.02, -128))
    weights = trained_weights(rng, (7, 19), 0)
    bias = make.random_bias(rng, x, weights, 7, 2000)
    vector = make.single_node("fully_connected", (x, weights, bias), Quantization.per_tensor(0.01, -128), {"clamp": (-100, 90)})
    sides = tuple(
        make.activation((1, 37), Quantization.per_tensor(scale, 3), name) for scale, name in ((0.031, "a"), (0.047, "b"))
    )
    return [
        trained_layer(rng, "conv2d", (7, 5, 3), (5, 3, 3, 3)),
        trained_layer(rng, "depthwise_conv2d", (7, 5, 6), (1, 3, 3, 6)),
        vector,
        make.single_node("add", sides, Quantization.per_tensor(0.039, -5), {"clamp": (-128, 127)}),
        trained_layer(rng, "conv2d", (5, 7, 8), (6, 3, 3, 8)),
    ]


@pytest.mark.parametrize("kind", COMPILERS)
@pytest.mark.parametrize("core", ["cortex-m0plus", "cortex-m3", "cortex-m4", "cortex-m7"])
def test_every_core(kind: str, core: str, tmp_path: Path) -> None:
    toolchain = compiler(kind)
    for name in FILES:
        toolchain.compile(RUNTIME / name, tmp_path / "out.o", toolchain.compile_flags(core, "none", "2"))


@pytest.mark.parametrize("optimize", ["s", "3"])
def test_other_optimizations(optimize: str, tmp_path: Path) -> None:
    for toolchain, core in ((compiler("zig"), "cortex-m4"), (host(), "host")):
        for name in FILES:
            toolchain.compile(RUNTIME / name, tmp_path / "out.o", toolchain.compile_flags(core, "none", optimize))


def cases() -> Iterator[Case]:
    """Sizes that end in the middle of words, rows, groups and tiles; output before, behind and over the input."""
    rng = np.random.default_rng(71)
    convolutions = [((5, 7, 3), (5, 3, 3, 3)), ((4, 3, 5), (3, 1, 1, 5)), ((6, 5, 1), (2, 4, 3, 1)), ((3, 3, 2), (1, 3, 3, 2))]
    for size, weights in convolutions:
        for limit in (0, 4096):
            graph = trained_layer(rng, "conv2d", size, weights)
            yield packed_case(graph, partial(conv2d_layer, border_limit=limit), random_input(rng, graph))
    graph = trained_layer(rng, "conv2d", (5, 3, 4), (3, 3, 3, 4), deviation=1e6, zero_points=(0, 0))
    yield packed_case(graph, conv2d_layer, random_input(rng, graph))
    for size in ((5, 7, 6), (3, 3, 3), (1, 1, 5), (9, 2, 4)):
        for stride in ((1, 1), (2, 2)):
            for limit in (0, 2000, 1 << 20):
                graph = trained_layer(rng, "depthwise_conv2d", size, (1, 3, 3, size[2]), stride=stride)
                packer = partial(depthwise_layer, scratch_limit=limit, in_place=True)
                yield packed_case(graph, packer, random_input(rng, graph))
    for size, limit in (((5, 7, 8), 1 << 20), ((6, 6, 4), 1500)):
        graph = trained_layer(rng, "conv2d", size, (6, 3, 3, size[2]))
        yield packed_case(graph, partial(winograd_layer, scratch_limit=limit), random_input(rng, graph))
    for graph, packer in zip(layers()[2:4], (fully_connected_layer, add_layer), strict=True):
        yield packed_case(graph, packer, random_input(rng, graph))


def test_sanitizers(tmp_path: Path) -> None:
    """Each call has heap blocks of exactly its sizes: one byte beside them is an error."""
    run_sanitized(list(cases()), tmp_path)
