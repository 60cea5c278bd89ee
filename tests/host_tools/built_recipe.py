"""A recipe whose stages up to the firmware of board `host` are built, in a second or two and without training."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from qdq_file import digits_file

from firmware_export.__main__ import main as firmware_export_main
from recipes.artifacts import MANIFEST, Stage, manifest_digest, write_bytes_atomic
from recipes.recipe import DataSection
from train.data import load_dataset

NAME = "tiny"
FIGURES = {
    "steps": [
        {"name": "train", "accuracy": 0.9, "validation_accuracy": 0.9, "macs": 9000, "weights": 900},
        {"name": "quantize", "accuracy": 0.89, "validation_accuracy": 0.9, "macs": 3136, "weights": 690},
    ],
    "accuracy": {"float": 0.9, "pruned": 0.895, "int8_onnx": 0.89},
    "macs": {"unpruned": 9000, "final": 3136},
    "weights": {"unpruned": 900, "final": 690},
}


def build_recipe(folder: Path, model: bytes | None = None, boards: tuple[str, ...] = ("host",)) -> Path:
    """Writes tiny.yaml and build/tiny/{compress,export,firmware/<board>...} below `folder`; returns the recipe's file.

    Args:
        model: an int8 QDQ file for the digits; default: a small classifier that gets about nine of ten right.
    """
    recipe = folder / f"{NAME}.yaml"
    recipe.write_text(f"name: {NAME}\nseed: 1\ndata: {{name: digits}}\n")
    with Stage(folder / "build" / NAME, "compress", {}) as stage:
        content = model or digits_file(load_dataset(DataSection(), 1))
        write_bytes_atomic(stage.work / "model_int8.onnx", content)
        stage.finish(FIGURES, "compress: made for a test")
    for board in boards:
        assert firmware_export_main([str(recipe), "--build", str(folder / "build"), "--board", board]) == 0
    return recipe


def change_manifest(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Rewrites a stage's manifest as if the stage itself had written it so."""
    manifest = json.loads((folder / MANIFEST).read_text())
    change(manifest)
    manifest["digest"] = manifest_digest(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest))


def copy_recipe(built: Path, folder: Path) -> Path:
    """A copy of a built recipe (its file and its artifacts), free to be changed; returns the copied recipe's file."""
    shutil.copytree(built.parent / "build", folder / "build", copy_function=shutil.copy2)
    return Path(shutil.copy2(built, folder / built.name))
