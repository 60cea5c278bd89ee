"""depthwise_planes against the simulator on every core it is built for, in place and apart; its instructions."""

from __future__ import annotations

from functools import cache, partial

import numpy as np
import pytest
from fast_kernel_checks import assert_portable, instructions, shifted, wrong_labels
from firmware_builder import ONE_QUICK_COMPILER, needs_gcc
from kernel_harness.program import Case
from packed_cases import example_layers, packed_case, random_input, refused_layers, trained_layer

from firmware_export.operators._window import Window
from firmware_export.packing import Unpackable
from firmware_export.packing.depthwise_planes import depthwise_layer
from firmware_export.packing.planes import directions

SHAPES = [
    ((25, 5, 8), (1, 1)), ((9, 8, 4), (1, 1)), ((6, 6, 7), (1, 1)), ((3, 3, 5), (1, 1)), ((1, 1, 4), (1, 1)),
    ((12, 12, 6), (2, 2)), ((7, 9, 4), (2, 2)), ((6, 6, 9), (2, 2)), ((2, 70, 5), (1, 1)), ((3, 66, 4), (2, 2)),
    ((4, 4, 1), (1, 1)), ((5, 4, 3), (2, 2)), ((62, 3, 4), (1, 1)), ((4, 2, 4), (1, 1)),
]  # fmt: skip


@cache
def cases() -> dict[str, Case]:
    """Examples and layers like trained ones, apart and in place: whole planes, bands of four channels and of one."""
    rng = np.random.default_rng(30)
    found = {f"{label} {i}": case for i, (label, case) in enumerate(example_layers("depthwise_conv2d", depthwise_layer))}
    for size, stride in SHAPES:
        for same, deviation in ((True, 80), (False, 20)):
            if not same and min(size[:2]) < 3:
                continue
            weights = (1, 3, 3, size[2])
            graph = trained_layer(rng, "depthwise_conv2d", size, weights, stride=stride, same=same, deviation=deviation)
            for limit in (1 << 20, 4 * 5 * 128, 0):
                label, inputs = f"trained {size} {stride} {same} {deviation} {limit}", random_input(rng, graph)
                found[label] = packed_case(graph, partial(depthwise_layer, scratch_limit=limit), inputs)
                in_place = partial(depthwise_layer, scratch_limit=limit, in_place=True)
                found[f"{label}, in place"] = shifted(packed_case(graph, in_place, inputs), 0)
    return found


def test_all_kernels_are_among_the_cases() -> None:
    names = {case.code.function.removeprefix("nn_depthwise_planes_") for case in cases().values()}
    assert {"s1_7", "s2_7", "s1_7_wide", "s2_7_wide"} <= names


@pytest.mark.parametrize("kind", ONE_QUICK_COMPILER)
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
    "size, stride, limit", [((24, 24, 8), (1, 1), 1.8), ((25, 5, 16), (1, 1), 1.85), ((24, 24, 8), (2, 2), 3.2)]
)
def test_instructions(size: tuple[int, int, int], stride: tuple[int, int], limit: float) -> None:
    """Per product, requantization and copies included."""
    rng = np.random.default_rng(32)
    graph = trained_layer(rng, "depthwise_conv2d", size, (1, 3, 3, size[2]), stride=stride)
    case = packed_case(graph, depthwise_layer, random_input(rng, graph))
    assert 1.0 < instructions(case) / (9 * case.expected.size) < limit


def test_a_few_channels_without_linear_form() -> None:
    """They take the reference's output stage, the others the short one."""
    rng = np.random.default_rng(33)
    found = {}
    for stride in ((1, 1), (2, 2)):
        for limit in (1 << 20, 0):
            graph = trained_layer(rng, "depthwise_conv2d", (7, 6, 9), (1, 3, 3, 9), stride=stride)
            for tensor in graph.tensors[1:3]:
                assert tensor.quantization is not None
                tensor.quantization.scale[[0, 4, 5, 8]] *= [3e4, 1e-4, 2e4, 1e-4]
            packer = partial(depthwise_layer, scratch_limit=limit, in_place=True)
            case = packed_case(graph, packer, random_input(rng, graph))
            assert "stage.multipliers" in case.code.fields
            found[f"{stride} {limit}"] = case
            found[f"{stride} {limit} in place"] = shifted(case, 0)
    assert wrong_labels(found, "zig") == []
    assert_portable(list(found.values()))


@pytest.mark.parametrize("limit, group, band", [(1 << 20, 4, 30), (8192, 4, 14), (1536, 4, 1), (1500, 1, 9), (0, 1, 1)])
def test_bands_fit_the_scratch(limit: int, group: int, band: int) -> None:
    graph = trained_layer(np.random.default_rng(34), "depthwise_conv2d", (30, 40, 8), (1, 3, 3, 8))
    code = depthwise_layer(graph, graph.nodes[0], scratch_limit=limit)
    assert (code.fields["group"], code.fields["band"]) == (str(group), str(band))
    assert code.scratch_bytes <= max(limit, 3 * 128)


def test_what_cannot_be_packed_says_why() -> None:
    reasons = refused_layers("depthwise_conv2d", depthwise_layer).values()
    assert any("a window of" in reason for reason in reasons)
    assert any("outputs for each channel" in reason for reason in reasons)
    assert any("channels have no linear form" in reason for reason in reasons)
    with pytest.raises(Unpackable, match="300x300"):
        directions(Window((300, 300), 4, (3, 3), (1, 1), (1, 1), (1, 1, 1, 1), (300, 300)))
