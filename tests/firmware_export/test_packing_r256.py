"""Packed records word by word: taken apart again they are the weights, and the kernel's arithmetic on them is the layer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from packed_cases import random_input, trained_layer
from step_models import expanded, lane_values, linear, packed, scaled_sums, signed, unpacked, wrap

from firmware_export.graph import Graph
from firmware_export.operators._accumulator import OutputStage
from firmware_export.operators._window import Window
from firmware_export.packing import Unpackable
from firmware_export.packing.conv2d_r256 import Reading, conv2d_layer
from firmware_export.packing.r256 import Records, pack
from firmware_export.packing.requantize_forms import LinearForm, SignedForm
from firmware_export.requantize import quantize_multiplier
from firmware_export.simulate import simulate


def stage(real: float | np.ndarray, channels: int, zero_point: int = -128) -> OutputStage:
    multiplier, shift = quantize_multiplier(np.broadcast_to(np.asarray(real, np.float64), channels))
    return OutputStage(multiplier, shift, zero_point, (-128, 127))


@dataclass(frozen=True)
class Parts:
    """Records taken apart: start [c], weights [c, depth], and what stands behind them, each [c]."""

    start: np.ndarray
    weights: np.ndarray
    constants: list[np.ndarray]


def take_apart(records: Records, group: int, words: int) -> Parts:
    """From the layout in r256.pack's text."""
    rows = records.words.reshape(-1, records.size)
    start = rows[:, :group].reshape(-1).astype(np.uint32).view(np.int32).astype(np.int64)
    inner = rows[:, group : group * (1 + words)].reshape(-1, words, group).transpose(0, 2, 1).reshape(-1, words)
    behind = rows[:, group * (1 + words) :].reshape(rows.shape[0], -1, group)
    constants = [behind[:, i].reshape(-1).astype(np.uint32).view(np.int32).astype(np.int64) for i in range(behind.shape[1])]
    return Parts(start, unpacked(inner).reshape(inner.shape[0], -1), constants)


@pytest.mark.parametrize(
    "channels, depth, group, words", [(2, 4, 2, 1), (5, 9, 2, 3), (4, 16, 4, 4), (7, 30, 4, 8), (1, 1, 2, 1)]
)
def test_taken_apart_it_is_the_weights(channels: int, depth: int, group: int, words: int) -> None:
    rng = np.random.default_rng(depth)
    weights = rng.integers(-127, 128, (channels, depth))
    records = pack(weights, np.zeros(channels, np.int64), 0, stage(1e-3, channels, 5), group=group, words=words, shifts=(10,))
    parts = take_apart(records, group, words)
    np.testing.assert_array_equal(parts.weights[:channels, :depth], weights)
    assert not parts.weights[channels:].any() and not parts.weights[:, depth:].any()
    assert records.size == group * (1 + words + len(parts.constants))


def test_every_pair_of_neighbouring_weights() -> None:
    """All 65025 pairs of symmetric weights survive packing and unpacking."""
    first, second = (part.reshape(-1) for part in np.meshgrid(np.arange(-127, 128), np.arange(-127, 128)))
    quads = np.stack([first, second, second, first], 1)
    np.testing.assert_array_equal(unpacked(packed(quads)), quads)
    values = lane_values(packed(quads))
    np.testing.assert_array_equal(values[:, 0], 256 * first + second)


def test_one_word_by_hand() -> None:
    """Weights 3, -2, 0, 127: lanes 256 * 3 - 2 = 766 and 127; elements 5, -6, 7, -128: A = (5, 7), B = (-1414, -32648)."""
    np.testing.assert_array_equal(packed(np.array([3, -2, 0, 127])), np.uint32(127 << 16 | 766))
    a, b = expanded(np.array([5, -6, 7, -128]))
    assert lane_values(a).tolist() == [5, 7]
    assert lane_values(b).tolist() == [256 * -6 + 127 - 5, 256 * -128 + 127 - 7]
    raw = np.array([5, -6, 7, -128], np.int8).view(np.uint32)[0]
    assert b == raw ^ 0x007F007F
    products = 766 * 5 + 127 * 7 + -2 * (256 * -6 + 122) + 127 * (256 * -128 + 120)
    assert products == 256 * (3 * 5 + -2 * -6 + 0 * 7 + 127 * -128) + 127 * (-2 + 127)


