"""What operators share: windows, output stages, folded biases, example makers."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from firmware_export.graph import Graph, GraphError, Node, Quantization, Tensor
from firmware_export.operators import _examples as make
from firmware_export.operators._accumulator import OutputStage, folded_bias
from firmware_export.operators._checks import clamp_attribute, integers, shape_text
from firmware_export.operators._convolution_examples import CORNERS, convolution_cases
from firmware_export.operators._window import Window


def image(height: int = 6, width: int = 7, channels: int = 2) -> Tensor:
    return Tensor("x", (1, height, width, channels), "int8", Quantization.per_tensor(0.1, 0))


def window(kernel: tuple[int, int] = (3, 3), size: tuple[int, int] = (6, 7), **attributes: Any) -> Window:
    options = {"stride": (1, 1), "padding": (0, 0, 0, 0), **attributes}
    return Window.of(Node("conv2d", (), (), options), image(*size), kernel)


@pytest.mark.parametrize(
    ("attributes", "output"),
    [
        ({}, (4, 5)),
        ({"padding": (1, 1, 1, 1)}, (6, 7)),
        ({"stride": (2, 2)}, (2, 3)),
        ({"stride": (2, 3), "padding": (1, 0, 0, 2)}, (3, 3)),
        ({"dilation": (2, 3)}, (2, 1)),
        ({"stride": (9, 9)}, (1, 1)),
    ],
)
def test_output_sizes_by_hand(attributes: dict[str, Any], output: tuple[int, int]) -> None:
    assert window(**attributes).output == output


@pytest.mark.parametrize(
    ("kernel", "size", "attributes", "text"),
    [
        ((3, 3), (6, 7), {}, "3x3 s1 valid"),
        ((3, 3), (6, 7), {"padding": (1, 1, 1, 1)}, "3x3 s1 same"),
        ((3, 3), (8, 8), {"stride": (2, 2), "padding": (0, 1, 0, 1)}, "3x3 s2 same"),
        ((3, 3), (8, 8), {"stride": (2, 2), "padding": (1, 1, 1, 1)}, "3x3 s2 pad 1,1,1,1"),
        ((1, 5), (6, 7), {"stride": (1, 2)}, "1x5 s1x2 valid"),
        ((3, 2), (6, 7), {"dilation": (1, 3)}, "3x2 s1 d1x3 valid"),
    ],
)
def test_summaries(kernel: tuple[int, int], size: tuple[int, int], attributes: dict[str, Any], text: str) -> None:
    assert window(kernel, size, **attributes).summary() == text


def test_pointwise_needs_no_padding_and_one_tap() -> None:
    assert window((1, 1)).is_pointwise and window((1, 1), stride=(2, 2)).is_pointwise
    assert not window((1, 1), padding=(0, 1, 0, 0)).is_pointwise and not window((1, 2)).is_pointwise


def test_taps() -> None:
    assert window((3, 2)).taps == 6


def test_fields_name_every_member_of_the_struct() -> None:
    """Against the header, so that a forgotten member shows."""
    from firmware_export.hostlib import RUNTIME

    header = (RUNTIME / "window.h").read_text()
    struct = header[header.index("typedef struct {") : header.index("} nn_window;")]
    members = {line.split()[-1].rstrip(";") for line in struct.splitlines() if "uint16_t" in line}
    assert {key.removeprefix("window.") for key in window().fields()} == members


def test_patches() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(-128, 128, (1, 6, 7, 2)).astype(np.int8)
    options = {"stride": (2, 1), "padding": (2, 1, 0, 3), "dilation": (1, 2)}
    found = window((3, 2), **options)
    patches = found.patches(pixels, -9)
    assert patches.shape == (*found.output, 3, 2, 2)
    for row, column, i, j in np.ndindex(*patches.shape[:4]):
        y, x = row * 2 - 2 + i, column - 0 + j * 2
        inside = 0 <= y < 6 and 0 <= x < 7
        assert np.array_equal(patches[row, column, i, j], pixels[0, y, x] if inside else [-9, -9])


def test_patches_cannot_be_written() -> None:
    patches = window().patches(np.zeros((1, 6, 7, 2), np.int8), 0)
    with pytest.raises(ValueError, match="read-only"):
        patches[0, 0, 0, 0, 0] = 1


@pytest.mark.parametrize(
    ("padding", "fits"),
    [
        ((0, 0, 0, 0), True),
        ((2, 2, 2, 2), True),
        ((3, 0, 0, 0), False),
        ((0, 3, 0, 0), False),
        ((0, 0, 3, 0), False),
        ((0, 0, 0, 3), False),
    ],
)
def test_windows_that_see_no_pixel(padding: tuple[int, int, int, int], fits: bool) -> None:
    found = window(padding=padding)
    if fits:
        found.check_touches_image()
    else:
        with pytest.raises(GraphError, match="leaves windows without any pixel"):
            found.check_touches_image()


def test_windows_that_see_no_pixel_by_brute_force() -> None:
    """The rule against a look at every window."""
    for kernel, stride, before, after in itertools.product((1, 2, 3), (1, 2, 3), range(4), range(4)):
        try:
            found = window((kernel, 1), (4, 3), stride=(stride, 1), padding=(before, after, 0, 0))
        except GraphError:
            continue
        rows = [range(row * stride - before, row * stride - before + kernel) for row in range(found.output[0])]
        sees = all(any(0 <= y < 4 for y in row) for row in rows)
        try:
            found.check_touches_image()
            passed = True
        except GraphError:
            passed = False
        assert passed == sees, (kernel, stride, before, after)


def test_folded_bias() -> None:
    sums = np.array([10, -5, 0])
    assert folded_bias(np.array([1, 2, 3], np.int32), sums, -3).tolist() == [31, -13, 3]
    assert folded_bias(None, sums, 2).tolist() == [-20, 10, 0]
    assert folded_bias(np.array([2**31 - 1], np.int32), np.array([-1]), 1).tolist() == [-(2**31)], "wraps around"


def stage(weights_scale: np.ndarray, zero_point: int = 3, clamp: tuple[int, int] = (-100, 90)) -> OutputStage:
    weights = Tensor("w", (3, 1), "int8", Quantization(weights_scale, np.zeros(weights_scale.size, np.int64), 0))
    y = Tensor("y", (1, 3), "int8", Quantization.per_tensor(0.5, zero_point))
    x = Tensor("x", (1, 1), "int8", Quantization.per_tensor(0.25, 0))
    node = Node("fully_connected", (0, 1), (2,), {"clamp": clamp})
    return OutputStage.of(Graph([x, weights, y], [node], (0,), (2,)), node, 3)


def test_output_stage_by_hand() -> None:
    """Factors 1/2 x (1, 1/2, 1/4): sums of 12 become 6, 3, 1.5 -> 2, and the zero point is added."""
    found = stage(np.array([1, 0.5, 0.25], np.float32))
    assert found.multiplier.tolist() == [2**30] * 3 and found.shift.tolist() == [0, -1, -2]
    assert found.apply(np.array([[12, 12, 12], [-12, -12, -12], [10**6, -(10**6), 0]])).tolist() == [
        [9, 6, 5],
        [-3, 0, 1],
        [90, -100, 3],
    ]


def test_output_stage_fields_and_tables() -> None:
    found = stage(np.array([1, 0.5, 0.25], np.float32))
    assert found.fields("dense.stage") == {
        "dense.stage.multipliers": "{multipliers}",
        "dense.stage.shifts": "{shifts}",
        "dense.stage.zero_point": "3",
        "dense.stage.min": "-100",
        "dense.stage.max": "90",
    }
    multipliers, shifts = found.constants()
    assert (multipliers.suffix, str(multipliers.data.dtype)) == ("multipliers", "int32")
    assert (shifts.suffix, str(shifts.data.dtype), shifts.data.tolist()) == ("shifts", "int8", [0, -1, -2])


def test_one_scale_is_repeated_for_every_channel() -> None:
    assert stage(np.array([0.5], np.float32)).shift.tolist() == [-1, -1, -1]


@pytest.mark.parametrize(
    ("shape", "text"), [((1, 4, 5, 6), "4x5x6"), ((1, 10), "10"), ((3, 10), "3x10"), ((1,), "1"), ((), "1"), ((7,), "7")]
)
def test_shape_text(shape: tuple[int, ...], text: str) -> None:
    assert shape_text(Tensor("t", shape, "int8")) == text


def test_attributes_of_the_wrong_kind() -> None:
    for value in (None, 3, "3,3", (1.5, 2), (1, 2, 3), (-1, 1), (1, 70000)):
        with pytest.raises(GraphError, match="stride is"):
            integers(Node("conv2d", (), (), {} if value is None else {"stride": value}), "stride", 2, 1)
    for value in (None, (1,), (5, 4), (-129, 0), (0, 128), "all"):
        with pytest.raises(GraphError, match="clamp is"):
            clamp_attribute(Node("conv2d", (), (), {} if value is None else {"clamp": value}))


# The examples are test data of every operator: what they promise is held here.


def test_convolution_corners_have_different_labels() -> None:
    labels = [case.label for case in convolution_cases(np.random.default_rng(0))]
    assert len(set(labels)) == len(labels) and len(labels) >= 50
    assert len(CORNERS) >= 25


def test_convolution_cases_vary_in_every_option() -> None:
    cases = list(convolution_cases(np.random.default_rng(0)))
    for option in ("stride", "dilation", "padding", "kernel", "outputs", "bias", "per_tensor", "ties"):
        assert len({getattr(case, option) for case in cases}) >= 2, option
    assert any(case.padding[0] != case.padding[1] for case in cases)
    assert any(max(case.padding) >= max(case.kernel) for case in cases)


def test_random_quantizations_reach_the_ends() -> None:
    rng = np.random.default_rng(0)
    found = [make.random_quantization(rng) for _ in range(200)]
    assert {int(q.zero_point[0]) for q in found} == set(make.ZERO_POINTS)
    powers = [q for q in found if np.log2(float(q.scale[0])) % 1 == 0]
    assert 20 <= len(powers) <= 100


def test_spread_output_spreads() -> None:
    """The standard deviation of random sums is near the number of steps asked for."""
    rng = np.random.default_rng(1)
    x = make.activation((1, 400), Quantization.per_tensor(0.1, 0))
    weights = make.random_weights(rng, (200, 400), None)
    output = make.spread_output(rng, x, weights, 400, spread=30.0)
    vector = rng.integers(-128, 128, 400).astype(np.float64)
    assert weights.data is not None and weights.quantization is not None
    real = weights.data.astype(np.float64) @ vector * 0.1 * float(weights.quantization.scale[0])
    assert 20 < real.std() / float(output.scale[0]) < 45


def test_tied_scales_make_ties() -> None:
    rng = np.random.default_rng(1)
    x, weights, output = make.tied(
        make.activation((1, 9), make.random_quantization(rng)), make.random_weights(rng, (2, 9), 0), 9
    )
    assert weights.quantization is not None
    factor = x.scale * float(weights.quantization.scale[0]) / float(output.scale[0])
    assert np.log2(factor) % 1 == 0 and factor < 0.5


def test_extreme_inputs_alternate() -> None:
    x = make.activation((1, 3, 2, 2), Quantization.per_tensor(0.1, 0))
    graph = make.single_node("relu", (x,), Quantization.per_tensor(0.1, 0), {"clamp": (0, 127)})
    (found,) = make.extreme_inputs(graph)
    assert set(found.reshape(-1).tolist()) == {-128, 127} and found.dtype == np.int8
    assert found[0, 0, 0, 0] != found[0, 0, 0, 1] and found[0, 0, 0, 0] != found[0, 1, 0, 0]


def test_single_node_puts_absent_inputs_in_their_place() -> None:
    rng = np.random.default_rng(1)
    x = make.activation((1, 5), Quantization.per_tensor(0.1, 0))
    weights = make.random_weights(rng, (2, 5), 0)
    graph = make.single_node("fully_connected", (x, weights, None), Quantization.per_tensor(1.0, 0), {"clamp": (-128, 127)})
    assert graph.nodes[0].inputs == (0, 1, -1) and graph.inputs == (0,) and graph.tensors[-1].shape == (1, 2)
