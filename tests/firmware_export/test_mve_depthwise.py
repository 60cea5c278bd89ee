"""Depthwise convolution for Helium: every byte the simulator's; how few instructions; strips, their scratch and their reach."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, partial

import numpy as np
import pytest
from fast_kernel_checks import shifted
from firmware_builder import needs_gcc
from kernel_harness.program import Case
from mve_checks import KINDS, assert_right_on_host, moved, needs_qemu, run_m55, wrong_on_m55
from overlap_model import Step, pixels_under, spoils
from packed_cases import example_layers, packed_case, random_input, refused_layers, trained_layer

from firmware_export.graph import Graph
from firmware_export.operators._window import Window
from firmware_export.packing.depthwise_mve import OVERFLOW, Strips, depthwise_layer, distance

SIZES = [
    (1, 1, 5), (1, 7, 16), (7, 1, 3), (2, 2, 17), (3, 3, 32), (4, 3, 8), (5, 5, 1), (6, 6, 64), (25, 5, 20), (5, 25, 20),
    (9, 10, 7), (12, 12, 48), (3, 40, 4),
]  # fmt: skip
KERNELS = [(1, 1), (1, 3), (3, 1), (2, 2), (2, 3), (3, 2)]


def layer(rng: np.random.Generator, size: tuple[int, int, int], **options: object) -> Graph:
    kernel = options.pop("kernel", (3, 3))
    assert isinstance(kernel, tuple)
    return trained_layer(rng, "depthwise_conv2d", size, (1, *kernel, size[2]), **options)  # type: ignore[arg-type]


@cache
def cases() -> dict[str, Case]:
    """Examples; every size with both strides, with and without ReLU; smaller kernels; places at odd addresses."""
    rng = np.random.default_rng(90)
    found = {f"{label} {i}": case for i, (label, case) in enumerate(example_layers("depthwise_conv2d", depthwise_layer))}

    def _add(label: str, graph: Graph) -> None:
        found[label] = moved(rng, packed_case(graph, depthwise_layer, random_input(rng, graph)))

    for size in SIZES:
        for stride in ((1, 1), (2, 2), (1, 2), (3, 1)):
            for zero_points in ((-128, -128), (17, -9)):
                _add(f"{size} {stride} {zero_points}", layer(rng, size, stride=stride, zero_points=zero_points))
    for kernel in KERNELS:
        _add(f"kernel {kernel}", layer(rng, (7, 6, 19), kernel=kernel))
    for size in ((3, 3, 4), (5, 9, 16), (9, 5, 16)):
        _add(f"valid {size}", layer(rng, size, same=False))
    return found


def test_all_ways_are_among_the_cases() -> None:
    codes = [case.code for case in cases().values()]
    ways = {code.function.removeprefix("nn_depthwise_mve_") for code in codes}
    assert ways == {f"{rows}_{form}" for rows in ("two_rows", "one_row") for form in ("plain", "signed")}
    assert {code.summary.split()[-2] for code in codes} == {"rows", "columns"}
    assert {code.fields["clamped"] for code in codes} == {"0", "1"}


@needs_qemu
@pytest.mark.parametrize("kind", KINDS)
def test_cortex_m55(kind: str) -> None:
    assert wrong_on_m55(cases(), kind) == []


def test_the_host_runs_the_same_data() -> None:
    assert_right_on_host(cases())


def test_what_is_refused() -> None:
    """Several outputs for each channel, windows beyond 3x3, and what is neither behind a ReLU nor scaled down."""
    refused = refused_layers("depthwise_conv2d", depthwise_layer).values()
    reasons = {reason.lstrip("0123456789 ") for reason in refused}
    assert all(reason.startswith(("outputs for each channel", "a window of", "a factor is")) for reason in reasons)


@needs_qemu
@needs_gcc
@pytest.mark.parametrize(
    "size, stride, most",
    [((48, 48, 8), 1, 5.3), ((24, 24, 32), 1, 5.5), ((25, 5, 64), 1, 7.2), ((6, 6, 128), 1, 7.2), ((48, 48, 16), 2, 9.0)],
)
def test_instructions_for_each_output(size: tuple[int, int, int], stride: int, most: float) -> None:
    """18 for four outputs in the inner loop, 4.5; 23 with stride 2; strips, channels and rows included."""
    rng = np.random.default_rng(91)
    graph = layer(rng, size, stride=(stride, stride))
    case = packed_case(graph, depthwise_layer, random_input(rng, graph))
    run = run_m55([case], "gcc")
    assert run.failures == [0]
    assert 4.5 < run.instructions[0] / case.expected.size < most
    assert 0.8 < case.code.instructions / run.instructions[0] < 1.2, "the estimate by which ways are chosen"


def overlapped(nearer: int) -> dict[str, Case]:
    rng = np.random.default_rng(92)
    found = {}
    for size, stride in (((9, 8, 16), 1), ((8, 8, 5), 1), ((2, 6, 16), 1), ((9, 9, 16), 2), ((3, 3, 7), 1)):
        graph = layer(rng, size, stride=(stride, stride))
        case = packed_case(graph, depthwise_layer, random_input(rng, graph))
        distance = case.code.distances[0]
        assert distance is not None
        found[f"{size} {stride}"] = shifted(case, distance - nearer)
    return found


@needs_qemu
@needs_gcc
def test_the_output_may_lie_over_the_input_as_far_as_said() -> None:
    assert wrong_on_m55(overlapped(0), "gcc") == []
    assert_right_on_host(overlapped(0))


@needs_qemu
@needs_gcc
def test_farther_it_may_not() -> None:
    """A single strip may be written anywhere over its input; all others are spoilt one row nearer."""
    assert set(wrong_on_m55(overlapped(9 * 16), "gcc")) >= {"(9, 8, 16) 1", "(8, 8, 5) 1"}


def window_of(size: tuple[int, int, int], stride: tuple[int, int] = (1, 1)) -> Window:
    graph = layer(np.random.default_rng(0), size, stride=stride)
    return Window.of(graph.nodes[0], graph.tensors[0], (3, 3))


@pytest.mark.parametrize(
    "size, stride, rows, transposed",
    [
        ((48, 48, 8), (1, 1), 2, False), ((25, 5, 64), (1, 1), 2, True), ((5, 25, 64), (1, 1), 2, False),
        ((48, 48, 8), (2, 2), 1, False), ((1, 9, 8), (1, 1), 1, False), ((9, 1, 8), (1, 1), 1, True),
        ((1, 1, 8), (1, 1), 1, False),
    ],
)  # fmt: skip
def test_the_way_is_the_one_with_long_rows(
    size: tuple[int, int, int], stride: tuple[int, int], rows: int, transposed: bool
) -> None:
    found = Strips.of(window_of(size, stride))
    assert (found.rows, found.transposed) == (rows, transposed)


def test_a_small_one_keeps_to_the_images_rows() -> None:
    """Less scratch, and an output that may lie over the input, for more instructions."""
    rng = np.random.default_rng(94)
    graph = layer(rng, (25, 5, 64))
    inputs = random_input(rng, graph)
    large, small = (packed_case(graph, partial(depthwise_layer, small=small), inputs) for small in (False, True))
    assert small.code.scratch_bytes == 4 * 7 * 64 + OVERFLOW < large.code.scratch_bytes / 3
    assert (large.code.distances, small.code.distances) == ((None,), (2 * 5 * 64,))
    assert large.code.instructions < small.code.instructions
    assert_right_on_host({"small": small})


def strip_steps(strips: Strips) -> Iterator[Step]:
    """Rows of outputs, two or one at a time, the last two again if one is left; a strip is read before it is written."""
    height, width = strips.window.output
    for begin in range(0, height, strips.rows):
        first = min(begin, height - strips.rows)
        outputs = [(row, column) for row in range(first, first + strips.rows) for column in range(width)]
        reads = frozenset(pixel for output in outputs for pixel in pixels_under(strips.window, output))
        yield Step(reads, frozenset(outputs))


@pytest.mark.parametrize("size", [(6, 5, 2), (7, 4, 3), (2, 6, 1), (3, 3, 2), (9, 2, 1)])
@pytest.mark.parametrize("rows", [1, 2])
def test_distance_is_exact(size: tuple[int, int, int], rows: int) -> None:
    """Safe at the distance and beyond; spoilt one byte below it, if more than one strip is read."""
    strips = Strips(window_of(size), rows, False)
    channels, ahead = size[2], distance(strips)
    assert ahead is not None
    for more in (0, 1, 5):
        assert not spoils(strips.window, channels, strip_steps(strips), ahead + more)
    if size[0] > rows:
        assert spoils(strips.window, channels, strip_steps(strips), ahead - 1)


@pytest.mark.parametrize("size", [(6, 5, 2), (7, 4, 3), (9, 9, 1)])
@pytest.mark.parametrize("stride", [(2, 2), (1, 2), (2, 1), (3, 3)])
def test_distance_with_strides_is_safe(size: tuple[int, int, int], stride: tuple[int, int]) -> None:
    strips = Strips(window_of(size, stride), 1, False)
    ahead = distance(strips)
    assert ahead is not None
    assert not spoils(strips.window, size[2], strip_steps(strips), ahead)


def test_columns_must_keep_apart() -> None:
    """Every strip of them is written all over the image."""
    assert distance(Strips(window_of((25, 5, 4)), 2, True)) is None


def test_two_rows_need_two_rows_and_two_columns() -> None:
    assert Strips(window_of((2, 2, 4)), 2, False).possible
    assert not Strips(window_of((1, 2, 4)), 2, False).possible
    assert not Strips(window_of((2, 1, 4)), 2, True).possible
    assert not Strips(window_of((8, 8, 4), (1, 2)), 2, False).possible
    assert Strips(window_of((1, 1, 4)), 1, False).possible


def test_scratch_is_a_strip_with_its_border() -> None:
    assert Strips(window_of((48, 48, 8)), 2, False).scratch_bytes == 4 * 50 * 8 + OVERFLOW
    assert Strips(window_of((25, 5, 64)), 2, True).scratch_bytes == 4 * 27 * 64 + OVERFLOW
    assert Strips(window_of((6, 6, 16), (2, 2)), 1, False).scratch_bytes == 4 * (7 + 2) * 16 + OVERFLOW


def test_records_hold_what_the_layer_does() -> None:
    """Weights by columns, the shift in the first column's fourth byte, start and multiplier as words."""
    rng = np.random.default_rng(93)
    for size in ((9, 10, 7), (25, 5, 6)):
        graph = layer(rng, size, zero_points=(-5, -128))
        code = depthwise_layer(graph, graph.nodes[0])
        records = code.constants[0].data.reshape(-1, 5)
        weights, bias = graph.tensors[1].data, graph.tensors[2].data
        assert weights is not None and bias is not None
        kernel = weights[0].astype(np.int64)
        turned = kernel if "columns" in code.summary else kernel.swapaxes(0, 1)
        places = np.ascontiguousarray(records[:, :3]).view(np.int8).reshape(-1, 3, 4)
        assert np.array_equal(places[:, :, :3], turned.transpose(2, 0, 1))
        assert np.all(places[:, 0, 3] < 0) and np.all(places[:, 1:, 3] == 0)
        assert np.array_equal(records[:, 3].view(np.int32), bias.reshape(-1) + 5 * kernel.sum((0, 1)))
        assert int(records[:, 4].min()) >= 1 << 30
