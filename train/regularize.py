"""What keeps a network from learning its training images by heart, apart from augmentation and dropout."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recipes.recipe import TrainSection

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups for an optimizer: weights of convolutions and linear layers decay; biases and batch norm do not.

    Decay of a batch norm's scale or of a bias only shifts what the next layers see (He et al. 2018, "Bag of Tricks").
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]


def make_optimizer(model: nn.Module, settings: TrainSection) -> torch.optim.Optimizer:
    """AdamW (Loshchilov & Hutter 2019: decoupled decay), or SGD with momentum (decay added to the gradient)."""
    groups = parameter_groups(model, settings.weight_decay)
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=settings.learning_rate)
    return torch.optim.SGD(groups, lr=settings.learning_rate, momentum=settings.momentum)


def smoothed_cross_entropy(smoothing: float) -> Loss:
    """Cross-entropy against (1 - smoothing) * one-hot + smoothing / classes (Szegedy et al. 2016), mean over the batch.

    Returns:
        loss(logits float [n, classes], images, labels int64 [n]) -> scalar; the images are not used.
    """

    def _loss(logits: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits, labels, label_smoothing=smoothing)

    return _loss
