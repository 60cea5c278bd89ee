"""A program for test_resume.py: trains a small network on digits and is killed (SIGKILL) where it is told.

    interrupted.py FOLDER OPTIMIZER:PLACE,PLACE,... [OPTIMIZER:PLACE,...]

Each argument after the folder is one training in a work folder of its own; each PLACE one run of it, in a process of its own:
`12` is killed in step 12 of that run, `w12` while the 12th checkpoint is being written, just before it gets its name, `end` is
left alone and prints the argument and the SHA-256 of the result.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import os
import signal
import sys
from pathlib import Path

import torch
from torch import Tensor

from recipes.recipe import AugmentSection, DataSection, TrainSection
from train.data import Dataset, load_dataset
from train.loop import FitResult, fit
from train.models import ModelConfig, build_model
from train.regularize import smoothed_cross_entropy

CONFIG = ModelConfig("resnet", (8, 8, 1), 10, (8, 8, 8, 12, 16), (1, 1, 2), dropout=0.2)
SETTINGS = TrainSection(
    epochs=4,
    batch_size=40,
    learning_rate=5e-3,
    warmup_epochs=1.0,
    patience=3,
    checkpoint_steps=2,
    threads=1,
    augment=AugmentSection(shift=0.7, rotate=10, scale=0.1),
)


def kill_self() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def train_until(dataset: Dataset, work: Path, optimizer: str, place: str) -> None:
    """One run; returns only when nothing killed it."""
    torch.manual_seed(1)
    model = build_model(CONFIG)
    smoothed = smoothed_cross_entropy(0.05)
    steps, writes = itertools.count(1), itertools.count(1)
    replace = Path.replace

    def loss(logits: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        if place == str(next(steps)):
            kill_self()
        return smoothed(logits, images, labels)

    def replace_or_die(path: Path, target: Path) -> Path:
        if place == f"w{next(writes)}":
            kill_self()
        return replace(path, target)

    Path.replace = replace_or_die  # type: ignore[method-assign]
    settings = SETTINGS.model_copy(update={"optimizer": optimizer})
    result = fit(model, dataset, settings, seed=1, work=work, loss=loss)
    print("result", digest(model.state_dict(), result), flush=True)


def digest(state: dict[str, Tensor], result: FitResult) -> str:
    """SHA-256 over every bit of the weights and the history."""
    parts = hashlib.sha256(repr(dataclasses.asdict(result)).encode())
    for name in sorted(state):
        parts.update(name.encode() + state[name].numpy().tobytes())
    return parts.hexdigest()


def run(dataset: Dataset, work: Path, training: str) -> None:
    """Forks one process per place, so that torch is loaded once; exits when one does not end as it should."""
    optimizer, _, places = training.partition(":")
    for place in places.split(","):
        child = os.fork()
        if child == 0:
            train_until(dataset, work, optimizer, place)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        wanted = 0 if place == "end" else -signal.SIGKILL
        if os.waitstatus_to_exitcode(status) != wanted:
            sys.exit(f"{training}: the run '{place}' ended with {os.waitstatus_to_exitcode(status)}, expected {wanted}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    digits = load_dataset(DataSection(limit=200), 1)
    for number, argument in enumerate(sys.argv[2:]):
        print("training", argument, flush=True)
        run(digits, Path(sys.argv[1]) / str(number), argument)
