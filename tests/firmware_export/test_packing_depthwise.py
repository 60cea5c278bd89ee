"""Depthwise layers as they are packed: constants by hand, geometry by walking through the planes, channels without form."""

from __future__ import annotations

import numpy as np
import pytest
from packed_cases import random_input, trained_layer
from step_models import linear

from firmware_export.graph import Graph
from firmware_export.operators import LayerCode
from firmware_export.operators._accumulator import OutputStage
from firmware_export.operators._window import Window
from firmware_export.packing.depthwise_planes import depthwise_code, depthwise_layer
from firmware_export.requantize import quantize_multiplier
from firmware_export.simulate import simulate


def values(code: LayerCode) -> dict[str, int]:
    """The integers of the C struct."""
    return {name: int(text) for name, text in code.fields.items() if "{" not in text}


def constants(code: LayerCode, suffix: str) -> np.ndarray:
    return next(constant.data for constant in code.constants if constant.suffix == suffix)


class Walker:
    """Runs the kernel's loops on the packed layer in numpy: copies bands to planes, sums windows, writes outputs."""

    def __init__(self, code: LayerCode, image: np.ndarray) -> None:
        self.v = values(code)
        self.image = image.reshape(-1)
        self.output = np.full(self.v["output_bytes"], -1, np.int64)
        self.written = np.zeros(self.v["output_bytes"], bool)
        self.weights = constants(code, "weights")[: 9 * self.v["channels"]].reshape(-1, 3, 3).astype(np.int64)
        self.constants = constants(code, "constants").astype(np.int64)
        self.shift = int(code.function.removesuffix("_wide").rsplit("_", 1)[1])

    def row(self, channel: int, image_row: int) -> np.ndarray:
        """One row of a plane: pixels where they are copied, fill elsewhere."""
        v = self.v
        row = np.full(2 * v["row_words"], v["fill"], np.int64)
        if 0 <= image_row < v["image_rows"]:
            count = v["lead"] + 2 * v["pairs"] + v["trail"]
            begin = channel + image_row * v["image_row_step"]
            pixels = self.image[begin : begin + (count - 1) * v["pixel_step"] + 1 : v["pixel_step"]]
            first = 2 * v["first_word"] + v["lead"]
            row[first : first + count] = pixels
        return row

    def channel(self, channel: int) -> None:
        """All outputs of a channel, band by band."""
        v, stride = self.v, self.v["stride"]
        columns = v["words"] * (2 if stride == 1 else 1) + v["alone"]
        for first in range(0, v["rows"], v["band"]):
            count = min(v["band"], v["rows"] - first)
            plane = np.stack([self.row(channel, first * stride - v["before"] + i) for i in range((count - 1) * stride + 3)])
            assert plane.shape[0] * v["pitch"] <= v["plane_bytes"] and 2 * plane.shape[1] <= v["pitch"]
            for i in range(count):
                for j in range(columns):
                    window = plane[i * stride : i * stride + 3, j * stride : j * stride + 3]
                    sums = 256 * (window * self.weights[channel]).sum() + self.constants[channel, 0]
                    place = channel + (first + i) * v["output_row_step"] + j * v["output_step"]
                    assert not self.written[place]
                    self.output[place] = linear(np.array(sums), self.constants[channel, 1], self.shift)
                    self.written[place] = True

    def run(self) -> np.ndarray:
        """The whole output; every byte written once."""
        for channel in range(self.v["channels"]):
            self.channel(channel)
        assert self.written.all()
        return self.output


@pytest.mark.parametrize("size", [(6, 7, 4), (9, 4, 3), (4, 9, 5), (2, 2, 4), (5, 5, 8)])
@pytest.mark.parametrize("stride", [(1, 1), (2, 2)])
@pytest.mark.parametrize("limit", [0, 1600, 1 << 20])
def test_walked_through_it_is_the_layer(size: tuple[int, int, int], stride: tuple[int, int], limit: int) -> None:
    rng = np.random.default_rng(size[0])
    graph = trained_layer(rng, "depthwise_conv2d", size, (1, 3, 3, size[2]), stride=stride, zero_points=(-17, -128))
    inputs = random_input(rng, graph)
    code = depthwise_layer(graph, graph.nodes[0], scratch_limit=limit)
    np.testing.assert_array_equal(Walker(code, inputs[0]).run(), simulate(graph, *inputs)[0].reshape(-1))


@pytest.mark.parametrize("padding", [(0, 0, 0, 0), (2, 2, 2, 2), (1, 0, 0, 2), (0, 3, 1, 1)])
def test_any_padding(padding: tuple[int, int, int, int]) -> None:
    rng = np.random.default_rng(8)
    graph = trained_layer(rng, "depthwise_conv2d", (6, 5, 4), (1, 3, 3, 4))
    node = graph.nodes[0]
    node.attributes["padding"] = padding
    output = (6 + padding[0] + padding[1] - 2, 5 + padding[2] + padding[3] - 2)
    graph.tensors[-1] = type(graph.tensors[-1])("y", (1, *output, 4), "int8", graph.tensors[-1].quantization)
    inputs = random_input(rng, graph)
    code = depthwise_layer(graph, node)
    np.testing.assert_array_equal(Walker(code, inputs[0]).run(), simulate(graph, *inputs)[0].reshape(-1))


