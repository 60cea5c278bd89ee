"""depthwise_planes against the simulator on every core it is built for, in place and apart; its instructions."""

from __future__ import annotations

from functools import cache, partial

import numpy as np
import pytest
from fast_kernel_checks import assert_portable, instructions, shifted, wrong_labels
from firmware_builder import COMPILERS, needs_gcc
from kernel_harness.program import Case
from packed_cases import example_layers, packed_case, random_input, refused_layers, trained_layer

from firmware_export.operators._window import Window
from firmware_export.packing import Unpackable
from firmware_export.packing.depthwise_planes import depthwise_layer, planes_of

SHAPES = [
    ((25, 5, 8), (1, 1)), ((9, 8, 4), (1, 1)), ((6, 6, 7), (1, 1)), ((3, 3, 5), (1, 1)), ((1, 1, 4), (1, 1)),
    ((12, 12, 6), (2, 2)), ((7, 9, 4), (2, 2)), ((6, 6, 9), (2, 2)), ((2, 70, 5), (1, 1)), ((3, 66, 4), (2, 2)),
    ((4, 4, 1), (1, 1)), ((5, 4, 3), (2, 2)), ((62, 3, 4), (1, 1)), ((4, 2, 4), (1, 1)),
]  # fmt: skip


@cache
def cases() -> dict[str, Case]:
    """Examples and layers like trained ones; each apart and in place, with four channels at a time and with one."""
    rng = np.random.default_rng(30)
    found = {f"{label} {i}": case for i, (label, case) in enumerate(example_layers("depthwise_conv2d", depthwise_layer))}
    for size, stride in SHAPES:
        for same, deviation in ((True, 80), (False, 20)):
            if not same and min(size[:2]) < 3:
                continue
            weights = (1, 3, 3, size[2])
            graph = trained_layer(rng, "depthwise_conv2d", size, weights, stride=stride, same=same, deviation=deviation)
            for group in (4, 1):
                case = packed_case(graph, partial(depthwise_layer, group=group), random_input(rng, graph))
                found[f"trained {size} {stride} {same} {deviation} {group}"] = case
    trained = {f"{label}, in place": shifted(case, 0) for label, case in found.items() if label.startswith("trained")}
    return found | trained


def test_all_kernels_are_among_the_cases() -> None:
    names = {case.code.function.removeprefix("nn_depthwise_planes_") for case in cases().values()}
    assert {"s1_7", "s2_7", "s1_7_wide", "s2_7_wide"} <= names


@pytest.mark.parametrize("kind", COMPILERS)
def test_cortex_m4(kind: str) -> None:
    assert wrong_labels(cases(), kind) == []


def test_portable_steps() -> None:
    assert_portable(list(cases().values()))


def test_shift_10() -> None:
    """Chosen where 7 is too coarse; both strides and both pitches, with the constants of shift 7 scaled by 8."""
    rng = np.random.default_rng(31)
    found = {}
    for size, stride in (((8, 7, 4), (1, 1)), ((9, 9, 4), (2, 2)), ((3, 64, 4), (1, 1)), ((3, 66, 4), (2, 2))):
        graph = trained_layer(rng, "depthwise_conv2d", size, (1, 3, 3, size[2]), stride=stride)
        case = packed_case(graph, partial(depthwise_layer, shifts=(10,)), random_input(rng, graph))
        found[f"{size} {stride}"] = case
    assert {case.code.function for case in found.values()} == {
        f"nn_depthwise_planes_s{stride}_10{width}" for stride in (1, 2) for width in ("", "_wide")
    }
    assert wrong_labels(found, "zig") == []
    assert_portable(list(found.values()))


@needs_gcc
@pytest.mark.parametrize(
    "size, stride, limit", [((24, 24, 8), (1, 1), 1.75), ((25, 5, 16), (1, 1), 1.85), ((24, 24, 8), (2, 2), 3.0)]
)
def test_instructions(size: tuple[int, int, int], stride: tuple[int, int], limit: float) -> None:
    """Per product, requantization and copies included."""
    rng = np.random.default_rng(32)
    graph = trained_layer(rng, "depthwise_conv2d", size, (1, 3, 3, size[2]), stride=stride)
    case = packed_case(graph, depthwise_layer, random_input(rng, graph))
    assert 1.0 < instructions(case) / (9 * case.expected.size) < limit


def window(size: tuple[int, int], stride: int = 1, padding: tuple[int, int, int, int] = (1, 1, 1, 1)) -> Window:
    output = tuple((size[i] + padding[2 * i] + padding[2 * i + 1] - 3) // stride + 1 for i in (0, 1))
    return Window(size, 4, (3, 3), (stride, stride), (1, 1), padding, (output[0], output[1]))


def test_planes_run_along_the_longer_edge() -> None:
    tall, transposed = planes_of(window((25, 5)))
    assert transposed and tall.inner.outputs == 25 and tall.rows == 7
    _, transposed = planes_of(window((5, 25)))
    assert not transposed


def test_planes_of_stride_2_hold_only_what_is_read() -> None:
    """Valid padding leaves the last row and column of an even image out."""
    planes, _ = planes_of(window((8, 8), 2, (0, 0, 0, 0)))
    assert planes.copied == (7, 8)
    assert planes.fields()["plane_bytes"] == 7 * 128


@pytest.mark.parametrize("width, pitch", [(60, 128), (62, 128), (63, 256), (126, 256)])
def test_pitch(width: int, pitch: int) -> None:
    planes, _ = planes_of(window((200, width)))
    assert planes.pitch == pitch


def test_what_cannot_be_packed_says_why() -> None:
    reasons = refused_layers("depthwise_conv2d", depthwise_layer).values()
    assert any("a window of" in reason for reason in reasons)
    assert any("outputs for each channel" in reason for reason in reasons)
    assert any("has no linear form" in reason for reason in reasons)
    with pytest.raises(Unpackable, match="300x300"):
        planes_of(window((300, 300)))
