"""Winograd layers as they are packed: run in numpy from their constants, their blockings, their scratch."""

from __future__ import annotations

import numpy as np
import pytest
from packed_cases import random_input, trained_layer
from step_models import convolved, signed, winograd_input, winograd_outputs, winograd_weights, wrap

from firmware_export.graph import Graph
from firmware_export.operators import LayerCode
from firmware_export.operators._window import Window
from firmware_export.packing import Unpackable
from firmware_export.packing.conv2d_winograd import (
    Blocking,
    best_blocking,
    blockings,
    tile_counts,
    winograd_layer,
)
from firmware_export.simulate import simulate

LARGE = 1 << 20


def run_packed(code: LayerCode, graph: Graph, image: np.ndarray) -> np.ndarray:
    """The layer from its packed constants, tile by tile, in the arithmetic of the kernel."""
    window = Window.of(graph.nodes[0], graph.tensors[0], (3, 3))
    weights, constants = (constant.data.astype(np.int64) for constant in code.constants)
    fill, rounding = int(code.fields["fill"]), int(code.fields["rounding"])
    shift = int(code.function.rsplit("_", 1)[1])
    rows, columns = tile_counts(window)
    top, _, left, _ = window.padding
    padded = np.full((2 * rows + 2, 2 * columns + 2, window.channels), fill, np.int64)
    source = image[0, : 2 * rows + 2 - top, : 2 * columns + 2 - left]
    padded[top : top + source.shape[0], left : left + source.shape[1]] = source
    output = np.zeros((2 * rows, 2 * columns, weights.shape[0]), np.int64)
    for row, column in np.ndindex(rows, columns):
        v = winograd_input(padded[2 * row : 2 * row + 4, 2 * column : 2 * column + 4])
        for o, (kernel, (start, factor, negative)) in enumerate(zip(weights, constants, strict=True)):
            sums = winograd_outputs(winograd_weights(kernel.reshape(3, 3, -1)), v)
            scaled = wrap(64 * sums + start)
            values = signed(scaled, factor, negative, rounding, shift)
            output[2 * row : 2 * row + 2, 2 * column : 2 * column + 2, o] = values.reshape(2, 2)
    return output[: window.output[0], : window.output[1]]


@pytest.mark.parametrize("size", [(4, 4, 4), (5, 7, 8), (1, 2, 4), (6, 3, 12)])
@pytest.mark.parametrize("zero_points", [(-128, -128), (9, -128), (-128, 4), (83, 101)])
def test_run_in_numpy_it_is_the_layer(size: tuple[int, int, int], zero_points: tuple[int, int]) -> None:
    rng = np.random.default_rng(size[1])
    graph = trained_layer(rng, "conv2d", size, (4, 3, 3, size[2]), zero_points=zero_points)
    inputs = random_input(rng, graph)
    code = winograd_layer(graph, graph.nodes[0], scratch_limit=LARGE)
    np.testing.assert_array_equal(run_packed(code, graph, inputs[0])[None], simulate(graph, *inputs)[0])


def test_valid_padding_reads_no_border() -> None:
    rng = np.random.default_rng(3)
    graph = trained_layer(rng, "conv2d", (7, 6, 4), (2, 3, 3, 4), same=False)
    inputs = random_input(rng, graph)
    code = winograd_layer(graph, graph.nodes[0], scratch_limit=LARGE)
    np.testing.assert_array_equal(run_packed(code, graph, inputs[0])[None], simulate(graph, *inputs)[0])


def test_a_linear_form_is_a_signed_one_without_sign() -> None:
    """Behind a ReLU negative and rounding are 0; around zero they are not."""
    rng = np.random.default_rng(4)
    for zero_point, is_linear in ((-128, True), (4, False)):
        graph = trained_layer(rng, "conv2d", (4, 4, 8), (4, 3, 3, 8), zero_points=(-128, zero_point))
        code = winograd_layer(graph, graph.nodes[0], scratch_limit=LARGE)
        negative = code.constants[1].data[:, 2]
        assert (not negative.any() and code.fields["rounding"] == "0") == is_linear


def test_weights_are_stored_as_they_are() -> None:
    graph = trained_layer(np.random.default_rng(5), "conv2d", (4, 4, 8), (4, 3, 3, 8))
    code = winograd_layer(graph, graph.nodes[0], scratch_limit=LARGE)
    weights = graph.tensors[1].data
    assert weights is not None
    np.testing.assert_array_equal(code.constants[0].data, weights.reshape(4, -1))


