"""Fused activations as clamps: hand-computed values, and TFLite Micro's own clamp on a convolution that overflows it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from graph_builder import Build, quantized
from oracles import tflite_micro

from firmware_export.activation import FUSED_ACTIVATIONS, UNBOUNDED, clamp_of, fused_activation
from firmware_export.graph import Graph, GraphError, Quantization, Tensor
from firmware_export.write_tflite import write_tflite


@pytest.mark.parametrize(
    ("bounds", "scale", "zero_point", "clamp"),
    [
        (UNBOUNDED, 0.1, 5, (-128, 127)),
        ((0.0, math.inf), 0.1, 5, (5, 127)),
        ((0.0, math.inf), 0.1, -128, (-128, 127)),
        ((0.0, 6.0), 0.1, 5, (5, 65)),
        ((0.0, 6.0), 0.01, 5, (5, 127)),
        ((0.0, 6.0), 6 / 255, -128, (-128, 127)),
        ((-1.0, 1.0), 0.5, 0, (-2, 2)),
        ((-1.0, 1.0), 2.0, 0, (-1, 1)),
        ((0.0, 1.0), 0.4, 0, (0, 3)),
        ((-math.inf, 0.0), 0.1, 5, (-128, 5)),
        ((0.0, 6.0), 1e-30, 0, (0, 127)),
        ((-1e38, 1e38), 1e-30, 0, (-128, 127)),
    ],
)
def test_bounds_as_stored_values(bounds: tuple[float, float], scale: float, zero_point: int, clamp: tuple[int, int]) -> None:
    """Halves go away from zero: 1 / 2 -> 1, 1 / 0.4 -> 3 (2.5 in float32)."""
    assert clamp_of(bounds, quantized("t", (1,), scale, zero_point)) == clamp


@pytest.mark.parametrize("bounds", [(math.nan, 1.0), (0.0, math.nan)])
def test_bounds_that_are_no_number_are_refused(bounds: tuple[float, float]) -> None:
    with pytest.raises(GraphError, match="not a number"):
        clamp_of(bounds, quantized("t", (1,)))


def test_bounds_the_wrong_way_round_are_refused() -> None:
    with pytest.raises(GraphError, match=r"\(4\.0, 1\.0\) leave no value"):
        clamp_of((4.0, 1.0), quantized("t", (1,)))


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        (Tensor("t", (1,), "int16", Quantization.per_tensor(0.1, 0)), "'t' is int16; supported behind an operator: int8"),
        (Tensor("t", (1,), "int8", None), "'t' has no quantization"),
        (quantized("t", (1,), 0.0), "scale 0.0"),
        (quantized("t", (1,), float("nan")), "scale nan"),
    ],
)
def test_tensors_without_a_usable_scale_are_refused(tensor: Tensor, words: str) -> None:
    with pytest.raises(GraphError, match=words):
        clamp_of((0.0, 6.0), tensor)


@pytest.mark.parametrize("name", FUSED_ACTIVATIONS)
def test_every_activation_has_a_name_for_its_clamp(name: str) -> None:
    tensor = quantized("t", (1,), 0.07, -11)
    assert fused_activation(clamp_of(FUSED_ACTIVATIONS[name], tensor), tensor) == name


def test_the_plainest_name_wins_where_two_mean_the_same() -> None:
    tensor = quantized("t", (1,), 6 / 255, -128)
    assert fused_activation((-128, 127), tensor) == "NONE"
    assert fused_activation((0, 127), quantized("t", (1,), 0.001, 0)) == "RELU"


def test_a_clamp_without_a_name_is_refused() -> None:
    with pytest.raises(GraphError, match=r"clamp -5\.\.5 of tensor 't'"):
        fused_activation((-5, 5), quantized("t", (1,)))


def saturating(scale: float, zero_point: int, clamp: tuple[int, int]) -> Graph:
    """A 1x1 convolution whose sums go far beyond int8 in both directions."""
    build = Build(1)
    x = build.activation((1, 8, 8, 4), 0.5, 0, "x")
    return build.graph(x, build.conv(x, 4, 1, clamp=clamp, scale=scale, zero_point=zero_point))


@pytest.mark.parametrize("zero_point", [-128, -7, 60])
@pytest.mark.parametrize("scale", [6 / 255, 0.0431, 0.09, 0.5])
@pytest.mark.parametrize("name", ["RELU", "RELU6", "RELU_N1_TO_1"])
def test_tflite_micro_clamps_at_the_same_values(name: str, scale: float, zero_point: int) -> None:
    clamp = clamp_of(FUSED_ACTIVATIONS[name], quantized("t", (1,), scale, zero_point))
    graph = saturating(scale, zero_point, clamp)
    image = np.random.default_rng(0).choice(np.array([-128, 127], np.int8), (1, 8, 8, 4))
    answer = tflite_micro(write_tflite(graph), [image])[0]
    assert (int(answer.min()), int(answer.max())) == clamp
