"""Fake quantization against the formulas in numpy, and the awkward cases: dead channels, dead tensors, huge biases."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from compress.fake_quantize import (
    BIAS_LIMIT,
    MINIMUM_RANGE,
    MINIMUM_WEIGHT_SCALE,
    ActivationQuantizer,
    Mode,
    QuantizedLayer,
    affine_parameters,
    set_mode,
    value_range,
    weight_scales,
)
from train.models import SameConv2d

Floats = npt.NDArray[np.float32]


def numpy_round_trip(x: Floats, scale: float, zero_point: int, low: int, high: int) -> Floats:
    """real -> stored -> real, as the formula says it."""
    stored = np.clip(np.rint(x.astype(np.float64) / scale) + zero_point, low, high)
    return ((stored - zero_point) * scale).astype(np.float32)


def calibrated(values: torch.Tensor) -> ActivationQuantizer:
    quantizer = ActivationQuantizer()
    quantizer.mode = Mode.CALIBRATE
    quantizer(values)
    quantizer.mode = Mode.FIXED
    return quantizer.eval()


@pytest.mark.parametrize(
    ("low", "high", "scale", "zero_point"),
    [
        (0.0, 255.0, 1.0, -128),  # after ReLU
        (-128.0, 127.0, 1.0, 0),
        (-1.0, 0.0, 1 / 255, 127),
        (-12.7, 12.8, 0.1, -1),
        (3.0, 5.1, 5.1 / 255, -128),  # widened to hold 0
        (-4.0, -2.0, 4 / 255, 127),
    ],
)
def test_scale_and_zero_point_by_hand(low: float, high: float, scale: float, zero_point: int) -> None:
    found_scale, found_zero_point = affine_parameters(torch.tensor(low), torch.tensor(high))
    assert found_scale.dtype == torch.float32 and found_zero_point.dtype == torch.int32
    assert found_scale.item() == pytest.approx(scale, rel=1e-6)
    assert found_zero_point.item() == zero_point


@given(low=st.floats(-1e4, 1e4, width=32), high=st.floats(-1e4, 1e4, width=32))
@settings(max_examples=200, deadline=None)
def test_every_range_holds_zero_exactly_and_its_ends_within_a_step(low: float, high: float) -> None:
    low, high = min(low, high), max(low, high)
    scale, zero_point = affine_parameters(torch.tensor(low), torch.tensor(high))
    assert scale.item() > 0 and -128 <= zero_point.item() <= 127
    least, greatest = (-128 - zero_point.item()) * scale.item(), (127 - zero_point.item()) * scale.item()
    assert least <= 0 <= greatest
    assert least <= min(low, 0) + 0.51 * scale.item() and greatest >= max(high, 0) - 0.51 * scale.item()


def test_activations_against_numpy() -> None:
    values = torch.randn(500, generator=torch.Generator().manual_seed(1)) * 3
    quantizer = calibrated(values)
    found = quantizer(values * 1.5).numpy()  # 1.5: some lie outside of the range
    expected = numpy_round_trip((values * 1.5).numpy(), quantizer.scale.item(), quantizer.zero_point.item(), -128, 127)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
    assert len(np.unique(found)) <= 256


def test_a_tensor_that_is_always_zero_gets_a_positive_scale() -> None:
    quantizer = calibrated(torch.zeros(8))
    assert quantizer.scale.item() == pytest.approx(MINIMUM_RANGE / 255)
    assert torch.equal(quantizer(torch.zeros(8)), torch.zeros(8))


def test_the_input_is_fixed_and_exact_for_every_pixel() -> None:
    quantizer = ActivationQuantizer(fixed=(float(np.float32(1 / 255)), -128))
    set_mode(quantizer, Mode.CALIBRATE)
    quantizer(torch.full((4,), 77.0))
    set_mode(quantizer, Mode.ADAPT)
    quantizer.train()
    quantizer(torch.full((4,), 77.0))
    assert quantizer.scale.item() == np.float32(1 / 255) and quantizer.zero_point.item() == -128
    pixels = torch.arange(256).float() / 255
    np.testing.assert_allclose(quantizer(pixels).numpy(), pixels.numpy(), rtol=2e-7)


def test_calibration_averages_the_batches_ranges_and_lets_values_pass() -> None:
    quantizer = ActivationQuantizer()
    quantizer.mode = Mode.CALIBRATE
    batches = [torch.tensor([-1.0, 2.0]), torch.tensor([-3.0, 4.0]), torch.tensor([-2.0, 9.0])]
    for batch in batches:
        assert torch.equal(quantizer(batch), batch)
    assert quantizer.low.item() == pytest.approx(-2.0) and quantizer.high.item() == pytest.approx(5.0)
    assert quantizer.scale.item() == pytest.approx(7 / 255)


def test_training_follows_with_a_moving_average_and_evaluation_does_not() -> None:
    quantizer = calibrated(torch.tensor([0.0, 1.0]))
    quantizer.momentum, quantizer.mode = 0.25, Mode.ADAPT
    quantizer.train()
    quantizer(torch.tensor([0.0, 3.0]))
    assert quantizer.high.item() == pytest.approx(1.5)
    quantizer.eval()
    quantizer(torch.tensor([0.0, 300.0]))
    quantizer.mode = Mode.FIXED
    quantizer.train()
    quantizer(torch.tensor([0.0, 300.0]))
    assert quantizer.high.item() == pytest.approx(1.5)


def test_the_range_is_part_of_the_saved_state() -> None:
    quantizer, other = calibrated(torch.tensor([-1.0, 3.0])), ActivationQuantizer()
    other.load_state_dict(quantizer.state_dict())
    x = torch.randn(50)
    assert torch.equal(other.eval()(x), quantizer(x))


def test_percentile_drops_the_outlier_and_100_keeps_it() -> None:
    values = torch.cat([torch.linspace(0, 1, 999), torch.tensor([50.0])])
    assert value_range(values, 100.0)[1].item() == 50.0
    low, high = value_range(values, 99.0)
    expected_low, expected_high = np.percentile(values.numpy(), [1.0, 99.0])
    assert low.item() == pytest.approx(expected_low, abs=2e-3) and high.item() == pytest.approx(expected_high, abs=2e-3)


@pytest.mark.parametrize("percentile", [50.1, 99.99, 100.0])
def test_a_range_of_one_value_is_that_value(percentile: float) -> None:
    low, high = value_range(torch.tensor([[2.5]]), percentile)
    assert low.item() == high.item() == 2.5


def test_the_gradient_passes_inside_and_stops_outside_of_the_range() -> None:
    quantizer = calibrated(torch.tensor([0.0, 1.0]))
    x = torch.tensor([0.3, 0.9, 1.8, -0.4], requires_grad=True)
    quantizer(x).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [1.0, 1.0, 0.0, 0.0]


def layer_with(weights: torch.Tensor, bias: torch.Tensor | None) -> QuantizedLayer:
    layer = nn.Linear(weights.shape[1], weights.shape[0], bias=bias is not None)
    with torch.no_grad():
        layer.weight.copy_(weights)
        if bias is not None:
            layer.bias.copy_(bias)
    return QuantizedLayer(layer)


SCALE = torch.tensor(0.02)


def test_weights_and_bias_against_numpy() -> None:
    generator = torch.Generator().manual_seed(4)
    weights, bias = torch.randn(5, 9, generator=generator), torch.randn(5, generator=generator)
    layer = layer_with(weights, bias)
    scales = np.abs(weights.numpy()).max(1) / np.float32(127)
    np.testing.assert_allclose(layer.scales(SCALE).numpy(), scales, rtol=1e-6)
    stored, stored_bias = layer.integers(SCALE)
    assert stored_bias is not None and stored.dtype == torch.int8 and stored_bias.dtype == torch.int32
    np.testing.assert_array_equal(stored.numpy(), np.rint(weights.numpy() / scales[:, None]).astype(np.int8))
    np.testing.assert_array_equal(stored_bias.numpy(), np.rint(bias.numpy() / (np.float64(0.02) * scales)).astype(np.int32))
    assert np.abs(stored.numpy()).max(1).tolist() == [127] * 5


def test_the_layer_computes_with_exactly_what_is_stored() -> None:
    generator = torch.Generator().manual_seed(5)
    layer = layer_with(torch.randn(6, 12, generator=generator), torch.randn(6, generator=generator))
    integers = torch.randint(-128, 128, (40, 12), generator=generator)
    x = (integers + 128).float() * SCALE
    stored, bias = layer.integers(SCALE)
    assert bias is not None
    accumulators = (integers.numpy() + 128).astype(np.int64) @ stored.numpy().astype(np.int64).T + bias.numpy()
    expected = accumulators * (np.float64(SCALE.item()) * layer.scales(SCALE).double().numpy())
    with torch.no_grad():
        np.testing.assert_allclose(layer(x, SCALE).numpy(), expected, rtol=1e-5, atol=1e-5)


def test_a_convolution_keeps_its_padding_and_stride() -> None:
    torch.manual_seed(6)
    convolution = SameConv2d(3, 4, 3, 2, (6, 5))
    layer = QuantizedLayer(convolution)
    x = torch.rand(2, 3, 6, 5)
    with torch.no_grad():
        exact, rounded = convolution(x), layer(x, SCALE)
    assert exact.shape == rounded.shape == (2, 4, 3, 3)
    assert 0 < (exact - rounded).abs().max() < 0.1
    layer.mode = Mode.CALIBRATE
    with torch.no_grad():
        assert torch.equal(layer(x, SCALE), exact)


def test_gradients_reach_weights_and_bias() -> None:
    layer = layer_with(torch.tensor([[0.5, -1.0]]), torch.tensor([0.3]))
    layer(torch.tensor([[2.0, 4.0]]), SCALE).sum().backward()
    assert layer.layer.weight.grad is not None and layer.layer.weight.grad.tolist() == [[2.0, 4.0]]
    assert layer.layer.bias is not None and layer.layer.bias.grad is not None
    assert layer.layer.bias.grad.tolist() == [1.0]


def test_a_dead_channel_gets_a_tiny_positive_scale() -> None:
    weights = torch.tensor([[0.0, 0.0], [1.27, 0.5]])
    assert weight_scales(weights, None, SCALE).tolist() == [MINIMUM_WEIGHT_SCALE, pytest.approx(0.01)]
    layer = layer_with(weights, torch.zeros(2))
    stored, bias = layer.integers(SCALE)
    assert bias is not None and stored[0].tolist() == [0, 0] and bias[0] == 0
    assert layer(torch.ones(1, 2), SCALE)[0, 0].item() == 0


@pytest.mark.parametrize("bias", [1.0, -30.0, 1e4, -1e9])
@pytest.mark.parametrize("weight", [0.0, 1e-9, 1e-30])
def test_the_bias_of_a_dead_channel_stays_in_int32_and_is_kept(weight: float, bias: float) -> None:
    layer = layer_with(torch.tensor([[weight, 0.0]]), torch.tensor([bias]))
    _, stored = layer.integers(SCALE)
    assert stored is not None and abs(stored.item()) <= BIAS_LIMIT * (1 + 1e-6)
    with torch.no_grad():
        assert layer(torch.zeros(1, 2), SCALE).item() == pytest.approx(bias, rel=1e-6)


@given(exponent=st.integers(-40, 20), bias=st.floats(-1e6, 1e6, width=32), input_scale=st.floats(2.0**-16, 100.0, width=32))
@settings(max_examples=150, deadline=None)
def test_every_stored_bias_leaves_room_in_int32(exponent: int, bias: float, input_scale: float) -> None:
    layer = layer_with(torch.full((1, 3), 2.0**exponent), torch.tensor([bias]))
    scale = torch.tensor(input_scale, dtype=torch.float32)
    stored, stored_bias = layer.integers(scale)
    assert stored_bias is not None
    assert abs(int(stored_bias)) + 3 * 255 * int(stored.abs().max()) < 2**31
    assert torch.isfinite(layer.scales(scale)).all() and (layer.scales(scale) > 0).all()


def test_a_layer_without_bias_stores_none() -> None:
    layer = layer_with(torch.ones(2, 2), None)
    assert layer.integers(SCALE)[1] is None
    assert layer(torch.ones(1, 2), SCALE).shape == (1, 2)


def test_set_mode_reaches_every_quantizer() -> None:
    model = nn.Sequential(ActivationQuantizer(), nn.Sequential(layer_with(torch.ones(1, 1), None), nn.ReLU()))
    set_mode(model, Mode.CALIBRATE)
    assert [m.mode for m in model.modules() if hasattr(m, "mode")] == [Mode.CALIBRATE] * 2
