"""The models that `bench` measures: exported recipes, model files, folders of model files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from firmware_export.export import load_graph
from firmware_export.model_source import recipe_of_model
from host_tools.bench import BenchModel
from recipes.artifacts import ArtifactError, UsageError
from recipes.recipe import load_recipe

SUFFIXES = (".tflite", ".onnx")
INT8_MODEL = "compress/model_int8.onnx"


def bench_models(words: Sequence[str], build: Path) -> tuple[BenchModel, ...]:
    """Models by the words of a command line.

    Args:
        words: recipes (their int8 model is in `build`), files ending in SUFFIXES, folders of such files; words with "=" change
            the settings of all of them, e.g. firmware_export.arithmetic=float32.
    Raises:
        UsageError: no model is named, or a setting is wrong.
        ArtifactError: a file is missing, a folder holds no model, a recipe is not compressed yet.
        GraphError: a model is damaged or not supported.
    """
    overrides = [word for word in words if "=" in word]
    names = [word for word in words if "=" not in word]
    if not names:
        raise UsageError("bench needs at least one recipe or model file; see python -m host_tools bench --help")
    return tuple(model for name in names for model in _models(name, overrides, build))


def _models(name: str, overrides: Sequence[str], build: Path) -> Iterator[BenchModel]:
    path = Path(name)
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES)
        if not files:
            raise ArtifactError(f"{path} holds no model; expected files ending in {' or '.join(SUFFIXES)}")
        yield from (_file(file, overrides) for file in files)
    elif path.suffix in SUFFIXES:
        yield _file(path, overrides)
    else:
        recipe = load_recipe(name, overrides)
        model = build / recipe.name / INT8_MODEL
        if not model.is_file():
            raise ArtifactError(f"{model} not found; run `make pipeline RECIPE={name}` first")
        yield BenchModel(recipe.name, load_graph(model, recipe.firmware_export, stripes=False))


def _file(path: Path, overrides: Sequence[str]) -> BenchModel:
    section = recipe_of_model(path, overrides).firmware_export
    return BenchModel(path.stem, load_graph(path, section, stripes=False))
