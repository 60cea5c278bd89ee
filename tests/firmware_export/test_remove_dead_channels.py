"""What becomes of dead and constant channels, one situation after the other; answers by TFLite Micro on both models."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from graph_builder import Build, inputs_of, small_net
from oracles import tflite_micro

from firmware_export.check import check
from firmware_export.graph import ABSENT, Graph, Node, Quantization, Tensor
from firmware_export.passes import simplify
from firmware_export.passes._intervals import intervals
from firmware_export.passes.remove_dead_channels import remove_dead_channels
from firmware_export.passes.remove_unused import remove_unused
from firmware_export.write_tflite import write_tflite

NONE = (-128, 127)
VALID, SAME = (0, 0, 0, 0), (1, 1, 1, 1)


def answers(graph: Graph, inputs: list[np.ndarray]) -> list[np.ndarray]:
    return tflite_micro(write_tflite(graph), inputs, len(graph.outputs))


def passed(graph: Graph) -> Graph:
    """After the pass, which leaves every answer as it was."""
    check(graph)
    result = remove_unused(remove_dead_channels(graph))
    check(result)
    vectors = [inputs_of(graph, seed) for seed in range(3)]
    vectors += [[np.full_like(value, end) for value in vectors[0]] for end in NONE]
    for values in vectors:
        for one, other in zip(answers(graph, values), answers(result, values), strict=True):
            assert np.array_equal(one, other)
    assert remove_dead_channels(result) is result, "a second time changes nothing"
    return result


def shapes(graph: Graph) -> list[tuple[int, ...]]:
    return [graph.tensors[node.outputs[0]].shape for node in graph.nodes]


def weights_shapes(graph: Graph) -> list[tuple[int, ...]]:
    return [tensor.shape for _, tensor in graph.constants() if tensor.dtype == "int8"]


def constant(graph: Graph, place: int, number: int) -> np.ndarray:
    """The data of an input of a node, to be written to."""
    data = graph.tensors[graph.nodes[place].inputs[number]].data
    assert data is not None
    return data


def fix_channel(build: Build, channel: int, stored: int, node: int = -1) -> None:
    """Makes an output channel of a layer constant: no weights, and the bias that gives that value."""
    made = build.nodes[node]
    weights, bias, y = (build.tensors[index] for index in (made.inputs[1], made.inputs[2], made.outputs[0]))
    assert weights.data is not None and bias.data is not None and weights.quantization is not None
    if made.op == "depthwise_conv2d":
        weights.data[..., channel] = 0
    else:
        weights.data[channel] = 0
    scales = np.broadcast_to(weights.quantization.scale, len(bias.data))
    steps = (stored - y.zero_point) * y.scale / (build.tensors[made.inputs[0]].scale * scales[channel])
    bias.data[channel] = round(steps)


# The padding trap

"""A convolution with padding sees, at the border of its image, the zero point beside the image's own values. A channel that is
constant is therefore one constant for every window only where it is the zero point. Two channels, both constant, one of
them not the zero point: only the other may become part of the bias behind a 3x3 convolution with padding."""


def padding_trap(padding: tuple[int, ...], stored: int, kernel: int = 3, stride: int = 1) -> Graph:
    """conv of 5 channels, channel 1 constant, zero point -30; then a second convolution that reads it."""
    build = Build(1)
    x = build.activation((1, 6, 5, 2), 0.05, 4, "image")
    middle = build.conv(x, 5, kernel=1, zero_point=-30)
    fix_channel(build, 1, stored)
    return build.graph(x, build.conv(middle, 3, kernel=kernel, padding=padding, stride=stride))


def test_a_constant_channel_that_is_the_padding_s_value_goes() -> None:
    """Its products are 0 everywhere, in the image as in the border: nothing is left of it, the bias stays what it was."""
    graph = padding_trap(SAME, stored=-30)
    result = passed(graph)
    assert shapes(result)[0] == (1, 6, 5, 4) and weights_shapes(result)[1] == (3, 3, 3, 4)
    assert np.array_equal(constant(result, 1, 2), constant(graph, 1, 2))


def test_another_constant_goes_where_there_is_no_padding() -> None:
    """Every window sees it nine times: the bias grows by the sum of its weights times its value less the zero point."""
    graph = padding_trap(VALID, stored=-23)
    result = passed(graph)
    assert shapes(result)[0] == (1, 6, 5, 4)
    added = 7 * constant(graph, 1, 1)[:, :, :, 1].astype(int).sum((1, 2))
    assert np.array_equal(constant(result, 1, 2), constant(graph, 1, 2) + added)


def test_another_constant_stays_where_windows_reach_into_the_padding() -> None:
    """The trap: in the corner a window sees it four times, inside nine times; no bias can say that."""
    graph = padding_trap(SAME, stored=-23)
    result = passed(graph)
    assert shapes(result)[0] == (1, 6, 5, 5) and weights_shapes(result)[1] == (3, 3, 3, 5)
    assert np.array_equal(constant(result, 1, 2), constant(graph, 1, 2))


def test_what_the_trap_would_cost() -> None:
    """Folding it all the same gives wrong answers at the border, and right ones inside: a test that looks at the middle only
    would not see it."""
    graph = padding_trap(SAME, stored=-23)
    wrong = replace(graph, tensors=[replace(t, data=None if t.data is None else t.data.copy()) for t in graph.tensors])
    bias, weights = constant(wrong, 1, 2), constant(wrong, 1, 1)
    bias += 7 * weights[:, :, :, 1].astype(np.int32).sum((1, 2))
    weights[:, :, :, 1] = 0
    values = inputs_of(graph, 1)
    right, found = answers(graph, values)[0][0], answers(wrong, values)[0][0]
    assert np.array_equal(right[1:-1, 1:-1], found[1:-1, 1:-1])
    assert np.any(right[0] != found[0]) and np.any(right[:, -1] != found[:, -1])


def test_the_channel_that_stays_costs_no_weights() -> None:
    """It is computed from its bias alone, so that what only it read can go."""
    build = Build(1)
    x = build.activation((1, 6, 5, 2), 0.05, 4, "image")
    first = build.conv(x, 4, kernel=1, zero_point=-30)
    middle = build.conv(first, 3, kernel=1, zero_point=-30)
    constant_weights = build.tensors[build.nodes[-1].inputs[1]].data
    assert constant_weights is not None
    constant_weights[:] = 0
    constant_weights[0, :, :, 0], constant_weights[2, :, :, 0], constant_weights[1, :, :, 2] = 90, -70, 1
    bias = build.tensors[build.nodes[-1].inputs[2]].data
    assert bias is not None
    bias[1] = 2**24  # whatever channel 2 of the first layer is, this is 127
    result = passed(build.graph(x, build.conv(middle, 3)))
    assert shapes(result)[:2] == [(1, 6, 5, 1), (1, 6, 5, 3)]
    assert not constant(result, 1, 1)[1].any()


def test_pads_that_see_only_the_corner() -> None:
    """2x2 windows with stride 2 over 6x6 pixels and padding at one end only: every window sees the border or none does."""
    build = Build(1)
    x = build.activation((1, 6, 6, 2), 0.05, 4, "image")
    middle = build.conv(x, 5, kernel=1, zero_point=-30)
    fix_channel(build, 1, -23)
    graph = build.graph(x, build.conv(middle, 3, kernel=2, stride=2))
    assert shapes(passed(replace_padding(graph, (0, 0, 0, 0), (3, 3))))[0][3] == 4
    assert shapes(passed(replace_padding(graph, (0, 2, 0, 0), (4, 3))))[0][3] == 5


def replace_padding(graph: Graph, padding: tuple[int, ...], size: tuple[int, int]) -> Graph:
    tensors, last = list(graph.tensors), graph.nodes[1]
    tensors[last.outputs[0]] = replace(tensors[last.outputs[0]], shape=(1, *size, 3))
    node = replace(last, attributes=last.attributes | {"padding": padding})
    return replace(graph, tensors=tensors, nodes=[graph.nodes[0], node])


def depthwise(build: Build, x: int, multiplier: int = 1, padding: tuple[int, ...] = SAME, zero_point: int = -30) -> int:
    _, h, w, c = build.tensors[x].shape
    weights = build.weights((1, 3, 3, c * multiplier), 3)
    shape = (1, h + padding[0] + padding[1] - 2, w + padding[2] + padding[3] - 2, c * multiplier)
    y = build.activation(shape, build.tensors[x].scale * 6, zero_point)
    inputs = (x, weights, build.bias(x, weights, c * multiplier))
    window = {"stride": (1, 1), "dilation": (1, 1), "padding": padding}
    return build.node("depthwise_conv2d", inputs, y, clamp=NONE, **window)


@pytest.mark.parametrize("padding, stored, left", [(SAME, -30, 4), (VALID, -23, 4), (SAME, -23, 5)])
def test_the_trap_of_a_depthwise_convolution(padding: tuple[int, ...], stored: int, left: int) -> None:
    """Behind it, the channel is constant again unless windows saw the border; then it makes a frame, and stays."""
    build = Build(2)
    x = build.activation((1, 6, 5, 2), 0.05, 4, "image")
    middle = build.conv(x, 5, kernel=1, zero_point=-30)
    fix_channel(build, 1, stored)
    graph = build.graph(x, build.conv(depthwise(build, middle, padding=padding), 3, kernel=1))
    assert [shape[3] for shape in shapes(passed(graph))] == [left, left, 3]


def test_an_explicit_pad_of_another_value_is_a_border_too() -> None:
    build = Build(3)
    x = build.activation((1, 4, 4, 2), 0.05, 4, "image")
    middle = build.conv(x, 4, kernel=1, zero_point=-30)
    fix_channel(build, 1, -23)
    fix_channel(build, 2, -7)
    padded = build.tensor(Tensor("padded", (1, 6, 6, 4), "int8", build.tensors[middle].quantization))
    build.node("pad", (middle,), padded, paddings=(0, 0, 1, 1, 1, 1, 0, 0), value=-23)
    result = passed(build.graph(x, build.conv(padded, 3, padding=VALID)))
    assert [shape[3] for shape in shapes(result)] == [3, 3, 3], "the channel of -23 goes, that of -7 has a border of -23"


# Depthwise multipliers


def test_every_channel_keeps_as_many_outputs_of_a_depthwise_layer() -> None:
    """Of three outputs each, one channel needs two, one needs one, one none: two channels with two outputs stay."""
    build = Build(4)
    x = build.activation((1, 5, 5, 2), 0.05, 4, "image")
    middle = depthwise(build, build.conv(x, 3, kernel=1), multiplier=3)
    graph = build.graph(x, build.conv(middle, 4, kernel=1))
    weights = constant(graph, 2, 1)
    weights[:, :, :, [1, 3, 5, 6, 7, 8]] = 0
    result = passed(graph)
    assert [shape[3] for shape in shapes(result)] == [2, 4, 4]
    assert weights_shapes(result) == [(2, 1, 1, 2), (1, 3, 3, 4), (4, 1, 1, 4)]
    assert not constant(result, 1, 1)[..., 2].any(), "the output that only fills up has no weights"


def test_a_depthwise_layer_of_one_channel_keeps_what_is_needed() -> None:
    build = Build(4)
    x = build.activation((1, 5, 5, 1), 0.05, 4, "image")
    graph = build.graph(x, build.conv(depthwise(build, x, multiplier=8), 2, kernel=1))
    constant(graph, 1, 1)[:, :, :, [0, 2, 3, 7]] = 0
    assert shapes(passed(graph)) == [(1, 5, 5, 4), (1, 5, 5, 2)]


# Ties


def test_a_residual_sum_keeps_what_either_side_needs() -> None:
    """Channel 2 is read by nobody behind the sum. As long as one side needs it the other has an idle place for it."""
    build = Build(5)
    x = build.activation((1, 4, 4, 3), 0.05, 4, "image")
    one = build.conv(x, 4, kernel=1)
    other = build.conv(one, 4)
    total = build.node("add", (one, other), build.activation((1, 4, 4, 4), 2.0, -9), clamp=NONE)
    graph = build.graph(x, build.conv(total, 2, kernel=1))
    constant(graph, 3, 1)[..., 2] = 0
    result = passed(graph)
    assert [shape[3] for shape in shapes(result)] == [4, 4, 4, 2], "the convolution between still reads all four"
    assert not constant(result, 1, 1)[2].any() and constant(result, 1, 1)[1].any()
    constant(graph, 1, 1)[..., 2] = 0
    assert [shape[3] for shape in shapes(passed(graph))] == [3, 3, 3, 2]


def test_a_side_that_is_constant_becomes_a_constant_operand() -> None:
    """And everything that led to it goes."""
    build = Build(6)
    x = build.activation((1, 4, 4, 3), 0.05, 4, "image")
    one = build.conv(x, 4, kernel=1)
    other = build.conv(build.conv(x, 5), 4, kernel=1, padding=VALID)
    for channel, stored in enumerate((-3, 0, 40, 127)):
        fix_channel(build, channel, stored)
    total = build.node("add", (one, other), build.activation((1, 4, 4, 4), 2.0, -9), clamp=NONE)
    result = passed(build.graph(x, total))
    assert [node.op for node in result.nodes] == ["conv2d", "add"]
    assert constant(result, 1, 1).reshape(-1).tolist() == [-3, 0, 40, 127]


def test_a_constant_side_of_five_dimensions_stays_computed() -> None:
    """Not every runtime repeats a row over so many."""
    build = Build(6)
    x = build.activation((1, 2, 2, 3), 0.05, 4, "image")
    one, other = build.conv(x, 4, kernel=1), build.conv(x, 4, kernel=1)
    for channel in range(4):
        fix_channel(build, channel, 20)
    pair = (build.reshape(one, (1, 1, 2, 2, 4)), build.reshape(other, (1, 1, 2, 2, 4)))
    total = build.node("add", pair, build.activation((1, 1, 2, 2, 4), 2.0, -9), clamp=NONE)
    graph = build.graph(x, total)
    result = remove_unused(remove_dead_channels(graph))
    check(result)
    assert len(result.nodes[-1].inputs) == 2 and not result.tensors[result.nodes[-1].inputs[1]].is_constant


def test_a_side_may_vary_where_it_does_not_count() -> None:
    """Channel 1 of the constant side is not constant, and nobody reads it behind the sum."""
    build = Build(6)
    x = build.activation((1, 4, 4, 3), 0.05, 4, "image")
    one, other = build.conv(x, 3, kernel=1), build.conv(x, 3)
    for channel in (0, 2):
        fix_channel(build, channel, 20)
    total = build.node("add", (other, one), build.activation((1, 4, 4, 3), 2.0, -9), clamp=NONE)
    graph = build.graph(x, build.conv(total, 2, kernel=1))
    constant(graph, 3, 1)[..., 1] = 0
    result = passed(graph)
    assert [node.op for node in result.nodes] == ["conv2d", "add", "conv2d"] and shapes(result)[0] == (1, 4, 4, 2)


def test_a_constant_that_differs_from_pixel_to_pixel_stays_computed() -> None:
    """A constant channel through a convolution with padding is a frame: constant, but no row of constants."""
    build = Build(6)
    x = build.activation((1, 4, 4, 3), 0.05, 4, "image")
    inner = build.conv(x, 1, kernel=1, zero_point=-30)
    fix_channel(build, 0, 90)
    framed = build.conv(inner, 4)
    total = build.node("add", (build.conv(x, 4, kernel=1), framed), build.activation((1, 4, 4, 4), 2.0, -9), clamp=NONE)
    result = passed(build.graph(x, total))
    assert [node.op for node in result.nodes] == ["conv2d", "conv2d", "conv2d", "add"]


def test_concatenation_along_channels_loses_them_on_the_side_they_came_from() -> None:
    build = Build(7)
    x = build.activation((1, 3, 3, 2), 0.05, 4, "image")
    one = build.conv(x, 3, kernel=1, scale=0.5)
    other = build.conv(x, 4, kernel=1, scale=0.5)
    y = build.tensor(Tensor("joined", (1, 3, 3, 7), "int8", build.tensors[one].quantization))
    graph = build.graph(x, build.conv(build.node("concatenation", (one, other), y, axis=3), 2, kernel=1))
    constant(graph, 3, 1)[..., [0, 4, 5]] = 0
    assert [shape[3] for shape in shapes(passed(graph))] == [2, 2, 4, 2]
    constant(graph, 3, 1)[..., :3] = 0
    assert [shape[3] for shape in shapes(passed(graph))] == [1, 2, 3, 2], "one channel stays of a tensor that must be there"


def split_graph(axis: int) -> Graph:
    """A convolution of 6 channels over 4x4 pixels, divided in two along an axis; each part is read by a convolution."""
    build = Build(7)
    x = build.activation((1, 4, 4, 2), 0.05, 4, "image")
    y = build.conv(x, 6, kernel=1)
    sizes = (2, 4) if axis == 3 else (1, 3)
    parts = []
    for size in sizes:
        shape = tuple(size if place == axis else length for place, length in enumerate((1, 4, 4, 6)))
        parts.append(build.tensor(Tensor("part", shape, "int8", build.tensors[y].quantization)))
    build.nodes.append(Node("split", (y,), tuple(parts), {"axis": axis, "sizes": sizes}))
    return build.graph(x, tuple(build.conv(part, 2, kernel=1) for part in parts))


def test_a_split_along_channels_deals_out_what_is_left() -> None:
    graph = split_graph(axis=3)
    constant(graph, 2, 1)[..., 0] = 0
    constant(graph, 3, 1)[..., [1, 2]] = 0
    result = passed(graph)
    assert result.nodes[1].integers("sizes") == (1, 2) and shapes(result)[0] == (1, 4, 4, 3)
    constant(graph, 2, 1)[:] = 0
    result = passed(graph)
    assert result.nodes[1].integers("sizes") == (1, 2), "a part that does not count keeps one channel, without weights"
    assert not constant(result, 0, 1)[0].any()


def test_a_split_along_rows_ties_the_channels_of_all_parts() -> None:
    graph = split_graph(axis=1)
    constant(graph, 2, 1)[..., [0, 1]] = 0
    constant(graph, 3, 1)[..., [1, 2]] = 0
    result = passed(graph)
    assert result.nodes[1].integers("sizes") == (1, 3) and shapes(result)[0] == (1, 4, 4, 5)


@pytest.mark.parametrize("reshaped", [False, True])
def test_channels_behind_a_flattening(reshaped: bool) -> None:
    """Columns of a fully connected layer belong to the channel of their pixel; a channel goes when all its columns do."""
    build = Build(8)
    x = build.activation((1, 4, 3, 2), 0.05, 4, "image")
    y = build.conv(x, 5, kernel=1)
    if reshaped:
        flat = build.reshape(y, (1, 60))
    else:
        flat = y
    weights = build.weights((4, 60), 0)
    end = build.activation((1, 4), 3.0, 7)
    graph = build.graph(x, build.node("fully_connected", (flat, weights, build.bias(flat, weights, 4)), end, clamp=NONE))
    columns = constant(graph, -1, 1).reshape(4, 12, 5)
    columns[:, :, 1] = 0
    columns[:, :11, 3] = 0
    result = passed(graph)
    assert shapes(result)[0] == (1, 4, 3, 4) and weights_shapes(result)[-1] == (4, 48)
    if reshaped:
        assert result.nodes[1].integers("shape") == (1, 48)


def test_a_frame_behind_a_flattening_becomes_bias() -> None:
    """Each element has a column of its own, so a constant that differs from pixel to pixel can go here."""
    build = Build(9)
    x = build.activation((1, 4, 4, 3), 0.05, 4, "image")
    inner = build.conv(x, 2, kernel=1, zero_point=-30)
    fix_channel(build, 0, 90)
    framed = depthwise(build, inner)
    result = passed(build.graph(x, build.fully_connected(build.reshape(framed, (1, 32)), 3)))
    assert [shape[-1] for shape in shapes(result)] == [1, 1, 16, 3]


def test_a_reshape_that_divides_channels_ties_them() -> None:
    """6 channels become 2 groups of 3: index 1 of both groups goes together or not at all."""
    build = Build(10)
    x = build.activation((1, 2, 2, 2), 0.05, 4, "image")
    y = build.reshape(build.conv(x, 6, kernel=1), (1, 2, 4, 3))
    graph = build.graph(x, build.conv(y, 2, kernel=1))
    constant(graph, 2, 1)[..., 1] = 0
    assert shapes(passed(graph)) == [(1, 2, 2, 4), (1, 2, 4, 2), (1, 2, 4, 2)]


def test_a_reshape_that_mixes_channels_keeps_them_all() -> None:
    build = Build(10)
    x = build.activation((1, 3, 2, 2), 0.05, 4, "image")
    y = build.reshape(build.conv(x, 4, kernel=1), (1, 2, 2, 6))
    graph = build.graph(x, build.conv(y, 2, kernel=1))
    constant(graph, 2, 1)[..., 1] = 0
    assert shapes(remove_dead_channels(graph)) == shapes(graph)


@pytest.mark.parametrize("op, options", [
    ("average_pool2d", {"kernel": (2, 2), "stride": (2, 2), "padding": VALID, "clamp": NONE}),
    ("max_pool2d", {"kernel": (2, 2), "stride": (2, 2), "padding": VALID, "clamp": NONE}),
    ("transpose", {"perm": (0, 2, 1, 3)}),
    ("tile", {"repeats": (1, 1, 2, 1)}),
    ("resize_nearest_neighbor", {"size": (2, 2), "align_corners": 0, "half_pixel": 0}),
])  # fmt: skip
def test_operators_that_keep_channels_apart_let_them_go(op: str, options: dict[str, Any]) -> None:
    build = Build(11)
    x = build.activation((1, 4, 4, 2), 0.05, 4, "image")
    y = build.conv(x, 5, kernel=1)
    size = {"transpose": (4, 4), "tile": (4, 8)}.get(op, (2, 2))
    out = build.tensor(Tensor("pooled", (1, *size, 5), "int8", build.tensors[y].quantization))
    graph = build.graph(x, build.conv(build.node(op, (y,), out, **options), 2, kernel=1))
    constant(graph, 2, 1)[..., [0, 4]] = 0
    assert [shape[3] for shape in shapes(passed(graph))] == [3, 3, 2]


def test_operators_that_mix_channels_keep_them() -> None:
    build = Build(12)
    x = build.activation((1, 2, 2, 2), 0.05, 4, "image")
    y = build.conv(x, 4, kernel=1)
    soft = build.tensor(Tensor("soft", (1, 2, 2, 4), "int8", Quantization.per_tensor(1 / 256, -128)))
    graph = build.graph(x, build.conv(build.node("softmax", (y,), soft, beta=1.0), 2, kernel=1))
    constant(graph, 2, 1)[..., [0, 3]] = 0
    assert shapes(passed(graph)) == shapes(graph)


# Edges


def test_inputs_keep_their_shape_and_outputs_their_channels() -> None:
    build = Build(13)
    x = build.activation((1, 4, 4, 3), 0.05, 4, "image")
    y = build.conv(x, 4, kernel=1)
    fix_channel(build, 2, 50)
    graph = build.graph(x, y)
    constant(graph, 0, 1)[..., 1] = 0
    result = passed(graph)
    assert result.tensors[result.inputs[0]].shape == (1, 4, 4, 3) and shapes(result) == [(1, 4, 4, 4)]


def test_a_tensor_that_is_an_output_and_read_again_keeps_all() -> None:
    build = Build(13)
    x = build.activation((1, 4, 4, 3), 0.05, 4, "image")
    y = build.conv(x, 4, kernel=1)
    graph = build.graph(x, (y, build.conv(y, 2, kernel=1)))
    constant(graph, 1, 1)[..., 1] = 0
    assert shapes(passed(graph)) == shapes(graph)


def test_a_model_that_always_answers_the_same_keeps_one_channel_everywhere() -> None:
    build = Build(14)
    x = build.activation((1, 4, 4, 3), 0.05, 4, "image")
    y = build.conv(build.conv(build.conv(x, 5), 6), 2)
    for channel in range(2):
        fix_channel(build, channel, 30 * channel)
    result = passed(build.graph(x, y))
    assert [shape[3] for shape in shapes(result)] == [1, 1, 2]
    assert answers(result, inputs_of(result))[0].reshape(-1, 2).max(0).tolist() == [0, 30]


def test_branches_that_nobody_needs_go() -> None:
    """Weights of 0 in front of a branch's only reader."""
    build = Build(15)
    x = build.activation((1, 4, 4, 3), 0.05, 4, "image")
    one, other = build.conv(x, 3, scale=0.5), build.conv(build.conv(x, 4), 3, scale=0.5)
    y = build.tensor(Tensor("joined", (1, 4, 4, 6), "int8", build.tensors[one].quantization))
    graph = build.graph(x, build.conv(build.node("concatenation", (one, other), y, axis=3), 2, kernel=1))
    constant(graph, 4, 1)[..., 3:] = 0
    assert sum(shape[3] for shape in shapes(passed(graph))) == 3 + 1 + 1 + 4 + 2


