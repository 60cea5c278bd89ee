"""Conv with groups in QDQ files, neither one nor as many as channels: onnxruntime and TFLite Micro as oracles; refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from graph_builder import inputs_of
from onnx_agreement import agrees, kinds, read
from oracles import onnx_stored, onnxruntime_session
from qdq_builder import Qdq

from firmware_export.graph import Graph, GraphError
from firmware_export.simulate import simulate


def model(channels: int, outputs: int, groups: int, size: tuple[int, int] = (7, 6), **options: Any) -> onnx.ModelProto:
    net = Qdq((1, channels, *size), channels + outputs)
    return net.model(net.conv(net.input(), outputs, group=groups, **options))


@pytest.mark.parametrize(
    ("channels", "outputs", "groups"),
    [(4, 4, 2), (6, 4, 2), (6, 9, 3), (8, 8, 4), (4, 12, 2), (12, 6, 6), (64, 32, 32)],
)
def test_groups_of_channels(channels: int, outputs: int, groups: int) -> None:
    """One slice and one convolution for each group, side by side."""
    graph = agrees(model(channels, outputs, groups, (5, 4)))
    assert kinds(graph).count("conv2d") == groups == kinds(graph).count("strided_slice")
    assert kinds(graph).count("concatenation") == 1 and "depthwise_conv2d" not in kinds(graph)
    images = {graph.tensors[node.inputs[0]].shape[3] for node in graph.nodes if node.op == "conv2d"}
    made = {graph.tensors[node.outputs[0]].shape[3] for node in graph.nodes if node.op == "conv2d"}
    assert images == {channels // groups} and made == {outputs // groups}


@pytest.mark.parametrize(
    "options",
    [
        {"stride": 2, "pads": (0, 0, 1, 1)},
        {"pads": (2, 0, 1, 1)},
        {"dilation": 2, "pads": (2, 2, 2, 2)},
        {"kernel": 1, "pads": (0, 0, 0, 0)},
        {"kernel": 5, "pads": (2, 2, 2, 2)},
        {"per_channel": False},
        {"bias": False},
        {"activation": "", "zero_point": 11},
        {"activation": (0.0, 6.0), "scale": 6 / 255},
    ],
    ids=str,
)
def test_windows_scales_and_activations(options: dict[str, Any]) -> None:
    graph = agrees(model(6, 4, 2, **options))
    nodes = [node for node in graph.nodes if node.op == "conv2d"]
    assert nodes[0].attributes == nodes[1].attributes, "the window and clamp of all groups are the Conv's"


@pytest.mark.parametrize("multiplier", [1, 2, 3])
def test_as_many_groups_as_channels_are_one_depthwise_convolution(multiplier: int) -> None:
    graph = agrees(model(4, 4 * multiplier, 4))
    assert kinds(graph).count("depthwise_conv2d") == 1 and "strided_slice" not in kinds(graph)


def test_groups_behind_one_another() -> None:
    """Channels are mixed between by a pointwise convolution, as networks with groups do."""
    net = Qdq((1, 4, 6, 6), 5)
    x = net.conv(net.input(), 8, group=2)
    x = net.conv(x, 8, 1, pads=(0, 0, 0, 0))
    x = net.conv(x, 4, group=4)
    graph = agrees(net.model(net.conv(x, 6, group=2, activation="", zero_point=3)), steps=2)
    assert kinds(graph).count("conv2d") == 2 + 1 + 4 + 2


def changed_inputs(graph: Graph, channels: slice) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """An input, and the same with other values in some channels; the model's edge has the file's order."""
    plain = inputs_of(graph, 3)
    other = [array.copy() for array in plain]
    axis = 1 if other[0].shape[1] == 6 else 3
    index = [slice(None)] * 4
    index[axis] = channels
    other[0][tuple(index)] ^= 0x55
    return plain, other


def test_a_group_sees_its_own_channels_alone() -> None:
    """Three channels in, two out, for each of two groups."""
    graph = read(model(6, 4, 2, activation="", zero_point=0))
    for channels, same, other in ((slice(0, 3), slice(2, 4), slice(0, 2)), (slice(3, 6), slice(0, 2), slice(2, 4))):
        plain, changed = (simulate(graph, *arrays)[0] for arrays in changed_inputs(graph, channels))
        axis = plain.shape.index(4)
        assert np.array_equal(np.take(plain, range(*same.indices(4)), axis), np.take(changed, range(*same.indices(4)), axis))
        assert not np.array_equal(
            np.take(plain, range(*other.indices(4)), axis), np.take(changed, range(*other.indices(4)), axis)
        )


def by_loops(net_model: onnx.ModelProto, image: np.ndarray, groups: int) -> np.ndarray:
    """Real-valued outputs of a grouped Conv from the file's own initializers, product by product; image: float NCHW."""
    stored = {i.name: onnx.numpy_helper.to_array(i) for i in net_model.graph.initializer}
    (conv,) = [node for node in net_model.graph.node if node.op_type == "Conv"]
    made = {node.output[0]: [stored.get(name) for name in node.input] for node in net_model.graph.node}
    weights, bias = ((made[name][0].astype(float), made[name][1]) for name in conv.input[1:3])
    kernel = weights[0] * np.reshape(weights[1], (-1, 1, 1, 1))
    add = bias[0] * bias[1]
    _, channels, height, width = image.shape
    depth, per_group = channels // groups, kernel.shape[0] // groups
    padded = np.pad(image[0], ((0, 0), (1, 1), (1, 1)))
    found = np.zeros((1, kernel.shape[0], height, width))
    for output in range(kernel.shape[0]):
        first = output // per_group * depth
        for row in range(height):
            for column in range(width):
                window = padded[first : first + depth, row : row + 3, column : column + 3]
                found[0, output, row, column] = float((window * kernel[output]).sum()) + add[output]
    return found