def test_one_record_by_hand() -> None:
    """Two channels, one step: starts, one word each, factors; the zero point and 127 (odd weights) are in the starts."""
    weights = np.array([[1, 2, 3, 4], [-1, 0, 0, -5]])
    records = pack(weights, np.array([10, -7]), -3, stage(2.0**-6, 2), group=2, words=1, shifts=(10,))
    assert isinstance(records.form, LinearForm) and records.form_name == "linear"
    assert records.words.size == records.size == 6 and records.rounding == 0
    free = records.words[:2].view(np.int32).astype(np.int64) - records.form.start
    assert free.tolist() == [256 * (10 + 3 * 10) - 127 * (2 + 4), 256 * (-7 + 3 * -6) - 127 * -5]
    assert records.words[2:4].tolist() == [(3 * 256 + 4) << 16 | (256 + 2), (0xFFFB << 16) | 0xFF00]
    np.testing.assert_array_equal(records.words[4:], records.form.factor)


@pytest.mark.parametrize("zero_point, kind", [(-128, LinearForm), (9, SignedForm)])
@pytest.mark.parametrize("input_zero_point", [-128, 0, 83])
def test_the_kernels_arithmetic_on_the_records_is_the_layer(zero_point: int, kind: type, input_zero_point: int) -> None:
    """Start, weights and constants as the kernel uses them, against products and the reference's output stage."""
    rng = np.random.default_rng(input_zero_point & 255)
    channels, depth = 6, 24
    weights, bias = rng.integers(-60, 60, (channels, depth)), rng.integers(-3000, 3000, channels)
    elements = rng.integers(-128, 128, (40, depth))
    exact = stage(np.exp2(-rng.uniform(7, 8, channels)), channels, zero_point)
    records = pack(weights, bias, input_zero_point, exact, group=2, words=6, shifts=(10, 7))
    assert isinstance(records.form, kind)
    parts = take_apart(records, 2, 6)
    sums = scaled_sums(parts.start, parts.weights, elements)
    one = (slice(None), None)
    shift = records.form.shift
    if isinstance(records.form, LinearForm):
        found = linear(sums, parts.constants[0][one], shift)
    else:
        found = signed(sums, parts.constants[0][one], parts.constants[1][one], records.rounding, shift)
    expected = exact.apply((elements - input_zero_point) @ weights.T + bias)
    np.testing.assert_array_equal(found.T, expected)


def test_general_records_hold_256_times_the_sums() -> None:
    """Where no form is exact the records have no constants, and the sums no offset."""
    rng = np.random.default_rng(4)
    weights, bias = rng.integers(-127, 128, (4, 8)), rng.integers(-900, 900, 4)
    elements = rng.integers(-128, 128, (10, 8))
    records = pack(weights, bias, 17, stage(3.0, 4), group=2, words=2, shifts=(10, 7))
    assert records.form is None and records.form_name == "general" and records.size == 2 * 3
    parts = take_apart(records, 2, 2)
    assert parts.constants == []
    sums = scaled_sums(parts.start, parts.weights, elements)
    np.testing.assert_array_equal(sums.T, wrap(256 * ((elements - 17) @ weights.T + bias)))


def test_constant_channels_have_no_weights() -> None:
    """A channel that a large bias drives to one value needs no products, and its bias may leave 24 bits."""
    weights = np.full((2, 4), 100)
    records = pack(weights, np.array([1 << 29, 0]), 0, stage(1e-3, 2, 0), group=2, words=1, shifts=(10,))
    parts = take_apart(records, 2, 1)
    assert not parts.weights[0].any() and parts.weights[1].all()
    assert isinstance(records.form, LinearForm)
    assert linear(parts.start[:1], parts.constants[0][:1], 10).tolist() == [127]