# Numbers


def test_scales_and_biases_are_sliced_with_their_channels() -> None:
    build = Build(16)
    x = build.activation((1, 4, 4, 3), 0.05, 4, "image")
    graph = build.graph(x, build.conv(build.conv(x, 4, kernel=1), 2, kernel=1))
    constant(graph, 1, 1)[..., 1] = 0
    result = passed(graph)
    for number in (1, 2):
        before, after = (g.tensors[g.nodes[0].inputs[number]] for g in (graph, result))
        assert before.quantization is not None and after.quantization is not None
        assert np.array_equal(after.quantization.scale, before.quantization.scale[[0, 2, 3]])
        assert np.array_equal(constant(result, 0, number), constant(graph, 0, number)[[0, 2, 3]])


def without_bias(per_channel: bool) -> Graph:
    build = Build(17)
    x = build.activation((1, 4, 4, 3), 0.05, 4, "image")
    middle = build.conv(x, 4, kernel=1, zero_point=-30)
    fix_channel(build, 1, 60)
    return build.graph(x, build.conv(middle, 2, kernel=1, bias=False, per_channel=per_channel))


@pytest.mark.parametrize("per_channel", [False, True])
def test_a_layer_without_bias_gets_one_for_what_is_known(per_channel: bool) -> None:
    graph = without_bias(per_channel)
    result = passed(graph)
    bias = result.tensors[result.nodes[1].inputs[2]]
    assert bias.dtype == "int32" and bias.quantization is not None and bias.quantization.scale.size == (2 if per_channel else 1)
    assert np.array_equal(constant(result, 1, 2), 90 * constant(graph, 1, 1)[:, 0, 0, 1].astype(int))


