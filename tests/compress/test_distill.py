"""The distillation loss against its formula, and fine-tuning that follows the teacher."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from compress.distill import DistillSettings, FineTuning, distill, distillation_loss, fine_tune, teacher_loss
from compress.method import Candidate, Context
from compress.prune import PruneSettings, prune
from train.diagnose import TrainingError
from train.evaluate import accuracy
from train.models import build_model


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def loss_by_hand(student: np.ndarray, teacher: np.ndarray, labels: np.ndarray, t: float, w: float, smoothing: float) -> float:
    """Hinton et al. 2015, in float64: w T^2 sum p (log p - log q), plus (1 - w) times the cross entropy."""
    p, q = softmax(teacher / t), softmax(student / t)
    divergence = np.mean(np.sum(p * (np.log(p) - np.log(q)), 1))
    classes = student.shape[1]
    targets = np.eye(classes)[labels] * (1 - smoothing) + smoothing / classes
    entropy = np.mean(-np.sum(targets * np.log(softmax(student)), 1))
    return float(w * t * t * divergence + (1 - w) * entropy)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 7.5])
@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_against_its_formula(temperature: float, weight: float, smoothing: float) -> None:
    rng = np.random.default_rng(3)
    student, teacher = rng.normal(0, 3, (9, 5)), rng.normal(0, 3, (9, 5))
    labels = rng.integers(0, 5, 9)
    settings = FineTuning(temperature=temperature, teacher_weight=weight)
    found = distillation_loss(
        torch.from_numpy(student), torch.from_numpy(teacher), torch.from_numpy(labels), settings, smoothing
    )
    assert found.item() == pytest.approx(loss_by_hand(student, teacher, labels, temperature, weight, smoothing), rel=1e-9)


def test_a_student_that_agrees_costs_nothing_with_the_teacher_alone() -> None:
    logits = torch.randn(6, 4)
    settings = FineTuning(teacher_weight=1.0)
    assert distillation_loss(logits, logits, torch.zeros(6, dtype=torch.int64), settings, 0.0).item() == pytest.approx(
        0, abs=1e-6
    )


def test_the_gradient_goes_to_the_student_only() -> None:
    student, teacher = torch.randn(4, 3, requires_grad=True), nn.Linear(2, 3)
    images = torch.randn(4, 2)
    loss = teacher_loss(teacher, FineTuning(), 0.0)
    loss(student, images, torch.tensor([0, 1, 2, 0])).backward()
    assert student.grad is not None and student.grad.abs().sum() > 0
    assert all(p.grad is None for p in teacher.parameters())


class Refusing(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise AssertionError("the teacher was asked")


def test_without_weight_the_teacher_is_not_asked() -> None:
    logits, labels = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    loss = teacher_loss(Refusing(), FineTuning(teacher_weight=0.0), 0.1)
    expected = nn.functional.cross_entropy(logits, labels, label_smoothing=0.1)
    assert loss(logits, torch.zeros(4, 2), labels).item() == expected.item()
    with pytest.raises(AssertionError, match="was asked"):
        teacher_loss(Refusing(), FineTuning(teacher_weight=0.1), 0.1)(logits, torch.zeros(4, 2), labels)


def test_the_teacher_sees_the_images_that_the_student_sees() -> None:
    seen: list[torch.Tensor] = []

    class Watching(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(x)
            return torch.zeros(len(x), 3)

    images = torch.rand(4, 2)
    teacher_loss(Watching(), FineTuning(), 0.0)(torch.randn(4, 3), images, torch.tensor([0, 1, 2, 0]))
    assert seen[0] is images


@pytest.fixture
def pruned(trained: Candidate, context: Context) -> Candidate:
    return prune(trained, PruneSettings(ratio=0.5), context)


def test_distilling_recovers_what_pruning_cost(pruned: Candidate, context: Context, trained: Candidate) -> None:
    after = distill(pruned, DistillSettings(epochs=6, learning_rate=1e-2), context)
    low, high = accuracy(pruned.model, context.dataset.test), accuracy(after.model, context.dataset.test)
    assert low < 0.5 < high and high > low + 0.3
    assert after.config == pruned.config and not after.model.training
    assert accuracy(trained.model, context.dataset.test) > 0.8


def test_the_candidate_given_is_not_touched(pruned: Candidate, context: Context) -> None:
    before = {name: tensor.clone() for name, tensor in pruned.model.state_dict().items()}
    distill(pruned, DistillSettings(epochs=1), context)
    assert all(torch.equal(before[name], tensor) for name, tensor in pruned.model.state_dict().items())


def test_the_teacher_is_not_trained(pruned: Candidate, context: Context) -> None:
    before = {name: tensor.clone() for name, tensor in context.teacher.state_dict().items()}
    distill(pruned, DistillSettings(epochs=1, learning_rate=1e-2), context)
    assert all(torch.equal(before[name], tensor) for name, tensor in context.teacher.state_dict().items())
    assert not context.teacher.training


def test_the_same_seed_gives_the_same_weights(pruned: Candidate, context: Context) -> None:
    first, second = (distill(pruned, DistillSettings(epochs=1), context).model.state_dict() for _ in range(2))
    other = distill(pruned, DistillSettings(epochs=1), replace(context, seed=99)).model.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_a_finished_training_is_not_repeated(pruned: Candidate, context: Context, tmp_path: Path) -> None:
    """As after a kill in a later step: the checkpoint in `work` gives the same weights at once."""
    resumable = replace(context, work=tmp_path / "step")
    first = distill(pruned, DistillSettings(epochs=2), resumable).model.state_dict()
    assert list((tmp_path / "step").iterdir())
    second = distill(pruned, DistillSettings(epochs=2), resumable).model.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_epochs_rate_and_warm_up_come_from_the_step(pruned: Candidate, context: Context) -> None:
    settings = FineTuning(epochs=2, learning_rate=3e-3)
    result = fine_tune(build_model(pruned.config), settings, context, "test")
    assert result.epochs == 2
    assert max(record.learning_rate for record in result.history) <= 3e-3


def test_nan_is_refused_with_advice_for_this_step(pruned: Candidate, context: Context) -> None:
    with pytest.raises(TrainingError, match=r"distill failed.*lower this step's learning_rate \(now 1e\+30\)") as raised:
        distill(pruned, DistillSettings(epochs=3, learning_rate=1e30), context)
    assert raised.value.exit_code == 9 and "\n" not in str(raised.value)