def small(channels: int = 4) -> tuple[Window, np.ndarray, np.ndarray]:
    """A window over 4x4 pixels, its weights, and a bias."""
    window = Window((4, 4), channels, (3, 3), (1, 1), (1, 1), (1, 1, 1, 1), (4, 4))
    weights = np.arange(-4, 5, dtype=np.int8).reshape(1, 3, 3, 1).repeat(channels, 3)
    return window, weights, np.arange(channels, dtype=np.int64)


def stage(real: list[float], zero_point: int = -128) -> OutputStage:
    multiplier, shift = quantize_multiplier(np.array(real))
    return OutputStage(multiplier, shift, zero_point, (-128, 127))


def test_constants_by_hand() -> None:
    """Nine bytes and two words for each channel, and three bytes that can be read behind."""
    window, weights, bias = small()
    code = depthwise_code(window, weights, bias, 5, stage([2.0**-4] * 4))
    assert constants(code, "weights").tolist() == list(range(-4, 5)) * 4 + [0] * 3
    pairs = constants(code, "constants").astype(np.int64)
    assert pairs.shape == (4, 2)
    # the weights sum to 0: no zero point in the start; the channels differ by their bias alone
    assert np.diff(pairs[:, 0]).tolist() == pytest.approx([256, 256, 256], abs=130)
    assert len({*pairs[:, 1].tolist()}) <= 4 and pairs[:, 1].min() > 0


def test_columns_transpose_the_kernels() -> None:
    """Planes along the columns of a tall image read kernels column by column."""
    weights = np.arange(-4, 5, dtype=np.int8).reshape(1, 3, 3, 1).repeat(4, 3)
    tall = Window((9, 4), 4, (3, 3), (1, 1), (1, 1), (1, 1, 1, 1), (9, 4))
    code = depthwise_code(tall, weights, np.zeros(4, np.int64), 0, stage([2.0**-4] * 4))
    assert constants(code, "weights")[:9].tolist() == [-4, -1, 2, -3, 0, 3, -2, 1, 4]
    assert values(code)["pixel_step"] == 4 * 4 and values(code)["image_row_step"] == 4


def test_channels_without_form_keep_a_plain_bias() -> None:
    """Factor 0, the bias with the zero point folded in, and the reference's tables for all channels."""
    window, weights, bias = small()
    weights = weights + np.int8(1)
    code = depthwise_code(window, weights, bias + 7, 5, stage([2.0**-4, 3.5, 2.0**-4, 2.0**-4]))
    pairs = constants(code, "constants")
    assert (pairs[:, 1] == 0).tolist() == [False, True, False, False]
    assert pairs[1, 0] == 8 - 5 * 9
    assert {"multipliers", "shifts"} <= {constant.suffix for constant in code.constants}
    assert "stage.multipliers" in code.fields


def test_no_tables_where_all_channels_have_a_form() -> None:
    window, weights, bias = small()
    code = depthwise_code(window, weights, bias, 0, stage([2.0**-4] * 4))
    assert [constant.suffix for constant in code.constants] == ["weights", "constants"]
    assert not any(name.startswith("stage") for name in code.fields)


def test_constant_channels_have_no_weights() -> None:
    window, weights, bias = small()
    bias[2] = 1 << 24
    code = depthwise_code(window, weights, bias, 0, stage([2.0**-4] * 4))
    taps = constants(code, "weights")[:36].reshape(4, 9)
    assert not taps[2].any() and taps[[0, 1, 3]].any(1).all()


def test_the_shift_with_fewest_exceptions_is_taken() -> None:
    """Factors near 1 fit shift 7 alone."""
    window, weights, bias = small()
    near_one = depthwise_code(window, weights, bias, 0, stage([0.4] * 4))
    assert near_one.function == "nn_depthwise_planes_s1_7"
    only_ten = depthwise_code(window, weights, bias, 0, stage([2.0**-5] * 4), shifts=(10,))
    assert only_ten.function == "nn_depthwise_planes_s1_10"


def test_wide_images_take_the_wide_kernels() -> None:
    window = Window((3, 100), 4, (3, 3), (1, 1), (1, 1), (1, 1, 1, 1), (3, 100))
    _, weights, bias = small()
    code = depthwise_code(window, weights, bias, 0, stage([2.0**-4] * 4))
    assert code.function == "nn_depthwise_planes_s1_7_wide" and values(code)["pitch"] == 256


def test_the_comment_tells_the_layer() -> None:
    graph: Graph = trained_layer(np.random.default_rng(9), "depthwise_conv2d", (8, 6, 4), (1, 3, 3, 4), stride=(2, 2))
    assert depthwise_layer(graph, graph.nodes[0]).summary.startswith("3x3 s2 same, 8x6x4 -> 4x3x4, planes")