def test_a_layer_without_bias_stays_so_if_nothing_is_added() -> None:
    graph = without_bias(True)
    fixed = constant(graph, 0, 2)
    fixed[1] = 0  # then the channel is the zero point
    assert passed(graph).nodes[1].inputs[2] == ABSENT


def bias_at_the_edge(bias: int) -> Graph:
    """Channel 1 adds 157 * 127 to a sum, channels 0, 2 and 3, which are always far below zero, take more than that away."""
    build = Build(18)
    x = build.activation((1, 2, 2, 3), 0.05, 4, "image")
    middle = build.conv(x, 4, kernel=1, zero_point=-30)
    for channel in (0, 2, 3):
        fix_channel(build, channel, -115)
    fix_channel(build, 1, 127)
    graph = build.graph(x, build.conv(middle, 2, kernel=1))
    constant(graph, 0, 1)[[0, 2, 3], ..., 0] = 12
    constant(graph, 1, 1)[0, 0, 0] = 127
    constant(graph, 1, 2)[0] = bias
    # the sums, about 12,446 below the bias, lie around the step from 100 to 101, so that the output is not constant
    x, weights, y = (graph.tensors[index] for index in (middle, graph.nodes[1].inputs[1], graph.outputs[0]))
    assert weights.quantization is not None
    scale = x.scale * float(weights.quantization.scale[0]) * (bias - 12_446) / 100.5
    graph.tensors[graph.outputs[0]] = replace(y, quantization=Quantization.per_tensor(float(np.float32(scale)), 0))
    return graph


