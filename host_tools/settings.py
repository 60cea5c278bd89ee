"""The settings a model was made with, from the manifests of `train` and `compress`, against those the recipe asks for now."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recipes.artifacts import MANIFEST, ArtifactError, read_manifest
from recipes.recipe import Recipe

SECTIONS = ("seed", "data", "train", "compress")
LISTED = "compress.steps"
"""Below this a key that only one side has is a difference; elsewhere it is a setting that an older version did not know."""
TRAINED = "train/model.pt"
_SHOWN = 60


def made_with(root: Path) -> dict[str, Any]:
    """The recipe sections that the model in build/<recipe> was trained and compressed with, without folders.

    A model that did not come from these stages has none.

    Raises:
        ArtifactError: a manifest is missing or damaged, or the model was not made from what lies in the stage `train`.
    """
    return {name: value for _, sections in _upstream(root) for name, value in sections.items()}


def check_settings(root: Path, recipe: Recipe) -> None:
    """Makes sure that the model is the one the recipe describes: nothing is said of a model that did not come from `train`.

    Raises:
        ArtifactError: a stage was run with other settings; names the first that differs.
    """
    asked = recipe.model_dump(mode="json", include=set(SECTIONS))
    for folder, made in _upstream(root):
        found = difference(made, {name: asked[name] for name in made})
        if found is not None:
            key, before, now = found
            raise ArtifactError(
                f"{folder} was made with {key}={before}, the recipe asks for {now}; run `make pipeline`, or that stage, again"
            )


def _upstream(root: Path) -> list[tuple[Path, dict[str, Any]]]:
    """The folders of the stages that made the model and their sections, the last stage first."""
    compress, train = root / "compress", root / "train"
    manifest = read_manifest(compress)
    stages = [(compress, _sections(manifest))]
    source = manifest["inputs"].get(TRAINED)
    if source is not None and (train / MANIFEST).is_file():
        trained = read_manifest(train)
        if trained["outputs"].get(Path(TRAINED).name) != source:
            raise ArtifactError(f"{compress} was not made from the model in {train}; run `make pipeline`, or `compress`, again")
        stages.append((train, _sections(trained)))
    return stages


def _sections(manifest: Mapping[str, Any]) -> dict[str, Any]:
    sections = {name: manifest["config"][name] for name in SECTIONS if name in manifest["config"]}
    if isinstance(sections.get("data"), dict):
        sections["data"] = {key: value for key, value in sections["data"].items() if key != "folder"}
    return sections


def difference(made: Mapping[str, Any], asked: Mapping[str, Any]) -> tuple[str, str, str] | None:
    """The first setting, in the order of their names, in which two sets of sections differ: dotted key, both values."""
    first, second = _leaves(made, ""), _leaves(asked, "")
    for key in sorted(first.keys() | second.keys()):
        both = key in first and key in second
        if (both or key.startswith(LISTED)) and first.get(key) != second.get(key):
            return key, _shown(first, key), _shown(second, key)
    return None


def _leaves(value: Any, name: str) -> dict[str, Any]:
    """Every value that is not a section or a list, by its dotted key; empty ones stand for themselves."""
    parts = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    leaves: dict[str, Any] = {}
    for key, part in parts:
        leaves |= _leaves(part, f"{name}.{key}".lstrip("."))
    return leaves or {name: value}


def _shown(leaves: Mapping[str, Any], key: str) -> str:
    text = json.dumps(leaves[key]) if key in leaves else "nothing"
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."
