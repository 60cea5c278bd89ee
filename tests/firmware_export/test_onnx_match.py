"""The context with which operators read themselves from an ONNX file."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from firmware_export.graph import ABSENT, Graph, GraphError, Quantization, Tensor
from firmware_export.read_onnx import OnnxMatch


def match(clamp: tuple[float, float] | None = None, shape: tuple[int, ...] = (1, 7, 8, 3), **attributes: Any) -> OnnxMatch:
    """Conv of an image with a constant and an absent bias; the output's scale is 0.05, its zero point -3."""
    tensors = [
        Tensor("x", shape, "int8", Quantization.per_tensor(0.02, 1)),
        Tensor("w", (2, 3, 3, 3), "int8", Quantization.per_tensor(0.01, 0), np.ones((2, 3, 3, 3), np.int8)),
        Tensor("y", (), "int8", Quantization.per_tensor(0.05, -3)),
    ]
    return OnnxMatch("Conv", attributes, (0, 1, ABSENT), (2,), clamp, Graph(tensors, [], (0,), (2,)))


def test_tensors_by_place() -> None:
    found = match()
    assert [found.input(0).name, found.input(1).name, found.output().name] == ["x", "w", "y"]
    for place in (2, 3):
        with pytest.raises(GraphError, match=f"input {place} is missing"):
            found.input(place)


def test_constants_must_be_constant() -> None:
    assert match().constant(1).sum() == 54
    with pytest.raises(GraphError, match="input 0 'x' is computed; expected a constant"):
        match().constant(0)
    with pytest.raises(GraphError, match="input 2 is missing"):
        match().constant(2)


def test_an_added_constant_comes_behind_the_graph_with_its_own_layout() -> None:
    found = match()
    weights = found.input(1)
    index = found.add_constant("w", found.constant(1).transpose(0, 2, 3, 1), weights.quantization)
    added = found.graph.tensors[index]
    assert index == 3 and added.shape == (2, 3, 3, 3) and added.dtype == "int8" and added.quantization == weights.quantization
    scalar = found.graph.tensors[found.add_constant("n", np.array(4, np.int32))]
    assert scalar.shape == () and scalar.quantization is None


@pytest.mark.parametrize(
    ("clamp", "stored"),
    [(None, (-128, 127)), ((0.0, math.inf), (-3, 127)), ((0.0, 6.0), (-3, 117)), ((-math.inf, 1.0), (-128, 17))],
)
def test_the_clamp_in_stored_values(clamp: tuple[float, float] | None, stored: tuple[int, int]) -> None:
    assert match(clamp).int8_clamp() == stored


def test_axes_of_images_change_places_and_others_do_not() -> None:
    found = match()
    assert [found.axis(axis, 4) for axis in range(4)] == [0, 3, 1, 2]
    assert [found.axis(axis, 4) for axis in (-1, -2, -3)] == [2, 1, 3]
    assert [found.axis(axis, 2) for axis in (0, 1, -1)] == [0, 1, 1]
    for axis, rank in ((4, 4), (-5, 4), (2, 2)):
        with pytest.raises(GraphError, match=f"axis {axis} of a tensor with {rank} dimensions"):
            found.axis(axis, rank)


def test_windows_have_two_values() -> None:
    assert match(strides=(2, 3)).window("strides") == (2, 3)
    assert match().window("strides") == (1, 1) and match().window("kernel_shape", 5) == (5, 5)
    for values in ((1,), (1, 2, 3), (0, 1), (1, -1), (1, 32768), ()):
        with pytest.raises(GraphError, match=r"strides is .*; supported: two values"):
            match(strides=values).window("strides")


def test_pads_are_turned_from_begin_and_end_to_edges() -> None:
    """ONNX: top, left, bottom, right. Ours: top, bottom, left, right."""
    assert match(pads=(1, 2, 3, 4)).padding((3, 3), (1, 1)) == (1, 3, 2, 4)
    assert match().padding((3, 3), (1, 1)) == (0, 0, 0, 0)
    assert match(auto_pad="NOTSET", pads=(0, 1, 0, 1)).padding((3, 3), (1, 1)) == (0, 0, 1, 1)


@pytest.mark.parametrize(
    ("mode", "expected"), [("VALID", (0, 0, 0, 0)), ("SAME_UPPER", (1, 1, 0, 1)), ("SAME_LOWER", (1, 1, 1, 0))]
)
def test_automatic_pads(mode: str, expected: tuple[int, ...]) -> None:
    """7x8 with a 3x3 kernel and stride 2 needs two rows and one column more."""
    assert match(auto_pad=mode).padding((3, 3), (2, 2)) == expected


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"pads": (1, 1)}, r"pads \(1, 1\); supported"),
        ({"pads": (1, 1, 1, -1)}, r"pads \(1, 1, 1, -1\); supported"),
        ({"auto_pad": "SAME"}, "auto_pad SAME; supported: NOTSET, VALID, SAME_UPPER, SAME_LOWER"),
        ({"kernel_shape": (5, 5)}, r"kernel_shape is \(5, 5\), the weights have \(3, 3\)"),
        ({"shape": (1, 12)}, r"input \(1, 12\)"),
    ],
)
def test_pads_that_make_no_sense_are_refused(attributes: dict[str, Any], words: str) -> None:
    with pytest.raises(GraphError, match=words):
        match(**attributes).padding((3, 3), (1, 1))
