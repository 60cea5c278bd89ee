"""Fine-tuning with knowledge distillation: the compressed network learns from the unpruned one's answers.

Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network" (2015).
"""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from compress.method import Candidate, Context, Method
from recipes.recipe import Section
from train.diagnose import TrainingError
from train.loop import FitResult, fit
from train.regularize import Loss

WARMUP_SHARE = 0.1
"""Of the epochs, at most: weights that are nearly right need little warm-up."""


class FineTuning(Section):
    """Training on from given weights; everything not named here is as in the recipe's `train` section."""

    epochs: int = Field(10, ge=1, le=10000)
    learning_rate: float = Field(1e-3, gt=0, description="its peak")
    temperature: float = Field(4.0, gt=0, le=100, description="softens the teacher's and the student's answers")
    teacher_weight: float = Field(0.7, ge=0, le=1, description="share of the teacher in the loss; the rest is the labels'")


class DistillSettings(FineTuning):
    """Settings of the step."""

    epochs: int = Field(20, ge=1, le=10000)


def distillation_loss(student: Tensor, teacher: Tensor, labels: Tensor, settings: FineTuning, smoothing: float) -> Tensor:
    """w * T^2 * KL(softmax(teacher/T) || softmax(student/T)) + (1 - w) * cross entropy(student, labels), mean over images.

    Args:
        student, teacher: logits float [n, classes].
        labels: int64 [n].
        smoothing: label smoothing of the cross entropy.
    """
    temperature, weight = settings.temperature, settings.teacher_weight
    soft = F.kl_div(
        F.log_softmax(student / temperature, 1), F.log_softmax(teacher / temperature, 1), reduction="batchmean", log_target=True
    )
    hard = F.cross_entropy(student, labels, label_smoothing=smoothing)
    return weight * temperature**2 * soft + (1 - weight) * hard


def teacher_loss(teacher: nn.Module, settings: FineTuning, smoothing: float) -> Loss:
    """The loss for train.loop.fit; the teacher sees the same augmented images. Without teacher weight it is not asked."""

    def loss(logits: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        """One batch."""
        if settings.teacher_weight == 0:
            return F.cross_entropy(logits, labels, label_smoothing=smoothing)
        with torch.no_grad():
            answers = teacher(images)
        return distillation_loss(logits, answers, labels, settings, smoothing)

    return loss


def fine_tune(model: nn.Module, settings: FineTuning, context: Context, label: str) -> FitResult:
    """Trains a network on in place, from its present weights, and leaves the best epoch's in it.

    Raises:
        TrainingError: the loss is NaN or infinite.
    """
    warmup = min(context.train.warmup_epochs, WARMUP_SHARE * settings.epochs)
    changed = {"epochs": settings.epochs, "learning_rate": settings.learning_rate, "warmup_epochs": warmup}
    train = context.train.model_copy(update=changed)
    loss = teacher_loss(context.teacher, settings, train.label_smoothing)
    try:
        return fit(model, context.dataset, train, seed=context.seed, work=context.work, loss=loss, label=label)
    except TrainingError as error:
        what = str(error).rpartition("; lower ")[0] or str(error)  # its advice names the recipe's train section
        raise TrainingError(f"{what}; lower this step's learning_rate (now {settings.learning_rate:g})") from None


def distill(candidate: Candidate, settings: DistillSettings, context: Context) -> Candidate:
    """Fine-tunes towards the unpruned network's answers: recovers the accuracy that pruning cost."""
    model = copy.deepcopy(candidate.model)
    fine_tune(model, settings, context, "distill")
    return replace(candidate, model=model.eval())


METHOD = Method(DistillSettings, distill)
