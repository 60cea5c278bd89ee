"""The context with which operators read themselves from a .tflite file."""

from __future__ import annotations

from typing import Any

import pytest
from ai_edge_litert import schema_py_generated as schema

from firmware_export.graph import ABSENT, Graph, GraphError, Quantization, Tensor
from firmware_export.read_tflite import TfliteOperator


def context(options: Any = None, builtin: str = "CONV_2D") -> TfliteOperator:
    x = Tensor("x", (1, 7, 8, 3), "int8", Quantization.per_tensor(0.05, -3))
    y = Tensor("y", (1, 4, 4, 3), "int8", Quantization.per_tensor(0.05, -3))
    return TfliteOperator(builtin, (0, ABSENT), (1,), options, Graph([x, y], [], (0,), (1,)))


def test_options_are_the_defaults_where_the_file_gives_none() -> None:
    options = context().options_as(schema.Conv2DOptionsT)
    assert isinstance(options, schema.Conv2DOptionsT) and options.dilationWFactor == 1


def test_options_of_another_operator_are_refused() -> None:
    with pytest.raises(GraphError, match="the options are AddOptions, expected Conv2DOptions"):
        context(schema.AddOptionsT()).options_as(schema.Conv2DOptionsT)


def test_absent_and_missing_tensors() -> None:
    operator = context()
    assert operator.input(0).name == "x" and operator.output().name == "y"
    for place in (1, 2):
        with pytest.raises(GraphError, match=f"input {place} is missing"):
            operator.input(place)
    with pytest.raises(GraphError, match="output 1 is missing"):
        operator.output(1)


@pytest.mark.parametrize(("activation", "clamp"), [(0, (-128, 127)), (1, (-3, 127)), (2, (-23, 17)), (3, (-3, 117))])
def test_fused_activations_as_clamps(activation: int, clamp: tuple[int, int]) -> None:
    """NONE, RELU, RELU_N1_TO_1, RELU6 at scale 0.05 and zero point -3."""
    assert context().clamp(activation) == clamp


@pytest.mark.parametrize("activation", [4, 5, 99, -1])
def test_other_activations_are_refused(activation: int) -> None:
    with pytest.raises(GraphError, match="supported: NONE, RELU, RELU6, RELU_N1_TO_1"):
        context().clamp(activation)


def test_paddings() -> None:
    assert context().padding(schema.Padding.VALID, (3, 3), (2, 2)) == (0, 0, 0, 0)
    assert context().padding(schema.Padding.SAME, (3, 3), (2, 2)) == (1, 1, 0, 1)
    with pytest.raises(GraphError, match="padding 2; supported"):
        context().padding(2, (3, 3), (2, 2))
    for stride, dilation in (((0, 1), (1, 1)), ((1, 32768), (1, 1)), ((1, 1), (65535, 1)), ((1, 1), (1, -2))):
        with pytest.raises(GraphError, match="supported: 4 dimensions, all of it 1 or more, strides and dilations up to 32767"):
            context().padding(schema.Padding.SAME, (3, 3), stride, dilation)
