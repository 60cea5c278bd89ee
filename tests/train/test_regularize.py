"""Decay groups, optimizers and label smoothing against the formulas, worked out step by step in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from recipes.recipe import TrainSection
from train.models import ModelConfig, build_model
from train.regularize import make_optimizer, parameter_groups, smoothed_cross_entropy


def network() -> nn.Module:
    torch.manual_seed(1)
    return build_model(ModelConfig("resnet", (6, 6, 1), 4, (4, 4, 4, 4, 8), (1, 1, 2)))


def decaying(name: str) -> bool:
    """By name, independent of shapes: batch norms are called bn..., skip_bn or stem_bn; biases bias."""
    return "bn" not in name and not name.endswith("bias")


def test_batch_norms_and_biases_do_not_decay() -> None:
    model = network()
    names = {id(p): name for name, p in model.named_parameters()}
    decayed, free = parameter_groups(model, 0.3)
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.3, 0.0)
    assert {names[id(p)] for p in decayed["params"]} == {name for name in names.values() if decaying(name)}
    assert {names[id(p)] for p in free["params"]} == {name for name in names.values() if not decaying(name)}


def test_frozen_parameters_are_left_out() -> None:
    model = network()
    model.get_parameter("stem.weight").requires_grad = False
    groups = parameter_groups(model, 0.1)
    assert not any(p is model.get_parameter("stem.weight") for group in groups for p in group["params"])


def train_steps(model: nn.Module, settings: TrainSection, steps: int) -> list[dict[str, np.ndarray]]:
    """Random gradients, one per step; returns them."""
    optimizer = make_optimizer(model, settings)
    generator = torch.Generator().manual_seed(2)
    gradients = []
    for _ in range(steps):
        for parameter in model.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        gradients.append({name: p.grad.double().numpy() for name, p in model.named_parameters() if p.grad is not None})
        optimizer.step()
    return gradients


def values(model: nn.Module) -> dict[str, np.ndarray]:
    return {name: p.detach().double().numpy().copy() for name, p in model.named_parameters()}


def adamw(start: np.ndarray, gradients: list[np.ndarray], rate: float, decay: float) -> np.ndarray:
    """Loshchilov & Hutter 2019, algorithm 2, with beta 0.9 and 0.999, epsilon 1e-8."""
    w, m, v = start.copy(), np.zeros_like(start), np.zeros_like(start)
    for t, g in enumerate(gradients, 1):
        m = 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * g * g
        w = w - rate * decay * w - rate * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    return w


def sgd(start: np.ndarray, gradients: list[np.ndarray], rate: float, decay: float, momentum: float) -> np.ndarray:
    """Heavy ball: v = momentum * v + g + decay * w; w = w - rate * v."""
    w, v = start.copy(), np.zeros_like(start)
    for g in gradients:
        v = momentum * v + g + decay * w
        w = w - rate * v
    return w


@pytest.mark.parametrize("decay", [0.0, 0.2])
def test_adamw_step_by_step(decay: float) -> None:
    model = network()
    start = values(model)
    settings = TrainSection(optimizer="adamw", learning_rate=0.05, weight_decay=decay)
    gradients = train_steps(model, settings, 5)
    for name, found in values(model).items():
        expected = adamw(start[name], [g[name] for g in gradients], 0.05, decay if decaying(name) else 0.0)
        assert np.allclose(found, expected, atol=2e-6), name


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("decay", [0.0, 0.2])
def test_sgd_step_by_step(decay: float, momentum: float) -> None:
    model = network()
    start = values(model)
    settings = TrainSection(optimizer="sgd", learning_rate=0.05, weight_decay=decay, momentum=momentum)
    gradients = train_steps(model, settings, 5)
    for name, found in values(model).items():
        expected = sgd(start[name], [g[name] for g in gradients], 0.05, decay if decaying(name) else 0.0, momentum)
        assert np.allclose(found, expected, atol=5e-6), name


def test_decay_alone_shrinks_weights_and_nothing_else() -> None:
    model = network()
    start = values(model)
    optimizer = make_optimizer(model, TrainSection(optimizer="adamw", learning_rate=0.1, weight_decay=0.5))
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, found in values(model).items():
        assert np.allclose(found, start[name] * (0.95 if decaying(name) else 1.0), rtol=1e-6), name


@pytest.mark.parametrize("smoothing", [0.0, 0.05, 0.3])
def test_label_smoothing_is_torchs_and_the_formulas(smoothing: float) -> None:
    generator = torch.Generator().manual_seed(3)
    logits, labels = torch.randn(16, 7, generator=generator) * 3, torch.arange(16) % 7
    found = smoothed_cross_entropy(smoothing)(logits, torch.empty(0), labels)
    assert torch.equal(found, nn.CrossEntropyLoss(label_smoothing=smoothing)(logits, labels))
    z = logits.double().numpy()
    log_p = z - np.log(np.exp(z).sum(1, keepdims=True))
    target = np.full((16, 7), smoothing / 7)
    target[np.arange(16), labels.numpy()] += 1 - smoothing
    assert abs(float(found) - float(-(target * log_p).sum(1).mean())) < 1e-6


def test_smoothing_is_least_where_the_target_is() -> None:
    """The gradient at logits = log(target) is zero."""
    smoothing, classes = 0.2, 5
    target = torch.full((1, classes), smoothing / classes)
    target[0, 2] += 1 - smoothing
    logits = target.log().requires_grad_()
    smoothed_cross_entropy(smoothing)(logits, torch.empty(0), torch.tensor([2])).backward()
    assert logits.grad is not None and float(logits.grad.abs().max()) < 1e-6