def test_what_would_not_fit_a_bias_is_not_added_to_it() -> None:
    """The sum stays in int32 whatever comes, the bias with the constant part alone would not: nothing is folded then."""
    for bias, left in ((2**31 - 2**9 - 10_000, 4), (2**29, 3)):
        graph = bias_at_the_edge(bias)
        facts = intervals(graph).sums
        assert facts[0].constant.tolist() == [False, True, False, False] and not facts[1].constant[0]
        assert [shape[3] for shape in shapes(passed(graph))] == [left, 2]


def test_nothing_is_folded_into_sums_that_may_wrap_around() -> None:
    """The bias with the constant part would fit; what varies takes the sum out of int32."""
    graph = bias_at_the_edge(2**31 - 2**9 - 10_000)
    constant(graph, 1, 1)[0, 0, 0] = (-127, 1, -127, -127)
    assert [shape[3] for shape in shapes(passed(graph))] == [4, 2]


def test_rows_shorter_than_the_channels_keep_them_all() -> None:
    """Six values as two rows of three: a column reads two channels."""
    build = Build(18)
    x = build.activation((1, 4), 0.05, 4, "x")
    middle = build.fully_connected(x, 6)
    weights = build.weights((2, 3), None)
    y = build.activation((2, 2), 3.0, 7)
    graph = build.graph(x, build.node("fully_connected", (middle, weights, build.bias(middle, weights, 2)), y, clamp=NONE))
    constant(graph, 1, 1)[:, 1] = 0
    assert shapes(passed(graph)) == [(1, 6), (2, 2)]


