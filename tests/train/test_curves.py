"""The picture: right size, its lines where the numbers are, the same bytes for the same numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from recipes.artifacts import ArtifactError
from train.curves import draw_curves
from train.loop import EpochRecord, FitResult


def result(validation: float = 0.9) -> FitResult:
    history = tuple(EpochRecord(n, 0.1, 2.0 / n, 1 - 0.5 / n, 1.5 / n, validation) for n in range(1, 6))
    return FitResult(history, best_epoch=3, best_accuracy=validation, epochs=5)


def test_the_picture(tmp_path: Path) -> None:
    draw_curves(result(), "a title", tmp_path / "training.png")
    with Image.open(tmp_path / "training.png") as image:
        assert image.size == (900, 400)
        pixels = np.asarray(image.convert("RGB"))
    colours = {tuple(c) for c in pixels.reshape(-1, 3)}
    assert (31, 119, 180) in colours and (255, 127, 14) in colours  # matplotlib's first two colours: the two curves
    assert (pixels == 255).all(2).mean() > 0.5


def test_the_same_numbers_give_the_same_bytes(tmp_path: Path) -> None:
    for name, value in (("a", 0.9), ("b", 0.9), ("c", 0.8)):
        draw_curves(result(value), "title", tmp_path / name)
    contents = [(tmp_path / name).read_bytes() for name in "abc"]
    assert contents[0] == contents[1] != contents[2]


def test_one_epoch_is_enough(tmp_path: Path) -> None:
    single = FitResult(result().history[:1], 1, 0.9, 1)
    draw_curves(single, "title", tmp_path / "training.png")
    assert (tmp_path / "training.png").stat().st_size > 1000


def test_it_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(ArtifactError, match="cannot write"):
        draw_curves(result(), "title", tmp_path / "folder")
