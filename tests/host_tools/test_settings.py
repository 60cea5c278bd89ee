"""What a model was made with: read from the manifests, compared with the recipe, told in the results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from built_recipe import copy_recipe

from compress.__main__ import _config as compress_config
from host_tools.__main__ import main
from host_tools.results import read_results
from host_tools.settings import check_settings, difference, made_with
from recipes.artifacts import ArtifactError, Stage, write_bytes_atomic
from recipes.recipe import Recipe, load_recipe
from train.__main__ import stage_config as train_config

YAML = """\
name: tiny
seed: 3
data: {name: digits, folder: /somewhere}
train: {model: {width: 8}, epochs: 4}
compress:
  steps:
    - prune: {ratio: 0.5}
    - quantize: {}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe whose stages `train` and `compress` are there, as far as their manifests go."""
    file = tmp_path / "tiny.yaml"
    file.write_text(YAML)
    run_train(tmp_path, load_recipe(file))
    run_compress(tmp_path, load_recipe(file))
    return file


def run_train(root: Path, recipe: Recipe, weights: bytes = b"weights") -> None:
    with Stage(root, "train", train_config(recipe)) as stage:
        write_bytes_atomic(stage.work / "model.pt", weights)
        stage.finish({}, "train: made for a test")


def run_compress(root: Path, recipe: Recipe) -> None:
    with Stage(root, "compress", compress_config(recipe), [root / "train" / "model.pt"]) as stage:
        write_bytes_atomic(stage.work / "model_int8.onnx", b"model")
        stage.finish({}, "compress: made for a test")


def test_the_settings_are_those_of_the_recipe_without_folders(recipe: Path) -> None:
    made = made_with(recipe.parent)
    assert made.keys() == {"seed", "data", "train", "compress"}
    assert (made["seed"], made["train"]["epochs"], made["train"]["model"]["width"]) == (3, 4, 8)
    assert made["compress"] == {"steps": [{"prune": {"ratio": 0.5}}, {"quantize": {}}]}
    assert made["data"] == {"name": "digits", "validation_fraction": 0.1, "limit": None}
    assert "somewhere" not in json.dumps(made)


def test_the_same_recipe_is_accepted_wherever_the_data_lies(recipe: Path) -> None:
    check_settings(recipe.parent, load_recipe(recipe))
    check_settings(recipe.parent, load_recipe(recipe, ["data.folder=/elsewhere"]))
    others = ["host_tools.images=5", "firmware_export.compiler_level=3", "name=other"]
    check_settings(recipe.parent, load_recipe(recipe, others))


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("seed=4", "seed=3, the recipe asks for 4"),
        ("data.limit=10", "data.limit=null, the recipe asks for 10"),
        ("train.epochs=5", "train.epochs=4, the recipe asks for 5"),
        ("train.model.family=dscnn", 'train.model.family="resnet", the recipe asks for "dscnn"'),
        ("compress.steps.0.prune.ratio=0.4", "compress.steps.0.prune.ratio=0.5, the recipe asks for 0.4"),
        ("compress.steps.0.prune.scope=global", 'compress.steps.0.prune.scope=nothing, the recipe asks for "global"'),
        ("compress.steps.1={quantize: {method: ptq}}", "compress.steps.1.quantize={}, the recipe asks for nothing"),
        ("compress.steps=[]", "compress.steps=nothing, the recipe asks for []"),
    ],
)
def test_other_settings_are_refused_by_name(recipe: Path, override: str, told: str) -> None:
    with pytest.raises(ArtifactError) as caught:
        check_settings(recipe.parent, load_recipe(recipe, [override]))
    text = str(caught.value)
    assert caught.value.exit_code == 4 and "\n" not in text
    assert f"compress was made with {told}; run `make pipeline`" in text


def test_the_stage_train_may_have_been_run_with_other_settings_than_compress(recipe: Path) -> None:
    """The same weights, by chance or because they were put there: train's own manifest tells how they were made."""
    run_train(recipe.parent, load_recipe(recipe, ["train.dropout=0.3"]))
    assert made_with(recipe.parent)["train"]["dropout"] == 0.3
    with pytest.raises(ArtifactError, match=r"train was made with train\.dropout=0\.3, the recipe asks for 0\.1"):
        check_settings(recipe.parent, load_recipe(recipe))


def test_a_model_of_an_earlier_training_is_refused(recipe: Path) -> None:
    run_train(recipe.parent, load_recipe(recipe, ["train.epochs=9"]), b"other weights")
    for look in (made_with, lambda root: check_settings(root, load_recipe(recipe))):
        with pytest.raises(ArtifactError, match=r"compress was not made from the model in .*train; run `make pipeline`"):
            look(recipe.parent)


def test_without_the_stage_train_the_manifest_of_compress_tells_all(recipe: Path) -> None:
    before = made_with(recipe.parent)
    (recipe.parent / "train" / "manifest.json").unlink()
    assert made_with(recipe.parent) == before
    check_settings(recipe.parent, load_recipe(recipe))


def test_a_model_from_elsewhere_has_no_settings_to_compare(tmp_path: Path, recipe: Path) -> None:
    with Stage(tmp_path / "own", "compress", {"source": "a colleague"}) as stage:
        write_bytes_atomic(stage.work / "model_int8.onnx", b"model")
        stage.finish({}, "compress: put there")
    assert made_with(tmp_path / "own") == {}
    check_settings(tmp_path / "own", load_recipe(recipe, ["seed=77"]))


def test_settings_that_an_older_version_did_not_know_are_no_difference() -> None:
    made: dict[str, Any] = {"train": {"epochs": 3, "gone": 1}, "compress": {"steps": []}}
    asked: dict[str, Any] = {"train": {"epochs": 3, "new": 2}, "compress": {"steps": []}}
    assert difference(made, asked) is None
    assert difference(made, {**asked, "train": {"epochs": 4}}) == ("train.epochs", "3", "4")


def test_long_values_are_cut() -> None:
    found = difference({"data": {"name": "x" * 500}}, {"data": {"name": "y"}})
    assert found is not None and len(found[1]) == 60 and found[1].endswith("...")


def test_a_run_tells_the_settings_and_refuses_others(built: Path, tmp_path: Path) -> None:
    recipe = copy_recipe(built, tmp_path)
    root = tmp_path / "build" / "tiny"
    model, manifest = (
        (root / "compress" / "model_int8.onnx").read_bytes(),
        json.loads((root / "compress/manifest.json").read_text()),
    )
    run_train(root, load_recipe(recipe))
    with Stage(root, "compress", compress_config(load_recipe(recipe)), [root / "train" / "model.pt"]) as stage:
        write_bytes_atomic(stage.work / "model_int8.onnx", model)
        stage.finish(manifest["figures"], "compress: made for a test")
    words = [str(recipe), "--build", str(tmp_path / "build"), "--target", "host", "--images", "3"]
    assert main(words) == 0
    stored = read_results(root / "run" / "host")
    assert stored.settings == made_with(root) and stored.settings["seed"] == 1
    for _ in range(2):
        with pytest.raises(ArtifactError, match=r"compress was made with train\.epochs=30, the recipe asks for 31"):
            main([*words, "train.epochs=31"])
    assert read_results(root / "run" / "host") == stored