def test_dead_by_requantisation() -> None:
    """Weights too small to reach the next step: the output is its bias, and what they read is dead."""
    build = Build(19)
    x = build.activation((1, 3, 3, 2), 0.05, 0, "image")
    middle = build.conv(x, 4, kernel=1, scale=0.5)
    y = build.conv(middle, 3, kernel=1, scale=4000.0)
    result = passed(build.graph(x, y))
    assert [shape[3] for shape in shapes(result)] == [1, 3] and not constant(result, 1, 1).any()


def test_a_clamp_kills_channels() -> None:
    """Behind a relu, a bias far below 0 does."""
    build = Build(20)
    x = build.activation((1, 3, 3, 2), 0.05, 0, "image")
    middle = build.conv(x, 4, kernel=1, clamp=(-3, 127))
    bias = build.tensors[build.nodes[-1].inputs[2]].data
    assert bias is not None
    bias[[0, 3]] = -(2**22)
    assert shapes(passed(build.graph(x, build.conv(middle, 3))))[0] == (1, 3, 3, 2)


def test_long_models_take_time_in_proportion() -> None:
    """The input ties all channels of 1,500 relus behind it, one after the other, although the last layer reads one channel."""
    build = Build(22)
    x = y = build.activation((1, 2, 2, 4), 0.05, 4, "image")
    for _ in range(1500):
        y = build.relu(y, (-100, 100))
    graph = build.graph(x, build.conv(y, 2, kernel=1))
    constant(graph, -1, 1)[..., 1:] = 0
    start = time.process_time()
    assert remove_dead_channels(graph) is graph
    assert time.process_time() - start < 10


