"""The settings of firmware_export: which values there are, what they are without being set, how wrong ones are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from firmware_export.graph import Graph, Node, Quantization, Tensor
from firmware_export.model_source import recipe_of_model
from firmware_export.target import GOALS
from firmware_export.toolchain import arm_toolchain, host_toolchain
from firmware_export.write_tflite import write_tflite
from host_tools.bench_models import bench_models
from recipes.artifacts import ArtifactError, UsageError
from recipes.recipe import RECIPES, FirmwareExportSection, load_recipe

VALUES = {
    "optimize": ("balanced", "time", "ram", "flash"),
    "arithmetic": ("double", "float32"),
    "compiler_level": ("s", "2", "3"),
    "selftest_vectors": (1, 2, 16),
    "name": ("network", "a", "kws_2", "x" * 31),
}
WRONG = {
    "optimize": ("speed", "", "Time", "ram,flash", None, 1),
    "arithmetic": ("float64", "", "DOUBLE", None),
    "compiler_level": ("0", "1", "fast", "z", "", "-O2", 2.5),
    "selftest_vectors": (0, 17, -1, "many", 2.5),
    "name": ("Network", "2x", "", "a-b", "a b", "x" * 32, "_a", "a.b"),
}


def recipe_file(folder: Path, key: str, value: object) -> Path:
    path = folder / "trial.yaml"
    words = "null" if value is None else f"'{value}'" if isinstance(value, str) else str(value)
    path.write_text(f"firmware_export:\n  {key}: {words}\n")
    return path


def test_what_a_recipe_leaves_out(tmp_path: Path) -> None:
    path = tmp_path / "trial.yaml"
    path.write_text("seed: 1\n")
    section = load_recipe(path).firmware_export
    assert section == FirmwareExportSection()
    assert (section.optimize, section.arithmetic, section.compiler_level) == ("balanced", "double", "s")
    assert (section.name, section.selftest_vectors) == ("network", 2)


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in VALUES.items() for value in values])
def test_every_value_can_be_set_in_the_file_and_on_the_command_line(tmp_path: Path, key: str, value: object) -> None:
    section = load_recipe(recipe_file(tmp_path, key, value)).firmware_export
    assert getattr(section, key) == value
    others = FirmwareExportSection().model_dump() | {key: value}
    assert section.model_dump() == others, "nothing else is changed"
    overridden = load_recipe(str(RECIPES / "digits.yaml"), [f"firmware_export.{key}='{value}'"]).firmware_export
    assert str(getattr(overridden, key)) == str(value)


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in WRONG.items() for value in values])
def test_other_values_are_refused_by_name(tmp_path: Path, key: str, value: object) -> None:
    with pytest.raises(UsageError) as caught:
        load_recipe(recipe_file(tmp_path, key, value))
    text = str(caught.value)
    assert f"'firmware_export.{key}'" in text and "\n" not in text and caught.value.exit_code == 2
    with pytest.raises(UsageError, match=f"'firmware_export.{key}'"):
        recipe_of_model(Path("model.tflite"), [f"firmware_export.{key}={'null' if value is None else repr(value)}"])


@pytest.mark.parametrize(
    ("given", "meant"), [("optimise", "optimize"), ("compiler_levl", "compiler_level"), ("arithmetics", "arithmetic")]
)
def test_misspelt_settings_are_told_the_right_name(tmp_path: Path, given: str, meant: str) -> None:
    with pytest.raises(UsageError, match=f"unknown key 'firmware_export.{given}'; did you mean '{meant}'"):
        load_recipe(recipe_file(tmp_path, given, "ram"))


@pytest.mark.parametrize(("written", "meant"), [("'3'", "3"), ("3", "3"), ("2", "2"), ("s", "s")])
def test_a_level_may_be_written_as_a_number(tmp_path: Path, written: str, meant: str) -> None:
    """YAML and the command line read 2 as a number; the compilers' levels are letters and digits."""
    overridden = recipe_of_model(Path("m.onnx"), [f"firmware_export.compiler_level={written}"])
    assert overridden.firmware_export.compiler_level == meant
    assert load_recipe(recipe_file(tmp_path, "compiler_level", 2)).firmware_export.compiler_level == "2"


