"""Recipes: files, overrides, unknown keys, wrong values."""

from __future__ import annotations

from pathlib import Path

import pytest

from recipes.artifacts import UsageError, did_you_mean
from recipes.recipe import RECIPES, Section, apply_override, find_recipe, load_recipe, parse


def recipe_file(folder: Path, text: str) -> Path:
    path = folder / "trial.yaml"
    path.write_text(text)
    return path


def test_defaults_fill_what_a_recipe_leaves_out(tmp_path: Path) -> None:
    recipe = load_recipe(recipe_file(tmp_path, "seed: 7\n"))
    assert (recipe.name, recipe.seed, recipe.data.name) == ("trial", 7, "digits")
    assert recipe.compress.steps == []
    assert recipe.firmware_export.arithmetic == "double"


def test_every_recipe_that_ships_is_valid() -> None:
    files = sorted(RECIPES.glob("*.yaml"))
    assert {f.stem for f in files} >= {"digits", "fashion_mnist"}
    for file in files:
        assert load_recipe(file).name == file.stem


def test_a_bare_name_finds_the_recipe_that_ships() -> None:
    assert find_recipe("digits") == RECIPES / "digits.yaml"


@pytest.mark.parametrize(
    ("name", "words"),
    [("digit", "did you mean 'digits'"), ("recipes/none.yaml", "no recipe"), ("../digits", "no recipe")],
)
def test_an_unknown_recipe_is_named_with_the_nearest_one(name: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        find_recipe(name)
    assert "fashion_mnist" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("train: {epochz: 3}", "unknown key 'train.epochz'; did you mean 'epochs'"),
        ("train: {model: {widht: 8}}", "unknown key 'train.model.widht'; did you mean 'width'"),
        ("trian: {epochs: 3}", "unknown key 'trian'; did you mean 'train'"),
        ("train: {epochs: many}", "'train.epochs' is 'many'"),
        ("train: {epochs: 0}", "'train.epochs' is 0"),
        ("train: {learning_rate: -1}", "'train.learning_rate' is -1"),
        ("train: {learning_rate: .nan}", "'train.learning_rate' is nan"),
        ("train: {optimizer: adam}", "'train.optimizer' is 'adam'"),
        ("data: {validation_fraction: 0.9}", "'data.validation_fraction' is 0.9"),
        ("firmware_export: {name: 'a b; c'}", "'firmware_export.name'"),
        ("firmware_export: {arithmetic: triple}", "'firmware_export.arithmetic' is 'triple'"),
        ("name: ../../etc", "'name' is '../../etc'"),
        ("train: {learning_rate: .inf}", "'train.learning_rate' is inf"),
        ("train: {epochs: 3, epochs: 4}", "key 'epochs' is given twice (line 1)"),
        ("seed: 1\nseed: 2", "key 'seed' is given twice"),
        ("[" * 5000, "is not YAML"),
        ("- a\n- b", "expected sections"),
        ("a: [1", "is not YAML"),
        ("a: !!python/object/apply:os.system ['true']", "is not YAML"),
    ],
)
def test_wrong_content_is_refused_in_one_line(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_recipe(recipe_file(tmp_path, text))
    assert words in " ".join(str(caught.value).split())
    assert caught.value.exit_code == 2


def test_a_recipe_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "trial.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="cannot read recipe"):
        load_recipe(path)


def test_overrides_reach_sections_lists_and_new_sections(tmp_path: Path) -> None:
    path = recipe_file(tmp_path, "compress: {steps: [{prune: {ratio: 0.5}}, {quantize: }]}")
    recipe = load_recipe(path, ["train.epochs=3", "train.model.width=8", "compress.steps.0.prune.ratio=0.25", "seed=9"])
    assert recipe.train.epochs == 3
    assert recipe.train.model.width == 8
    assert recipe.compress.steps == [{"prune": {"ratio": 0.25}}, {"quantize": {}}]
    assert recipe.seed == 9


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.epochs", "not of the form"),
        ("=3", "not of the form"),
        ("train..epochs=3", "not of the form"),
        ("train.epochs=[1", "not YAML"),
        ("train.epochs=" + "[" * 5000, "not YAML"),
        ("train.weight_decay=.inf", "'train.weight_decay' is inf"),
        ("compress.steps.4.prune.ratio=1", "'4' is not one of the entries 0 to 0"),
        ("compress.steps.x=1", "'x' is not one of the entries"),
        ("seed.low=1", "is a value, not a section"),
        ("seed.low.lower=1", "lies below a value"),
        ("train.epoch=3", "did you mean 'epochs'"),
    ],
)
def test_wrong_overrides_are_refused(tmp_path: Path, override: str, words: str) -> None:
    path = recipe_file(tmp_path, "seed: 1\ncompress: {steps: [{prune: {}}]}")
    with pytest.raises(UsageError) as caught:
        load_recipe(path, [override])
    assert words in str(caught.value)


def test_an_override_makes_the_sections_on_its_way() -> None:
    content: dict[str, object] = {"train": None}
    apply_override(content, "train.augment.shift=1.5")
    assert content == {"train": {"augment": {"shift": 1.5}}}


def test_patterns_are_shown_as_they_are(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\[A-Za-z0-9\]"):
        load_recipe(recipe_file(tmp_path, "name: ..."))


def test_parse_names_the_place() -> None:
    class Method(Section):
        ratio: float = 0.5

    assert parse(Method, {"ratio": 0.1}, "step 1").ratio == 0.1
    with pytest.raises(UsageError, match=r"^step 1: unknown key 'ration'; did you mean 'ratio'\?"):
        parse(Method, {"ration": 0.1}, "step 1")


def test_did_you_mean_is_silent_when_nothing_is_near() -> None:
    assert did_you_mean("zzz", ["epochs", "seed"]) == ""
    assert "epochs" in did_you_mean("epoch", ["epochs", "seed"])


def test_a_recipe_never_changes() -> None:
    recipe = load_recipe("digits")
    with pytest.raises(Exception, match="frozen"):
        recipe.seed = 3
