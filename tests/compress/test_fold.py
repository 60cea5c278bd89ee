"""Batch-norm folding gives the same answers as the network with its batch norms."""

from __future__ import annotations

import operator

import numpy as np
import pytest
import torch
from torch import nn

from compress.fold import LAYERS, fold_batch_norm, folded_parameters, layer_of
from firmware_export.graph import GraphError
from train.models import ModelConfig, SameConv2d


def images(config: ModelConfig) -> torch.Tensor:
    height, width, channels = config.input_shape
    return torch.rand(7, channels, height, width, generator=torch.Generator().manual_seed(2))


def test_folded_network_answers_as_the_unfolded_one(network: tuple[nn.Module, ModelConfig]) -> None:
    model, config = network
    with torch.no_grad():
        expected, found = model(images(config)), fold_batch_norm(model)(images(config))
    assert expected.std() > 0.01
    np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=1e-4, atol=1e-5)


def test_pool_network_too(pool_network: nn.Module) -> None:
    batch = torch.rand(4, 2, 6, 6)
    with torch.no_grad():
        np.testing.assert_allclose(
            fold_batch_norm(pool_network)(batch).numpy(), pool_network(batch).numpy(), rtol=1e-4, atol=1e-5
        )


def test_no_batch_norm_and_no_dropout_is_left(network: tuple[nn.Module, ModelConfig]) -> None:
    folded = fold_batch_norm(network[0])
    kinds = {type(module) for module in folded.modules() if not list(module.children())}
    assert nn.BatchNorm2d not in kinds and nn.Dropout not in kinds
    assert kinds <= set(LAYERS) | {nn.Module}
    assert all(layer.bias is not None for layer in folded.modules() if isinstance(layer, nn.Conv2d))


def test_the_given_network_stays_as_it_was(network: tuple[nn.Module, ModelConfig]) -> None:
    model, _ = network
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    folded = fold_batch_norm(model)
    with torch.no_grad():
        for parameter in folded.parameters():
            parameter.zero_()
    assert before.keys() == model.state_dict().keys()
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_one_channel_by_hand() -> None:
    """gamma 3, beta 1, mean 0.5, variance 4 (eps 0): y = 3 * (2x - 0.5) / 2 + 1 = 3x + 0.25."""
    convolution, norm = SameConv2d(1, 1, 1, 1, (1, 1)), nn.BatchNorm2d(1, eps=0.0)
    with torch.no_grad():
        convolution.weight.fill_(2.0)
        norm.weight.fill_(3.0)
        norm.bias.fill_(1.0)
        norm.running_mean.fill_(0.5)
        norm.running_var.fill_(4.0)
    weights, bias = folded_parameters(convolution, norm)
    assert weights.item() == 3.0 and bias.item() == 0.25


def test_a_bias_before_the_norm_is_folded_in() -> None:
    torch.manual_seed(0)
    convolution, norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, affine=False)
    norm.running_mean.uniform_(-1, 1)
    norm.running_var.uniform_(0.5, 2)
    weights, bias = folded_parameters(convolution, norm)
    x = torch.randn(2, 3, 5, 5)
    with torch.no_grad():
        expected = norm.eval()(convolution(x))
    np.testing.assert_allclose(nn.functional.conv2d(x, weights, bias).numpy(), expected.numpy(), rtol=1e-4, atol=1e-5)


def test_a_tiny_variance_stays_finite() -> None:
    convolution, norm = nn.Conv2d(1, 2, 1, bias=False), nn.BatchNorm2d(2)
    norm.running_var.zero_()
    weights, bias = folded_parameters(convolution, norm)
    assert torch.isfinite(weights).all() and torch.isfinite(bias).all()


def test_a_norm_without_statistics_is_refused() -> None:
    with pytest.raises(GraphError, match="running statistics"):
        folded_parameters(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2, track_running_stats=False))


class NormFirst(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(x)


class SharedConvolution(nn.Module):
    """The convolution's output is read by the norm and by the addition: folding would change the addition."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = SameConv2d(1, 1, 3, 1, (4, 4))
        self.norm = nn.BatchNorm2d(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        return self.norm(y) + y


class Sigmoid(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.squash = nn.Sigmoid()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.squash(x)


class Product(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * x


@pytest.mark.parametrize("model", [NormFirst(), SharedConvolution()])
def test_a_norm_that_cannot_be_folded_is_named(model: nn.Module) -> None:
    with pytest.raises(GraphError, match="batch norm 'norm' does not directly follow one convolution"):
        fold_batch_norm(model)


@pytest.mark.parametrize(("model", "found"), [(Sigmoid(), "Sigmoid"), (Product(), "call_function")])
def test_an_unknown_layer_is_named_with_what_is_supported(model: nn.Module, found: str) -> None:
    with pytest.raises(GraphError, match=f"{found}.*supported: .*GlobalAveragePool.*SameConv2d") as raised:
        fold_batch_norm(model)
    assert "\n" not in str(raised.value)


def test_layer_of_tells_layers_from_functions(network: tuple[nn.Module, ModelConfig]) -> None:
    folded = fold_batch_norm(network[0])
    for node in folded.graph.nodes:
        assert (layer_of(folded, node) is not None) == (node.op == "call_module")
    assert layer_of(folded, 3) is None
    additions = [node for node in folded.graph.nodes if node.target is operator.add]
    assert len(additions) == (2 if network[1].family == "resnet" else 0)
