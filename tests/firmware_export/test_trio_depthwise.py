"""depthwise_trio against the simulator on Cortex-M3 and M0+, and on the host; in the input's place; how rows are shared out."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from firmware_builder import COMPILER, COMPILERS, needs_gcc
from kernel_harness.program import Case
from packed_cases import example_layers, packed_case, random_input, refused_layers, trained_layer
from plain_core_cases import CORES, depthwise_packer, fails_on_host, overlapped, run, wrong

from firmware_export.operators._window import Window
from firmware_export.packing import Unpackable
from firmware_export.packing.depthwise_trio import Places, choose_places, depthwise_layer

SIZES = [(1, 1), (1, 7), (2, 2), (3, 3), (4, 9), (5, 25), (7, 7), (10, 3), (12, 12), (6, 20), (11, 2)]
each_core = pytest.mark.parametrize("core_class", CORES)


@cache
def cases(core_class: str) -> dict[str, Case]:
    """Examples, and layers like trained ones of every remainder of the rows, both strides, both forms."""
    rng = np.random.default_rng(130)
    packer = depthwise_packer(core_class)
    found = {f"{label} {i}": case for i, (label, case) in enumerate(example_layers("depthwise_conv2d", packer)) if i % 2 == 0}
    for place, size in enumerate(SIZES):
        for stride in (1, 2):
            channels = 1 + place % 4
            for zero_points in ((-128, -128), (31, 11)):
                graph = trained_layer(
                    rng, "depthwise_conv2d", (*size, channels), (1, 3, 3, channels), stride=(stride, stride),
                    zero_points=zero_points, same=min(size) < 3 or place % 3 != 0,
                )  # fmt: skip
                found[f"{size} stride {stride} {zero_points}"] = packed_case(graph, packer, random_input(rng, graph))
    return found


@each_core
def test_both_forms_are_among_the_cases(core_class: str) -> None:
    functions = {case.code.function for case in cases(core_class).values()}
    assert functions == {"nn_depthwise_trio_linear", "nn_depthwise_trio_signed"}


@each_core
@pytest.mark.parametrize("kind", COMPILERS)
def test_every_byte(core_class: str, kind: str) -> None:
    some = dict(list(cases(core_class).items())[:: 1 if kind == COMPILER else 3])
    assert wrong(some, core_class, kind) == []


def test_host() -> None:
    assert not fails_on_host(list(cases("v7m").values()))


@each_core
def test_in_the_inputs_place(core_class: str) -> None:
    """Each channel is gathered as a whole before any of its outputs is written."""
    assert all(case.code.in_place == (True,) for case in cases(core_class).values())
    found = {label: overlapped(case, 0) for label, case in list(cases(core_class).items())[::2]}
    assert wrong(found, core_class, COMPILER) == []


@needs_gcc
@pytest.mark.parametrize("core_class, most", [("v7m", 25), ("v6m", 58)])
def test_instructions_of_an_output(core_class: str, most: float) -> None:
    """57 instructions for three outputs on a Cortex-M3, 11 for three pixels."""
    rng = np.random.default_rng(4)
    graph = trained_layer(rng, "depthwise_conv2d", (24, 24, 4), (1, 3, 3, 4))
    found = run([packed_case(graph, depthwise_packer(core_class), random_input(rng, graph))], core_class, "gcc")
    assert found.failures == [0]
    assert found.instructions[0] / (24 * 24 * 4) < most


@each_core
@pytest.mark.parametrize("weight", [-128, 127])
@pytest.mark.parametrize("zero_point", [-128, 127, 0])
def test_largest_sums(core_class: str, weight: int, zero_point: int) -> None:
    """All weights and pixels at the ends of int8, and neighbouring rows of opposite signs."""
    rng = np.random.default_rng(5)
    found = {}
    for deviation in (2, 400):
        graph = trained_layer(
            rng, "depthwise_conv2d", (7, 5, 2), (1, 3, 3, 2), zero_points=(zero_point, -3), deviation=deviation
        )
        data = graph.tensors[1].data
        assert data is not None
        data[:] = weight
        rows = np.where(np.arange(7) % 2 == 0, 127, -128).astype(np.int8)[None, :, None, None]
        pattern = np.broadcast_to(rows, (1, 7, 5, 2)).copy()
        for name, x in (("high", np.full_like(pattern, 127)), ("low", np.full_like(pattern, -128)), ("rows", pattern)):
            found[f"{deviation} {name}"] = packed_case(graph, depthwise_packer(core_class), (x,))
    assert wrong(found, core_class, COMPILER) == []
    assert not fails_on_host(list(found.values()))


@each_core
def test_clamp_narrower_than_int8(core_class: str) -> None:
    rng = np.random.default_rng(11)
    graph = trained_layer(rng, "depthwise_conv2d", (5, 7, 3), (1, 3, 3, 3), zero_points=(-128, -20), deviation=300)
    graph.nodes[0].attributes["clamp"] = (-20, 60)
    case = packed_case(graph, depthwise_packer(core_class), random_input(rng, graph))
    assert case.expected.min() == -20 and case.expected.max() == 60
    assert wrong({"clamp": case}, core_class, COMPILER) == []


def test_channels_of_one_value() -> None:
    """Weights of zero, and a bias that saturates: packed without weights."""
    rng = np.random.default_rng(12)
    graph = trained_layer(rng, "depthwise_conv2d", (4, 4, 4), (1, 3, 3, 4), zero_points=(0, 20))
    weights, bias = graph.tensors[1].data, graph.tensors[2].data
    assert weights is not None and bias is not None
    weights[..., 1] = 0
    bias[2:] = (1 << 24, -(1 << 24))
    case = packed_case(graph, depthwise_packer("v7m"), random_input(rng, graph))
    packed = next(constant.data for constant in case.code.constants if constant.suffix == "weights")
    assert not packed[1:].any() and packed[0].any()
    assert case.expected[..., 2].min() == 127 and case.expected[..., 3].max() == -128
    assert wrong({"constant": case}, "v7m", COMPILER) == [] and not fails_on_host([case])


def test_what_cannot_be_packed_says_why() -> None:
    reasons = set(refused_layers("depthwise_conv2d", depthwise_packer("v7m")).values())
    kinds = ("a window of", "outputs for each channel", "no short form", "padding", "an accumulator")
    assert reasons and all(reason.startswith(kinds) or any(kind in reason for kind in kinds) for reason in reasons)


def test_other_windows_are_refused() -> None:
    rng = np.random.default_rng(13)
    graph = trained_layer(rng, "depthwise_conv2d", (6, 6, 2), (1, 5, 3, 2))
    with pytest.raises(Unpackable, match="window of \\(5, 3\\)"):
        depthwise_layer(graph, graph.nodes[0], core_class="v7m")


def window(size: tuple[int, int], stride: int, padding: tuple[int, int, int, int]) -> Window:
    output = [(size[i] + padding[2 * i] + padding[2 * i + 1] - 3) // stride + 1 for i in (0, 1)]
    return Window(size, 2, (3, 3), (stride, stride), (1, 1), padding, (output[0], output[1]))


WINDOWS = [
    window((9, 4), 1, (1, 1, 1, 1)), window((4, 9), 1, (1, 1, 1, 1)), window((8, 8), 2, (0, 1, 0, 1)),
    window((7, 7), 2, (1, 1, 1, 1)), window((3, 3), 1, (0, 0, 0, 0)), window((1, 12), 1, (1, 1, 1, 1)),
    window((25, 5), 1, (1, 1, 1, 1)), window((2, 2), 1, (1, 1, 1, 1)), window((10, 11), 1, (2, 2, 2, 2)),
]  # fmt: skip


@pytest.mark.parametrize("place", range(len(WINDOWS)))
def test_places_hold_all_rows(place: int) -> None:
    """Every row of outputs lies in some place, and what lies under it among the place's rows of pairs."""
    places = choose_places(WINDOWS[place])
    rows = {begin + row for begin in places.begins for row in range(places.rows)}
    assert rows == set(range(places.outer.outputs))
    for begin, first in zip(places.begins, places.image_rows(), strict=True):
        last_window = (begin + places.rows - 1) * places.stride - places.outer.before
        assert first == begin * places.stride - places.outer.before
        assert last_window + 3 <= first + places.x_rows