@pytest.mark.parametrize(
    "weights, bias, reason",
    [
        (np.full((1, 4), -128), 0, "-128 stands before a negative one"),
        (np.full((1, 600), 127), 0, "24 bits"),
        (np.full((1, 4), 127), (1 << 31) - 1, "int32"),
    ],
)
def test_what_cannot_be_packed(weights: np.ndarray, bias: int, reason: str) -> None:
    with pytest.raises(Unpackable, match=reason):
        real = 1.5 if "24" in reason else 1e-3
        pack(weights, np.array([bias]), 0, stage(real, 1, 0), group=2, words=weights.shape[1] // 4, shifts=(10,))


def test_the_first_exact_shift_is_taken() -> None:
    """2^-2 is too large a factor for shift 10; 2^-6 is not."""
    weights = np.random.default_rng(5).integers(-127, 128, (2, 8))
    for exponent, shift in ((2, 7), (6, 10)):
        records = pack(weights, np.zeros(2, np.int64), -128, stage(2.0**-exponent, 2), group=2, words=2, shifts=(10, 7))
        assert records.form is not None and records.form.shift == shift


def read_through(window: Window, image: np.ndarray, reading: Reading) -> np.ndarray:
    """What the kernel's steps see of every window [pixels, elements], in its order, 0 where a word reaches too far."""
    patches = window.patches(image, -9).reshape(-1, window.kernel[0], window.kernel[1] * window.channels)
    if reading.gathered:
        flat = patches.reshape(patches.shape[0], -1)
        return np.pad(flat, ((0, 0), (0, 4 * reading.steps - flat.shape[1])))
    whole = 4 * reading.row_words
    width = patches.shape[2]
    body = np.pad(patches, ((0, 0), (0, 0), (0, max(0, whole - width))))[:, :, :whole].reshape(patches.shape[0], -1)
    tails = patches[:, :, whole:].reshape(patches.shape[0], -1)
    return np.pad(np.concatenate([body, tails], 1), ((0, 0), (0, -tails.shape[1] % 4)))


@pytest.mark.parametrize(
    "size, kernel, stride, dilation",
    [
        ((5, 6, 3), (3, 3), (1, 1), (1, 1)), ((5, 6, 4), (3, 3), (2, 2), (1, 1)), ((4, 4, 6), (1, 1), (1, 1), (1, 1)),
        ((9, 5, 1), (5, 4), (2, 1), (1, 1)), ((7, 7, 2), (3, 3), (1, 1), (2, 2)), ((6, 5, 1), (3, 3), (1, 1), (1, 1)),
        ((6, 6, 5), (5, 5), (1, 1), (1, 1)), ((3, 8, 2), (1, 7), (1, 1), (1, 1)),
    ],
)  # fmt: skip
def test_weights_stand_in_the_order_in_which_a_window_is_read(
    size: tuple[int, int, int], kernel: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int]
) -> None:
    """Products in the kernel's order are the convolution, for every way of reading."""
    rng = np.random.default_rng(size[2])
    output = tuple((size[i] - (kernel[i] - 1) * dilation[i] - 1) // stride[i] + 1 for i in (0, 1))
    window = Window(size[:2], size[2], kernel, stride, dilation, (0, 0, 0, 0), (output[0], output[1]))
    reading = Reading.of(window)
    weights, image = rng.integers(-127, 128, (3, *kernel, size[2])), rng.integers(-128, 128, (1, *size))
    ordered = reading.order(weights)
    padded = np.zeros((3, 4 * reading.steps), np.int64)
    padded[:, : ordered.shape[1]] = ordered
    expected = window.patches(image, -9).reshape(-1, window.taps * size[2]) @ weights.reshape(3, -1).T
    np.testing.assert_array_equal(read_through(window, image, reading) @ padded.T, expected)


def layer(size: tuple[int, int, int], weights: tuple[int, ...], **options: object) -> Graph:
    return trained_layer(np.random.default_rng(6), "conv2d", size, weights, **options)  # type: ignore[arg-type]


def test_a_pointwise_layer_is_one_row() -> None:
    """So that the kernel never comes to a row's end; the comment still tells the image."""
    graph = layer((5, 7, 8), (4, 1, 1, 8))
    code = conv2d_layer(graph, graph.nodes[0])
    assert (code.fields["window.input_h"], code.fields["window.input_w"]) == ("1", "35")
    assert (code.fields["window.output_h"], code.fields["window.output_w"]) == ("1", "35")
    assert "5x7x8 -> 5x7x4" in code.summary


@pytest.mark.parametrize("limit, padded", [(7 * 8 * 4, "1"), (7 * 8 * 4 - 1, None)])
def test_a_small_image_gets_its_border_first(limit: int, padded: str | None) -> None:
    """5x6x4 with its border is 7x8x4 bytes."""
    graph = layer((5, 6, 4), (4, 3, 3, 4))
    code = conv2d_layer(graph, graph.nodes[0], border_limit=limit)
    assert code.fields.get("padded") == padded
    without = conv2d_layer(graph, graph.nodes[0], border_limit=0)
    assert code.scratch_bytes == without.scratch_bytes + (7 * 8 * 4 if padded else 0)


def test_no_border_where_there_is_no_padding() -> None:
    graph = layer((5, 6, 4), (4, 3, 3, 4), same=False)
    assert "padded" not in conv2d_layer(graph, graph.nodes[0]).fields


@pytest.mark.parametrize("outputs, odd", [(4, 0), (5, 1), (1, 1)])
def test_the_limit_tells_odd_from_even(outputs: int, odd: int) -> None:
    graph = layer((2, 2, 4), (outputs, 1, 1, 4))
    code = conv2d_layer(graph, graph.nodes[0])
    words = code.constants[0].data.size
    assert int(code.fields["limit"]) == words - 1 + odd


def test_weights_cost_a_byte_each() -> None:
    """Two words for each output channel beside them; nothing for the short output stages."""
    graph = layer((4, 4, 16), (16, 3, 3, 16))
    code = conv2d_layer(graph, graph.nodes[0])
    assert [constant.data.nbytes for constant in code.constants] == [16 * 144 + 16 * 8]


def test_simulated_layers_agree_with_the_packed_arithmetic() -> None:
    """A whole convolution through records and forms in numpy, against the operator's simulation."""
    rng = np.random.default_rng(7)
    graph = layer((6, 5, 3), (5, 3, 3, 3), zero_points=(11, -128))
    inputs = random_input(rng, graph)
    node = graph.nodes[0]
    weights = graph.tensors[1].data
    assert weights is not None
    window = Window.of(node, graph.tensors[0], (3, 3))
    reading = Reading.of(window)
    bias = graph.tensors[2].data
    assert bias is not None
    records = pack(
        reading.order(weights.astype(np.int64)), bias.astype(np.int64), 11, OutputStage.of(graph, node, 5),
        group=2, words=reading.steps, shifts=(10,),
    )  # fmt: skip
    assert isinstance(records.form, LinearForm)
    parts = take_apart(records, 2, reading.steps)
    patches = window.patches(inputs[0], 11).reshape(-1, 3, 9).astype(np.int64)
    order = np.concatenate([patches[:, :, :8].reshape(-1, 24), patches[:, :, 8], np.zeros((patches.shape[0], 1), np.int64)], 1)
    found = linear(scaled_sums(parts.start, parts.weights, order), parts.constants[0][:, None], 10)
    np.testing.assert_array_equal(found[:5].T.reshape(1, 6, 5, 5), simulate(graph, *inputs)[0])