@pytest.mark.parametrize("written", ["4", "true", "1.5"])
def test_other_numbers_are_no_levels(written: str) -> None:
    with pytest.raises(UsageError, match="'s', '2' or '3'"):
        recipe_of_model(Path("m.onnx"), [f"firmware_export.compiler_level={written}"])


def test_goals_are_those_that_kernels_are_chosen_for() -> None:
    assert VALUES["optimize"] == GOALS


@pytest.mark.parametrize("level", VALUES["compiler_level"])
def test_a_level_is_the_compilers_own_option(level: str) -> None:
    for toolchain, core in (
        (arm_toolchain("zig"), "cortex-m4"),
        (arm_toolchain("zig"), "cortex-m0plus"),
        (host_toolchain(), "host"),
    ):
        flags = toolchain.compile_flags(core, "none", level)
        assert [flag for flag in flags if flag.startswith("-O")] == [f"-O{level}"]


@pytest.mark.parametrize(
    ("file", "name"),
    [("kws.tflite", "kws"), ("a b.onnx", "a_b"), ("ü.tflite", "model"), ("-x-.tflite", "x-"), ("1.tflite", "1")],
)
def test_a_models_recipe_has_the_defaults_and_the_overrides(file: str, name: str) -> None:
    recipe = recipe_of_model(Path("folder") / file, ["firmware_export.optimize=flash", "seed=3"])
    assert (recipe.name, recipe.seed) == (name, 3)
    assert recipe.firmware_export == FirmwareExportSection(optimize="flash")


@pytest.mark.parametrize("words", [[], ["seed=1"], ["firmware_export.optimize=ram", "a=b"]])
def test_bench_without_a_model_says_how_to_call_it(tmp_path: Path, words: list[str]) -> None:
    with pytest.raises(UsageError, match="at least one recipe or model file; see python -m host_tools bench --help"):
        bench_models(words, tmp_path)


def test_bench_says_what_it_misses(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"model_int8.onnx not found; run `make pipeline RECIPE=digits` first"):
        bench_models(["digits"], tmp_path)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "notes.txt").write_text("no model")
    with pytest.raises(ArtifactError, match=r"models holds no model; expected files ending in .tflite or .onnx"):
        bench_models([str(tmp_path / "models")], tmp_path)
    (tmp_path / "m.tflite").write_bytes(b"")


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("firmware_export.arithmetic=triple", "'firmware_export.arithmetic' is 'triple'"),
        ("firmware_exprt.arithmetic=float32", "unknown key 'firmware_exprt'; did you mean 'firmware_export'"),
        ("firmware_export.arithmtic=float32", "unknown key 'firmware_export.arithmtic'; did you mean 'arithmetic'"),
        ("arithmetic=float32", "unknown key 'arithmetic'"),
    ],
)
def test_bench_refuses_settings_that_it_would_not_use(tmp_path: Path, setting: str, words: str) -> None:
    """Before the file is read: a misspelt setting must not measure the default."""
    (tmp_path / "m.tflite").write_bytes(b"")
    with pytest.raises(UsageError) as caught:
        bench_models([str(tmp_path / "m.tflite"), setting], tmp_path)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_bench_takes_the_settings_of_a_model_file(tmp_path: Path) -> None:
    tensors = [Tensor(name, (1, 8), "int8", Quantization.per_tensor(0.05, 0)) for name in "xy"]
    graph = Graph(tensors, [Node("relu", (0,), (1,), {"clamp": (0, 127)})], (0,), (1,))
    (tmp_path / "m.tflite").write_bytes(write_tflite(graph))
    for arithmetic in VALUES["arithmetic"]:
        (found,) = bench_models([str(tmp_path), f"firmware_export.arithmetic={arithmetic}", "seed=4"], tmp_path)
        assert found.name == "m" and found.graph.arithmetic == arithmetic
    names = [found.name for found in bench_models([str(tmp_path / "m.tflite"), str(tmp_path)], tmp_path)]
    assert names == ["m", "m"]
