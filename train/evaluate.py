"""What a network answers, and how often it is right."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from train.data import Split, Uint8, to_float_nchw

BATCH = 256


def predict(model: nn.Module, images: Uint8) -> NDArray[np.float32]:
    """Logits float32 [n, classes] for uint8 images [n, h, w, c]; in eval mode (no dropout, BN's running statistics)."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            parts = [
                model(torch.from_numpy(to_float_nchw(images[start : start + BATCH]))).numpy()
                for start in range(0, len(images), BATCH)
            ]
    finally:
        model.train(training)
    return np.concatenate(parts)


def accuracy(model: nn.Module, split: Split) -> float:
    """The fraction of images whose largest logit is that of their label; the first one where two are equal."""
    return float(np.mean(predict(model, split.images).argmax(1) == split.labels))