def test_a_model_of_a_megabyte_is_quickly_analysed() -> None:
    """A stack of separable layers: nothing dead in it, so that all of it is looked at."""
    build = Build(23)
    y = x = build.activation((1, 96, 96, 3), 1 / 255, -128, "image")
    for channels, stride in ((16, 2), (64, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1), (512, 1)):
        y = build.conv(y, channels, kernel=3 if channels == 16 else 1, padding=VALID, stride=stride)
        y = depthwise(build, y)
    graph = build.graph(x, y)
    assert graph.weights_bytes() > 700_000
    start = time.process_time()
    remove_dead_channels(graph)
    assert time.process_time() - start < 2


def test_nothing_dead_leaves_the_graph_itself() -> None:
    graph = small_net()
    assert remove_dead_channels(graph) is graph


def test_models_too_large_for_any_board_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = padding_trap(VALID, -23)
    monkeypatch.setattr(sys.modules[remove_dead_channels.__module__], "MAX_MACS", 100)
    assert remove_dead_channels(graph) is graph


def test_the_changes_are_noted() -> None:
    """Operators, MACs and weights before and after, by hand: 30 pixels, 2x5 and 9x5x3 products, of which 4 channels stay."""
    simple = simplify(padding_trap(VALID, -23))
    (change,) = simple.changes
    assert change.name == "remove_dead_channels" and change.operators == (2, 2)
    assert change.macs == (30 * 10 + 12 * 135, 30 * 8 + 12 * 108) and change.weights == (10 + 135, 8 + 108)


def test_shared_weights_are_sliced_for_each_layer() -> None:
    """Two layers read the same constants; only one of them loses an output."""
    build = Build(21)
    x = build.activation((1, 3, 3, 2), 0.05, 4, "image")
    one = build.conv(x, 3, kernel=1)
    first = build.nodes[-1]
    other = build.tensor(replace(build.tensors[one], name="other"))
    build.nodes.append(Node("conv2d", first.inputs, (other,), first.attributes))
    graph = build.graph(x, (build.conv(one, 2, kernel=1), build.conv(other, 2, kernel=1)))
    constant(graph, 2, 1)[..., 0] = 0
    assert [shape[3] for shape in shapes(passed(graph))] == [2, 3, 2, 2]