def test_against_loops_over_the_files_own_numbers() -> None:
    """Within half a step and a hair of the real result, saturation aside; so onnxruntime is not the only witness."""
    net = Qdq((1, 6, 4, 5), 10)
    name = net.conv(net.input(), 4, group=2, activation="", zero_point=-4)
    scale, zero_point = net.scales[name]
    file = net.model(name)
    graph = read(file)
    for seed in range(2):
        inputs = inputs_of(graph, seed)
        (wanted,) = onnx_stored(onnxruntime_session(file.SerializeToString()), graph, inputs)
        answer = simulate(graph, *inputs)[0]
        nchw = inputs[0] if inputs[0].shape[1] == 6 else inputs[0].transpose(0, 3, 1, 2)
        real = by_loops(file, (nchw.astype(float) + 128) * float(np.float32(1 / 255)), 2)
        ours = answer if answer.shape[1] == 4 and answer.shape[3] == 5 else answer.transpose(0, 3, 1, 2)
        steps = np.clip(real / scale + zero_point, -128, 127)
        assert np.abs(ours - steps).max() <= 0.51 and np.abs(answer.astype(int) - wanted).max() <= 1


@pytest.mark.parametrize(("channels", "outputs", "groups"), [(130, 65, 65), (4, 3, 2)])
def test_groups_that_cannot_be_run_are_refused(channels: int, outputs: int, groups: int) -> None:
    """65 groups are too many; three outputs are not two groups' (the file itself is wrong then)."""
    with pytest.raises(GraphError) as caught:
        read(model(channels, outputs, groups, (3, 3)))
    text = str(caught.value)
    assert "group" in text and "\n" not in text


def test_what_is_supported_is_said() -> None:
    with pytest.raises(
        GraphError, match=r"Conv with 65 groups on 130 channels.*supported: 1 group, as many as channels, or up to 64"
    ):
        read(model(130, 65, 65, (3, 3)))
