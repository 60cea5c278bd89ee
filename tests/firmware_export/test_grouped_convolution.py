"""CONV_2D whose filters have fewer channels than the image: groups side by side, as TFLite Micro and LiteRT compute them."""

from __future__ import annotations

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from graph_builder import Build, inputs_of
from oracles import litert, tflite_micro
from second_implementation import compute

from firmware_export.graph import ABSENT, Graph, GraphError
from firmware_export.passes import simplify
from firmware_export.read_tflite import read_tflite_bytes
from firmware_export.simulate import simulate
from firmware_export.write_tflite import TfliteWriter


def grouped_file(
    channels: int = 6,
    depth: int = 3,
    outputs: int = 4,
    kernel: int = 3,
    stride: int = 1,
    *,
    per_channel: bool = True,
    bias: bool = True,
    activation: int = 0,
    dilation: int = 1,
) -> bytes:
    """One CONV_2D of [1, 7, 8, channels] with SAME padding; filters of `depth` channels."""
    build = Build(channels + 7 * outputs)
    x, w = (
        build.activation((1, 7, 8, channels), 0.05, 7),
        build.weights((outputs, kernel, kernel, depth), 0 if per_channel else None),
    )
    shape = (1, -(-7 // stride), -(-8 // stride), outputs)
    y = build.activation(shape, 0.2 * kernel, -11)
    inputs = (x, w, build.bias(x, w, outputs) if bias else ABSENT)
    writer = TfliteWriter(build.graph(x, y))
    options = schema.Conv2DOptionsT()
    options.padding, options.strideH, options.strideW = schema.Padding.SAME, stride, stride
    options.dilationHFactor = options.dilationWFactor = dilation
    options.fusedActivationFunction = activation
    writer.add("CONV_2D", inputs, (y,), options, 3)
    return writer.finish()


def checked(model: bytes, lite: bool = True) -> Graph:
    """The graph of a file, whose answers are those of both runtimes."""
    graph = read_tflite_bytes(model)
    simple = simplify(graph)
    for seed in range(3):
        arrays = inputs_of(graph, seed)
        wanted = tflite_micro(model, arrays)[0].tobytes()
        assert simulate(graph, *arrays)[0].tobytes() == simulate(simple, *arrays)[0].tobytes() == wanted
        assert not lite or litert(model, arrays)[0].tobytes() == wanted
    assert compute(graph, arrays)[0].tobytes() == wanted
    return graph


@pytest.mark.parametrize(
    ("channels", "depth", "outputs"),
    [(6, 3, 4), (6, 2, 3), (6, 1, 6), (6, 1, 12), (8, 4, 2), (8, 2, 8), (4, 2, 10), (64, 1, 64)],
)
def test_groups(channels: int, depth: int, outputs: int) -> None:
    graph = checked(grouped_file(channels, depth, outputs))
    assert [node.op for node in graph.nodes].count("conv2d") == channels // depth


@pytest.mark.parametrize("kernel", [1, 2, 5])
@pytest.mark.parametrize("stride", [1, 2])
def test_windows(kernel: int, stride: int) -> None:
    checked(grouped_file(kernel=kernel, stride=stride))


def test_options() -> None:
    checked(grouped_file(per_channel=False))
    checked(grouped_file(dilation=2))
    checked(grouped_file(bias=False), lite=False)
    graph = checked(grouped_file(activation=schema.ActivationFunctionType.RELU))
    assert all(node.attributes["clamp"] == (-11, 127) for node in graph.nodes if node.op == "conv2d")


@pytest.mark.parametrize(
    ("channels", "depth", "outputs"), [(6, 3, 5), (6, 2, 4), (130, 1, 130)]
)  # fmt: skip
def test_refusals(channels: int, depth: int, outputs: int) -> None:
    with pytest.raises(
        GraphError, match=r"for an image of \d+ channels; supported: as many channels, or constants for up to 64"
    ):
        read_tflite_bytes(grouped_file(channels, depth, outputs))


@pytest.mark.parametrize("depth", [4, 5, 7, 12])
def test_channels_that_are_no_groups(depth: int) -> None:
    with pytest.raises(GraphError, match="for an image of 6 channels; supported: the same number"):
        read_tflite_bytes(grouped_file(6, depth, 4))


def test_computed_weights_are_refused() -> None:
    """Weights that are an input of the model cannot be cut when it is read."""
    build = Build()
    x, w = build.activation((1, 7, 8, 6)), build.activation((4, 3, 3, 3))
    y = build.activation((1, 7, 8, 4))
    writer, options = TfliteWriter(build.graph((x, w), y)), schema.Conv2DOptionsT()
    options.strideH = options.strideW = 1
    writer.add("CONV_2D", (x, w), (y,), options, 3)
    with pytest.raises(GraphError, match="for an image of 6 channels"):
        read_tflite_bytes(writer.finish())


def test_answers_see_their_own_group_alone() -> None:
    """A change in the second group's channels leaves the first group's outputs as they are."""
    graph = read_tflite_bytes(grouped_file())
    x = inputs_of(graph)[0]
    other = x.copy()
    other[..., 3:] = np.random.default_rng(9).integers(-128, 128, other[..., 3:].shape)
    one, two = simulate(graph, x)[0], simulate(graph, other)[0]
    assert np.array_equal(one[..., :2], two[..., :2]) and not np.array_equal(one[..., 2:], two[..., 2:])
