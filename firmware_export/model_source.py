"""A model file in the place of a recipe: which files are models, and the recipe of defaults that stands for one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from firmware_export.graph import GraphError
from firmware_export.model_file import read_model_bytes
from recipes.recipe import Recipe, apply_override, parse

if TYPE_CHECKING:
    from onnx import ModelProto

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


def model_files(path: Path) -> list[Path]:
    """The file itself and, of an .onnx file, those inside its folder that hold its external data: what decides the result.

    A file that is missing or damaged is alone; who reads it says what is wrong.
    """
    if path.suffix.lower() != ".onnx" or not path.is_file():
        return [path]
    from firmware_export.read_onnx import parse  # loads onnx

    try:
        found = {path.parent / location for location in _locations(parse(read_model_bytes(path)))}
        inside = path.parent.resolve()
        return [path, *sorted(file for file in found if file.resolve().is_relative_to(inside) and file.is_file())]
    except (GraphError, OSError, ValueError):
        return [path]


def _locations(model: ModelProto) -> Iterator[str]:
    """Names of the files of external data."""
    attributes = (attribute.t for node in model.graph.node for attribute in node.attribute)
    for tensor in (*model.graph.initializer, *attributes):
        yield from (entry.value for entry in tensor.external_data if entry.key == "location")
