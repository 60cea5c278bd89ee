"""A model file in the place of a recipe: which files are models, and the recipe of defaults that stands for one."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from recipes.recipe import Recipe, apply_override, parse

MODEL_SUFFIXES = (".onnx", ".tflite")
KERAS_SUFFIXES = (".keras", ".h5", ".hdf5")
KERAS_STAGE, CONVERTED = "keras", "model.tflite"
"""The stage that converts a Keras model, and its output."""
SAVED_MODEL = "saved_model.pb"
"""The file that makes a folder a SavedModel of TensorFlow."""


def is_keras(path: Path) -> bool:
    """Whether a path is a float model of Keras: .keras, .h5, or a SavedModel folder."""
    return path.suffix.lower() in KERAS_SUFFIXES or (path / SAVED_MODEL).is_file()


def is_model(path: Path) -> bool:
    """Whether an argument is a model rather than a recipe."""
    return path.suffix.lower() in MODEL_SUFFIXES or is_keras(path)


def int8_model(path: Path, root: Path) -> Path:
    """The int8 file itself: the argument, or what the stage `keras` in build/<name> has made of a Keras model."""
    return root / KERAS_STAGE / CONVERTED if is_keras(path) else path


def recipe_of_model(path: Path, overrides: Iterable[str]) -> Recipe:
    """A recipe named like the file, with the default settings and the overrides.

    Raises:
        UsageError: an override is wrong.
    """
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", path.stem).lstrip("_.-")[:64] or "model"
    content: dict[str, Any] = {"name": name}
    for override in overrides:
        apply_override(content, override)
    return parse(Recipe, content, str(path))