@pytest.mark.parametrize("place", range(len(WINDOWS)))
def test_runs_say_which_rows_lie_on_the_image(place: int) -> None:
    places = choose_places(WINDOWS[place])
    runs = np.array(places.runs()).reshape(-1, 2)
    assert runs[:, 0].sum() == places.x_rows
    masks = np.repeat(runs[:, 1], runs[:, 0])
    for row, mask in enumerate(masks):
        for bit, first in enumerate(places.image_rows()):
            assert bool(mask >> bit & 1) == (0 <= first + row < places.outer.size)


@pytest.mark.parametrize("place", range(len(WINDOWS)))
def test_rows_of_pairs_hold_the_windows(place: int) -> None:
    """Pixels of the image and what lies outside it: as many pairs as the windows of a row reach over."""
    places = choose_places(WINDOWS[place])
    fields = places.fields()
    assert fields["first"] + fields["pixels"] <= fields["x_columns"]
    assert fields["x_columns"] == (places.inner.outputs - 1) * places.stride + 3
    assert fields["pixels"] <= places.inner.size
    assert places.scratch_bytes == 8 * fields["x_columns"] * fields["x_rows"]


def test_rows_run_along_the_shorter_way_round() -> None:
    """25 x 5: nine rows in three places waste two; five rows of 25 waste one of six but have longer rows of pairs."""
    tall, wide = choose_places(WINDOWS[6]), choose_places(window((5, 25), 1, (1, 1, 1, 1)))
    assert tall.transposed != wide.transposed
    assert tall.scratch_bytes == wide.scratch_bytes
    assert isinstance(tall, Places) and tall.instructions("v6m") > tall.instructions("v7m")
