"""The picture of a training: loss and accuracy over the epochs."""

from __future__ import annotations

import io
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from recipes.artifacts import write_bytes_atomic
from train.loop import FitResult


def draw_curves(result: FitResult, title: str, path: Path) -> None:
    """Writes a PNG of 900 x 400 pixels; the same result gives the same bytes."""
    figure = Figure(figsize=(9, 4), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    epochs = [record.epoch for record in result.history]
    left.plot(epochs, [r.train_loss for r in result.history], label="training (augmented, smoothed)")
    left.plot(epochs, [r.validation_loss for r in result.history], label="validation")
    left.set(xlabel="epoch", ylabel="loss", title=title)
    right.plot(epochs, [100 * r.train_accuracy for r in result.history], label="training (augmented)")
    right.plot(epochs, [100 * r.validation_accuracy for r in result.history], label="validation")
    right.axvline(result.best_epoch, color="grey", linestyle=":", label=f"best epoch: {result.best_epoch}")
    right.set(xlabel="epoch", ylabel="accuracy, %", title=f"validation {100 * result.best_accuracy:.2f} %")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    write_bytes_atomic(path, buffer.getvalue())
