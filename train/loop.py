"""The training loop: schedule, early stopping, checkpoints, and resuming bit for bit.

Nothing random has a state that outlives a step: the order of an epoch's images, their augmentation and dropout are drawn
from (seed, purpose, epoch, step). So a checkpoint holds only weights, the optimizer's moments and the sums of the
epoch begun, and a training killed at any step and resumed ends with the same bits as one left alone (same machine
and number of threads).
"""

from __future__ import annotations

import contextlib
import math
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recipes.artifacts import ArtifactError, sha256_json
from recipes.recipe import TrainSection
from train.augment import augment, generator_for
from train.checkpoint import load_checked, save_checked
from train.data import Dataset, Int64, to_float_nchw
from train.diagnose import TrainingError, first_nonfinite
from train.evaluate import predict
from train.progress import Advance, progress
from train.regularize import Loss, make_optimizer, smoothed_cross_entropy
from train.schedule import learning_rate

RESUME_FILE = "checkpoint.pt"
ORDER, AUGMENT, DROPOUT = range(3)  # purposes of random numbers: each has its own stream


@dataclass(frozen=True)
class EpochRecord:
    """One line of the history. Loss and accuracy of training are those met on the way, on augmented images with dropout."""

    epoch: int
    learning_rate: float
    train_loss: float
    train_accuracy: float
    validation_loss: float
    validation_accuracy: float


@dataclass(frozen=True)
class FitResult:
    """What a training gave: `epochs` were run, the weights are those after `best_epoch` (1 is the first)."""

    history: tuple[EpochRecord, ...]
    best_epoch: int
    best_accuracy: float
    epochs: int


@dataclass
class _Progress:
    """Where a training stands; with weights and optimizer all that a checkpoint holds."""

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    correct: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int = 0
    best_state: dict[str, Tensor] = field(default_factory=dict)


def fit(
    model: nn.Module,
    dataset: Dataset,
    settings: TrainSection,
    *,
    seed: int,
    work: Path | None = None,
    loss: Loss | None = None,
    label: str = "train",
) -> FitResult:
    """Trains in place; the model ends with the weights of its best epoch, in eval mode.

    An epoch is better when its validation accuracy is higher, or equal with a lower validation loss; after
    `settings.patience` epochs that are not, training stops.

    Args:
        model: logits float [n, classes] for float [n, c, h, w] in [0, 1].
        settings: `model` and `dropout` are not read: the network is already built.
        work: folder for the checkpoint; one left there by a killed run of the same settings is resumed. Remove it with
            `remove_checkpoint` when its stage is done.
        loss: (logits, images float [n, c, h, w], labels int64 [n]) -> scalar; default: cross-entropy with label smoothing.
        label: names the training in progress lines and the checkpoint.
    Raises:
        TrainingError: NaN or infinity; the message names epoch, step and the first layer that holds it.
        ArtifactError: the checkpoint is damaged or could not be written.
    """
    if settings.threads:
        torch.set_num_threads(settings.threads)
    with torch.random.fork_rng(devices=[]):
        return _Fit(model, dataset, settings, seed, work, loss, label).run()


def remove_checkpoint(work: Path) -> None:
    """Removes the checkpoint of a finished training, and what a killed run left of one half written."""
    for path in (work / RESUME_FILE, *work.glob(f".{RESUME_FILE}.*.tmp")):
        path.unlink(missing_ok=True)


