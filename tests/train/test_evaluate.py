"""Predictions: order, batching, eval mode; accuracy against counting."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import train.evaluate as evaluate
from train.data import Split
from train.evaluate import accuracy, predict
from train.models import ModelConfig, build_model


class FirstPixels(nn.Module):
    """The logits are the first pixels of the image."""

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)[:, :3] * 255


def split(pixels: list[list[int]], labels: list[int]) -> Split:
    return Split(np.array(pixels, np.uint8).reshape(-1, 1, 3, 1), np.array(labels, np.int64))


def test_predictions_are_in_order_across_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "BATCH", 4)
    images = np.random.default_rng(1).integers(0, 256, (11, 1, 3, 1), dtype=np.uint8)
    logits = predict(FirstPixels(), images)
    assert logits.dtype == np.float32 and logits.shape == (11, 3)
    assert np.array_equal(np.rint(logits), images.reshape(11, 3))


@pytest.mark.parametrize(
    ("labels", "expected"), [([0, 1, 2, 0], 1.0), ([0, 1, 2, 1], 0.75), ([1, 1, 1, 1], 0.25), ([2, 0, 1, 2], 0.0)]
)
def test_accuracy_is_the_fraction_of_largest_logits(labels: list[int], expected: float) -> None:
    data = split([[9, 1, 1], [1, 9, 1], [1, 1, 9], [5, 4, 3]], labels)
    assert accuracy(FirstPixels(), data) == expected


def test_of_two_equal_logits_the_first_counts() -> None:
    assert accuracy(FirstPixels(), split([[7, 7, 1], [1, 7, 7]], [0, 1])) == 1.0


@pytest.mark.parametrize("training", [True, False])
def test_prediction_is_in_eval_mode_and_changes_nothing(training: bool) -> None:
    torch.manual_seed(1)
    model = build_model(ModelConfig("resnet", (8, 8, 1), 10, (8, 8, 8), (1, 1), dropout=0.5)).train(training)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    images = np.random.default_rng(1).integers(0, 256, (20, 8, 8, 1), dtype=np.uint8)
    first = predict(model, images)
    assert np.array_equal(first, predict(model, images))
    assert np.allclose(first[3:4], predict(model, images[3:4]), atol=1e-5)
    assert model.training is training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_the_mode_comes_back_after_an_error() -> None:
    model = build_model(ModelConfig("resnet", (8, 8, 1), 10, (8, 8, 8), (1, 1))).train()
    with pytest.raises(RuntimeError):
        predict(model, np.zeros((2, 8, 8, 5), np.uint8))
    assert model.training


def test_predictions_carry_no_gradient_but_training_goes_on() -> None:
    model = build_model(ModelConfig("resnet", (8, 8, 1), 10, (8, 8, 8), (1, 1))).train()
    predict(model, np.zeros((2, 8, 8, 1), np.uint8))
    model(torch.rand(2, 1, 8, 8)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