def test_products_are_saved() -> None:
    """What it is for: 16 products for four outputs instead of 36, on any tile."""
    rng = np.random.default_rng(6)
    tile, kernel = rng.integers(-128, 128, (4, 4, 4)), rng.integers(-128, 128, (3, 3, 4))
    u, v = winograd_weights(kernel), winograd_input(tile)
    assert u.size == v.size == 16 * 4
    np.testing.assert_array_equal(winograd_outputs(u, v), 4 * convolved(tile, kernel))


def square(size: int, channels: int) -> Window:
    return Window((size, size), channels, (3, 3), (1, 1), (1, 1), (1, 1, 1, 1), (size, size))


def test_tile_counts_round_up() -> None:
    assert tile_counts(square(8, 4)) == (4, 4)
    assert tile_counts(square(7, 4)) == (4, 4)
    assert tile_counts(square(1, 4)) == (1, 1)


def test_blockings_cover_all_tiles() -> None:
    """Even numbers of tiles, from all of them down to two; one way with all kernels kept."""
    ways = list(blockings(16, 8))
    assert ways[0] == Blocking(2, True)
    assert {way.tiles for way in ways[1:]} == {16, 8, 6, 4, 2}
    assert all(way.tiles % 2 == 0 for way in ways)


@pytest.mark.parametrize("tiles, resident, expected", [(2, True, 32 * 16 * (2 + 8)), (6, False, 32 * 16 * (6 + 2))])
def test_scratch_of_the_transforms(tiles: int, resident: bool, expected: int) -> None:
    """16 positions of two bytes for each channel: of the tiles, and of all outputs or of two."""
    rest = 4 * 8 * tiles + 16 * 16 + 8
    assert Blocking(tiles, resident).scratch_bytes(16, 8) == expected + rest


def test_the_best_blocking_depends_on_the_scratch() -> None:
    """ResNet-8's layers: few channels keep all kernels, many channels keep many tiles."""
    assert best_blocking(square(32, 16), 16, 10_000) == Blocking(2, True)
    few, more = best_blocking(square(8, 64), 64, 14_000), best_blocking(square(8, 64), 64, 22_000)
    assert not few.resident and not more.resident and few.tiles < more.tiles
    assert best_blocking(square(8, 64), 64, 40_000) == Blocking(16, False)


def test_the_smallest_blocking() -> None:
    """Two tiles and two outputs; a byte less is too little."""
    window = square(8, 16)
    least = min(way.scratch_bytes(16, 16) for way in blockings(16, 16))
    assert best_blocking(window, 16, least).tiles == 2
    with pytest.raises(Unpackable, match="scratch"):
        best_blocking(window, 16, least - 1)


def test_the_estimate_orders_like_the_kernel() -> None:
    """More passes make more transforms of kernels."""
    costs = [Blocking(tiles, False).instructions(64, 32, 32) for tiles in (2, 8, 16, 64)]
    assert costs == sorted(costs, reverse=True)
    assert Blocking(2, True).instructions(64, 32, 32) == Blocking(64, False).instructions(64, 32, 32)


@pytest.mark.parametrize(
    "weights, options, reason",
    [
        ((4, 3, 3, 6), {}, "6 channels"),
        ((3, 3, 3, 8), {}, "3 outputs"),
        ((4, 3, 3, 68), {}, "68 channels"),
        ((4, 5, 5, 8), {}, "a window of"),
        ((4, 3, 3, 8), {"stride": (2, 2)}, "a window of"),
    ],
)
def test_what_has_no_kernel(weights: tuple[int, ...], options: dict[str, tuple[int, int]], reason: str) -> None:
    graph = trained_layer(np.random.default_rng(7), "conv2d", (8, 8, weights[3]), weights, **options)  # type: ignore[arg-type]
    with pytest.raises(Unpackable, match=reason):
        winograd_layer(graph, graph.nodes[0], scratch_limit=LARGE)


def test_the_comment_tells_the_layer_and_the_blocking() -> None:
    graph = trained_layer(np.random.default_rng(8), "conv2d", (8, 6, 8), (4, 3, 3, 8))
    code = winograd_layer(graph, graph.nodes[0], scratch_limit=LARGE)
    assert "8x6x8 -> 8x6x4, winograd" in code.summary and f"{code.fields['tiles']} tiles" in code.summary