class _Fit:
    def __init__(
        self,
        model: nn.Module,
        dataset: Dataset,
        settings: TrainSection,
        seed: int,
        work: Path | None,
        loss: Loss | None,
        label: str,
    ) -> None:
        self.model, self.dataset, self.settings, self.seed, self.label = model, dataset, settings, seed, label
        self.loss = loss or smoothed_cross_entropy(settings.label_smoothing)
        self.optimizer = make_optimizer(model, settings)
        self.at = _Progress()
        # a last batch that is not full is left out: batch norm's statistics over a few images are poor
        self.batch = min(settings.batch_size, len(dataset.train))
        self.epoch_steps = len(dataset.train) // self.batch
        self.path = work / RESUME_FILE if work is not None else None

    def run(self) -> FitResult:
        """From the checkpoint, if there is one, to the end."""
        self._resume()
        while not self._finished():
            started = time.monotonic()
            self._train_epoch()
            self._end_epoch()
            print(self._line(time.monotonic() - started), flush=True)
            self._save()
        best = self._best()
        self.model.load_state_dict(self.at.best_state)
        self.model.eval()
        history = tuple(EpochRecord(**record) for record in self.at.history)
        return FitResult(history, self.at.best_epoch, best["validation_accuracy"], self.at.epoch)

    def _best(self) -> dict[str, Any]:
        return self.at.history[self.at.best_epoch - 1]

    def _finished(self) -> bool:
        waited = self.at.epoch - self.at.best_epoch
        return self.at.epoch >= self.settings.epochs or (self.at.epoch > 0 and waited >= self.settings.patience)

    def _train_epoch(self) -> None:
        order = np.random.default_rng((self.seed, ORDER, self.at.epoch)).permutation(len(self.dataset.train))
        self.model.train()
        with self._bar() as advance:
            advance(self.at.step)
            while self.at.step < self.epoch_steps:
                self._train_step(order[self.at.step * self.batch : (self.at.step + 1) * self.batch])
                self.at.step += 1
                advance(1)
                if self.at.step % self.settings.checkpoint_steps == 0 and self.at.step < self.epoch_steps:
                    self._save()

    def _bar(self) -> contextlib.AbstractContextManager[Advance]:
        return progress(f"{self.label}: epoch {self.at.epoch + 1}/{self.settings.epochs}", self.epoch_steps, "steps")

    def _train_step(self, index: Int64) -> None:
        images = torch.from_numpy(to_float_nchw(self.dataset.train.images[index]))
        labels = torch.from_numpy(self.dataset.train.labels[index])
        images = augment(images, self.settings.augment, self._generator(AUGMENT))
        torch.set_rng_state(self._generator(DROPOUT).get_state())
        logits = self.model(images)
        loss = self.loss(logits, images, labels)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise self._diverged(f"the loss is {value}", images)
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.at.loss_sum += value
        self.at.correct += int((logits.argmax(1) == labels).sum())

    def _generator(self, purpose: int) -> torch.Generator:
        return generator_for(self.seed, purpose, self.at.epoch, self.at.step)

    def _learning_rate(self) -> float:
        step = self.at.epoch * self.epoch_steps + self.at.step
        warmup = round(self.settings.warmup_epochs * self.epoch_steps)
        return learning_rate(step, self.settings.epochs * self.epoch_steps, warmup, self.settings.learning_rate)

    def _end_epoch(self) -> None:
        """Validates, notes the epoch, keeps the weights when they are the best so far."""
        validation = self.dataset.validation
        logits = torch.from_numpy(predict(self.model, validation.images))
        labels = torch.from_numpy(validation.labels)
        loss = float(F.cross_entropy(logits, labels))
        if not math.isfinite(loss):
            self.model.eval()
            raise self._diverged(f"the validation loss is {loss}", torch.from_numpy(to_float_nchw(validation.images[:256])))
        record = EpochRecord(
            epoch=self.at.epoch + 1,
            learning_rate=self.optimizer.param_groups[0]["lr"],
            train_loss=self.at.loss_sum / self.epoch_steps,
            train_accuracy=self.at.correct / (self.epoch_steps * self.batch),
            validation_loss=loss,
            validation_accuracy=float((logits.argmax(1) == labels).double().mean()),
        )
        self.at.history.append(asdict(record))
        if self.at.best_epoch == 0 or _merit(self.at.history[-1]) > _merit(self._best()):
            self.at.best_epoch = record.epoch
            self.at.best_state = {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}
        self.at.epoch, self.at.step, self.at.loss_sum, self.at.correct = record.epoch, 0, 0.0, 0

    def _line(self, seconds: float) -> str:
        record = self.at.history[-1]
        best = " (best)" if self.at.best_epoch == record["epoch"] else ""
        return (
            f"{self.label}: epoch {record['epoch']}/{self.settings.epochs}, loss {record['train_loss']:.3f}, "
            f"accuracy {100 * record['train_accuracy']:.1f} %, validation {100 * record['validation_accuracy']:.2f} %{best}, "
            f"{seconds:.1f} s"
        )

    def _diverged(self, what: str, images: Tensor) -> TrainingError:
        layer = first_nonfinite(self.model, images)
        where = f"first NaN or infinity in {layer}" if layer else "every layer's output is finite: the loss itself is not"
        step = min(self.at.step + 1, self.epoch_steps)  # in the validation all steps are done
        return TrainingError(
            f"{self.label} failed at epoch {self.at.epoch + 1}, step {step}: {what}; {where}; "
            f"lower train.learning_rate (now {self.settings.learning_rate:g}) or raise train.warmup_epochs"
        )

    def _key(self) -> str:
        """A checkpoint is resumed only by the training that wrote it."""
        tensors = {name: [str(t.dtype), *t.shape] for name, t in self.model.state_dict().items()}
        splits = [len(self.dataset.train), len(self.dataset.validation)]
        settings = self.settings.model_dump(exclude={"threads", "checkpoint_steps"})
        return sha256_json([self.label, self.seed, settings, tensors, self.dataset.name, splits])

    def _save(self) -> None:
        if self.path is None:
            return
        # asdict would copy the tensors; vars does not
        state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "at": vars(self.at)}
        save_checked(self.path, {"key": self._key(), **state})

    def _resume(self) -> None:
        if self.path is None or not self.path.exists():
            return
        content = load_checked(self.path)
        if content.get("key") != self._key():
            return
        try:
            self.model.load_state_dict(content["model"])
            self.optimizer.load_state_dict(content["optimizer"])
            self.at = _Progress(**content["at"])
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise ArtifactError(
                f"{self.path} is not a whole checkpoint ({type(error).__name__}); delete it and run again"
            ) from None
        where = "after its end" if self._finished() else f"at epoch {self.at.epoch + 1}, step {self.at.step + 1}"
        print(f"{self.label}: resumed {where}", flush=True)


def _merit(record: dict[str, Any]) -> tuple[float, float]:
    return record["validation_accuracy"], -record["validation_loss"]
