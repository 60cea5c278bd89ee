"""Smaller kernels where moments do not fit together, step by step; how planes are measured, against the windows' own pixels."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from graph_builder import Build

from firmware_export.graph import Graph
from firmware_export.operators import LayerCode
from firmware_export.operators._window import Window
from firmware_export.packing import Unpackable
from firmware_export.packing.instructions import _Fields, _form, estimate
from firmware_export.packing.planes import directions
from firmware_export.planning.blocks import build_problem
from firmware_export.planning.choice import (
    Chosen,
    Option,
    Selection,
    _placed,
    _smaller,
    choose,
    footprint,
    relieved,
    score_of,
    worthwhile,
)
from firmware_export.planning.lives import Lives
from firmware_export.planning.placement import Placement, is_right


def chain(*sizes: int) -> Graph:
    build = Build()
    x = y = build.activation((1, sizes[0]), name="x")
    for size in sizes[1:]:
        y = build.node("relu", (y,), build.activation((1, size)), clamp=(-128, 127))
    return build.graph(x, y)


def code(scratch: int, instructions: int, **more: object) -> LayerCode:
    return replace(LayerCode("nn_relu", "", {}, scratch_bytes=scratch, instructions=instructions), **more)  # type: ignore[arg-type]


SMALL, LARGE = [code(8, 200), code(16, 250)], [code(32, 100), code(64, 120)]
OPTIONS = [[Option(small, 100), Option(large, 200)] for small, large in zip(SMALL, LARGE, strict=True)]


def chosen(codes: tuple[LayerCode, ...], offsets: list[int]) -> Chosen:
    """Tensors of 64 bytes, then the scratches; the buffer ends where the last block does."""
    problem, _, _ = build_problem(GRAPH, Lives.of(GRAPH), codes)
    size = max(at + block.size for at, block in zip(offsets, problem.blocks, strict=True))
    return Chosen(Selection(codes, 150, sum(c.instructions for c in codes)), Placement(offsets, size), False)


GRAPH = chain(64, 64, 64)


@pytest.mark.parametrize(
    ("offsets", "relieved_nodes"),
    [
        ([0, 64, 0, 128, 192], [1]),  # the second node's scratch is last
        ([0, 64, 0, 200, 64], [0]),  # the first one's
        ([200, 64, 0, 128, 128], [0]),  # the input, which lives to node 0
        ([0, 200, 0, 128, 128], [0, 1]),  # what lives through both
        ([0, 64, 200, 128, 128], [1]),  # the output
        ([200, 64, 200, 128, 128], [0, 1]),  # two blocks
    ],
)
def test_nodes_of_the_blocks_at_the_end_are_given_less(offsets: list[int], relieved_nodes: list[int]) -> None:
    now = chosen((LARGE[0], LARGE[1]), offsets)
    found = list(_smaller(GRAPH, Lives.of(GRAPH), OPTIONS, now))
    changes = [(node,) for node in relieved_nodes] + ([tuple(relieved_nodes)] if len(relieved_nodes) > 1 else [])
    expected = [tuple((SMALL if node in nodes else LARGE)[node] for node in (0, 1)) for nodes in changes]
    assert [selection.codes for selection in found] == expected, "one after the other, then all at once"
    for selection in found:
        assert selection.bound == 150 and selection.instructions == sum(c.instructions for c in selection.codes)


def test_the_smallest_kernel_has_no_smaller_one() -> None:
    now = chosen((SMALL[0], LARGE[1]), [0, 200, 0, 128, 128])
    (one,) = _smaller(GRAPH, Lives.of(GRAPH), OPTIONS, now)
    assert one.codes == (SMALL[0], SMALL[1]) and one.instructions == 450
    now = chosen((SMALL[0], SMALL[1]), [0, 200, 0, 128, 128])
    assert all(selection.codes == now.selection.codes for selection in _smaller(GRAPH, Lives.of(GRAPH), OPTIONS, now))


def test_the_next_smaller_kernel_is_tried_first() -> None:
    three = [[Option(code(0, 900), 64), Option(code(24, 300), 90), Option(code(64, 100), 128)], OPTIONS[1]]
    now = chosen((three[0][2].code, SMALL[1]), [0, 200, 0, 128, 128])
    assert [selection.instructions for selection in _smaller(GRAPH, Lives.of(GRAPH), three, now)] == [300 + 250]


def random_options(rng: random.Random, nodes: int) -> list[list[LayerCode]]:
    """Kernels with scratch, some of which may write over their input."""
    found = []
    for _ in range(nodes):
        distances = rng.choice(((), (0,), (64,), (None,)))
        kernels = [(8 * rng.randint(0, 30), rng.randint(50, 400)) for _ in range(3)]
        found.append([code(scratch, count, distances=distances) for scratch, count in kernels])
    return found


@pytest.mark.parametrize("goal", ["ram", "balanced", "time"])
@pytest.mark.parametrize("seed", range(12))
def test_relief_never_makes_it_worse_and_counts_right(goal: str, seed: int) -> None:
    rng = random.Random(seed)
    graph = chain(*(8 * rng.randint(1, 40) for _ in range(6)))
    lives, options = Lives.of(graph), random_options(rng, 5)
    rated = [worthwhile([Option(c, footprint(graph, lives, n, c)) for c in codes]) for n, codes in enumerate(options)]
    largest = tuple(around[-1].code for around in rated)
    bound = max(around[-1].footprint for around in rated)
    selection = Selection(largest, bound, sum(c.instructions for c in largest))
    score = score_of(goal, [selection])
    first = _placed(graph, lives, selection)
    after = relieved(graph, lives, rated, first, score)
    given = [score(one.selection.instructions, one.placement.size) for one in (first, after)]
    assert given[1] <= given[0]
    assert after.selection.instructions == sum(c.instructions for c in after.selection.codes)
    assert len(after.selection.codes) == 5 and all(c in options[n] for n, c in enumerate(after.selection.codes))
    problem, _, _ = build_problem(graph, lives, after.selection.codes)
    assert is_right(problem, after.placement.offsets)
    if goal == "time":
        assert after.selection.codes == largest
    best = choose(graph, lives, options, goal)
    assert best.selection.instructions == sum(c.instructions for c in best.selection.codes)


def test_a_kernel_is_given_up_where_its_scratch_cannot_fit() -> None:
    """With 96 bytes of scratch in node 0 the tensors of node 1 cannot lie where they must; with 8 they can."""
    graph = chain(184, 184, 368)
    options = [[code(8, 130), code(96, 100, in_place=(True,))], [code(0, 50, distances=(184,))]]
    lives = Lives.of(graph)
    rated = [[Option(c, footprint(graph, lives, n, c)) for c in codes] for n, codes in enumerate(options)]
    codes = (options[0][1], options[1][0])
    first = _placed(graph, lives, Selection(codes, max(rated[0][1].footprint, rated[1][0].footprint), 150))
    after = relieved(graph, lives, rated, first, score_of("ram", [Selection(codes, 1, 150)]))
    if first.placement.size > first.selection.bound:
        assert after.placement.size <= first.placement.size
    assert after.selection.instructions in (150, 180)


def window(size: tuple[int, int], stride: int, padding: tuple[int, int, int, int], channels: int = 4) -> Window:
    output = tuple((size[i] + padding[2 * i] + padding[2 * i + 1] - 3) // stride + 1 for i in (0, 1))
    return Window(size, channels, (3, 3), (stride, stride), (1, 1), padding, (output[0], output[1]))


PADDINGS = ((0, 0, 0, 0), (1, 1, 1, 1), (0, 1, 0, 1), (1, 0, 2, 0), (2, 2, 1, 2))


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("stride", [1, 2])
def test_rows_of_planes_hold_the_pixels_that_windows_see(stride: int, padding: tuple[int, int, int, int]) -> None:
    for size in ((3, 3), (4, 7), (7, 4), (8, 9), (5, 62)):
        geometry = window(size, stride, padding)
        for planes, transposed in directions(geometry):
            axis = 0 if transposed else 1
            before, outputs = padding[2 * axis], geometry.output[axis]
            seen = {out * stride - before + tap for out in range(outputs) for tap in range(3)} & set(range(size[axis]))
            assert max(seen) < planes.pixels <= size[axis], "every pixel under a window lies in the planes"
            fields = planes.fields(1)
            assert fields["lead"] + 2 * fields["pairs"] + fields["trail"] == planes.pixels
            assert 2 * fields["first_word"] + fields["lead"] == before and fields["trail"] in (0, 1)
            made = 2 * planes.words + planes.alone if stride == 1 else planes.words
            assert made == outputs and planes.alone in ((0, 1) if stride == 1 else (0,))
            assert 2 * planes.row_words >= (outputs - 1) * stride + 3, "all taps are within the words that are read"
            assert 4 * planes.row_words <= planes.pitch
            other = 1 - axis
            assert (fields["rows"], fields["before"], fields["image_rows"]) == (
                geometry.output[other],
                padding[2 * other],
                size[other],
            )
            steps = {0: (size[1] * 4, geometry.output[1] * 4), 1: (4, 4)}
            assert (fields["pixel_step"], fields["output_step"]) == steps[axis]
            assert (fields["image_row_step"], fields["output_row_step"]) == steps[other]


@pytest.mark.parametrize("band, rows", [(1, 3), (2, 4), (5, 7)])
def test_a_plane_holds_the_rows_of_its_band(band: int, rows: int) -> None:
    one, _ = directions(window((20, 20), 1, (1, 1, 1, 1)))[0]
    two, _ = directions(window((20, 20), 2, (0, 1, 0, 1)))[0]
    assert one.plane_bytes(band) == rows * one.pitch and two.plane_bytes(band) == (2 * (band - 1) + 3) * two.pitch


def test_the_way_with_fewer_and_longer_rows_is_cheaper() -> None:
    """Each row costs something of its own."""
    for stride in (1, 2):
        (first, transposed), *_ = directions(window((6, 40), stride, (1, 1, 1, 1)))
        assert not transposed and first.outer.outputs < first.inner.outputs
        (first, transposed), *_ = directions(window((40, 6), stride, (1, 1, 1, 1)))
        assert transposed and first.outer.outputs < first.inner.outputs
    with pytest.raises(Unpackable, match="300x301"):
        directions(window((300, 301), 1, (1, 1, 1, 1)))


def call(params: str, function: str = "nn_f_linear", **fields: int) -> LayerCode:
    names = {name.replace("window_", "window."): str(value) for name, value in fields.items()}
    return LayerCode(function, params, names)


@pytest.mark.parametrize(
    "size, kernel, stride, padding", [(8, 3, 1, 1), (8, 3, 2, 0), (7, 5, 1, 2), (6, 6, 1, 0), (3, 5, 1, 2)]
)
def test_windows_inside_are_those_that_reach_over_no_edge(size: int, kernel: int, stride: int, padding: int) -> None:
    count = (size + 2 * padding - kernel) // stride + 1
    values = {"window_input_h": size, "window_input_w": size, "window_padding_top": padding, "window_padding_left": padding}
    fields = _Fields(call("", **values))
    inside = [out for out in range(count) if {out * stride - padding + tap for tap in range(kernel)} <= set(range(size))]
    assert fields.inside("h", kernel, stride, count) == fields.inside("w", kernel, stride, count) == len(inside)
    assert fields["missing"] == 0 and fields.window("input_h") == size


def test_the_forms_of_output_stages_by_their_names() -> None:
    names = {"nn_x_linear_7": 1, "nn_x_signed_10": 2, "nn_x_direct_signed_8": 2, "nn_x_general": 3, "nn_x_signed_general": 3}
    assert {name: _form(name, 1, 2, 3) for name in names} == names


DENSE = {"outputs": 40, "steps": 25, "batches": 1}
PIXELS = {f"window_{name}": value for name, value in (
    ("input_h", 12), ("input_w", 12), ("output_h", 10), ("output_w", 10), ("kernel_h", 3), ("kernel_w", 3), ("stride_h", 1),
    ("stride_w", 1), ("channels", 8),
)}  # fmt: skip
CONV = {**PIXELS, "outputs": 16, "steps": 18, "rows": 3, "row_words": 6, "row_tail": 0}
TILES = {**PIXELS, "outputs": 16, "tiles": 8, "resident": 1}
PLANES = {"stride": 1, "channels": 8, "group": 4, "rows": 10, "band": 5, "lead": 1, "pairs": 5, "trail": 1, "words": 5,
          "image_rows": 10, "before": 1, "row_words": 6}  # fmt: skip
MODELS = [
    ("nn_fully_connected_r256_params", DENSE, ("outputs", "steps", "batches")),
    (
        "nn_conv2d_r256_params",
        CONV,
        ("outputs", "steps", "window_output_h", "window_output_w", "window_padding_top", "row_tail"),
    ),
    ("nn_conv2d_winograd_params", TILES, ("outputs", "window_channels", "window_output_h", "window_padding_left")),
    ("nn_depthwise_planes_params", PLANES, ("channels", "rows", "words", "pairs")),
]


@pytest.mark.parametrize(("params", "fields", "growing"), MODELS, ids=[params for params, _, _ in MODELS])
def test_more_work_is_more_instructions(params: str, fields: dict[str, int], growing: tuple[str, ...]) -> None:
    """At twice the outputs nearly twice as many; a general output stage costs more than a signed, that more than a linear."""
    base = estimate(call(params, **fields))
    assert base > 500
    for name in growing:
        more = estimate(call(params, **{**fields, name: 2 * fields.get(name, 0) + 1}))
        assert more > base, name
    if "outputs" in fields:
        twice = estimate(call(params, **{**fields, "outputs": 2 * fields["outputs"]}))
        assert 1.7 * base < twice <= 2 * base
    if "winograd" not in params and "planes" not in params:
        forms = [estimate(call(params, f"nn_f_{form}", **fields)) for form in ("linear", "signed", "general")]
        assert forms == sorted(forms) and len(set(forms)) == 3


def test_what_costs_instructions_to_save_others() -> None:
    """Copying a border saves windows over edges; reading a vector directly saves expanding it, at dearer steps."""
    edges = estimate(call("nn_conv2d_r256_params", **{**CONV, "window_padding_top": 1, "window_padding_left": 1}))
    copied = estimate(call("nn_conv2d_r256_params", **CONV, padded=1))
    assert estimate(call("nn_conv2d_r256_params", **CONV)) < copied < edges
    direct, expanded = (
        [estimate(call("nn_fully_connected_r256_params", f"nn_{how}linear", **{**DENSE, "outputs": n})) for n in (4, 200)]
        for how in ("direct_", "")
    )
    assert direct[0] < expanded[0] and direct[1] > expanded[1]
    kept, again = (estimate(call("nn_conv2d_winograd_params", **{**TILES, "resident": flag})) for flag in (1, 0))
    assert kept < again, "kernels are transformed once, or for every block of tiles"
    one, all_rows = (estimate(call("nn_depthwise_planes_params", **{**PLANES, "band": band})) for band in (1, 10))
    assert all_rows < one
