"""`python -m train`: what it makes, says and refuses; exit codes; earlier artifacts stay intact."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import train.__main__ as program
from recipes.artifacts import DataError, UsageError, read_manifest, sha256_file
from recipes.recipe import load_recipe
from train.__main__ import main, settings_help, stage_config
from train.checkpoint import load_model
from train.data import load_dataset
from train.evaluate import accuracy
from train.models import count_macs, count_weights

ROOT = Path(__file__).resolve().parents[2]
QUICK = ["train.epochs=2", "train.threads=1", "train.model.width=4", "train.model.depth=2", "data.limit=300"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build folder with a finished stage; tests that change it take a copy."""
    build = tmp_path_factory.mktemp("build")
    assert main(["digits", *QUICK, "--build", str(build)]) == 0
    return build


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "build"))


def run(*arguments: str, limit: int | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """The program as a process; `limit` bounds the size of any file it writes."""
    return subprocess.run(
        [sys.executable, "-m", "train", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        preexec_fn=(lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))) if limit else None,
    )


def failed(done: subprocess.CompletedProcess[str], code: int) -> str:
    """The one line on stderr."""
    assert done.returncode == code, done.stdout + done.stderr
    lines = [line for line in done.stderr.splitlines() if line]
    assert len(lines) == 1 and lines[0].startswith("error: "), done.stderr
    return lines[0]


# what it makes


def test_the_stage_holds_its_files_and_figures(made: Path) -> None:
    folder = made / "digits" / "train"
    assert sorted(p.name for p in folder.iterdir()) == ["history.json", "manifest.json", "model.pt", "training.png"]
    manifest = read_manifest(folder)
    assert manifest["outputs"] == {n: sha256_file(folder / n) for n in ("history.json", "model.pt", "training.png")}
    figures = manifest["figures"]
    model, config, extra = load_model(folder / "model.pt")
    dataset = load_dataset(load_recipe("digits", QUICK).data, 1)
    assert figures["accuracy"] == {
        "test": accuracy(model, dataset.test),
        "validation": pytest.approx(accuracy(model, dataset.validation)),
    }
    assert figures["macs"] == count_macs(model, (8, 8, 1)) and figures["weights"] == count_weights(model)
    assert config.widths == (4, 4, 4, 8, 8) and extra == {"recipe": "digits", "dataset": "digits"}


def test_the_history_has_an_entry_per_epoch_and_no_clock(made: Path) -> None:
    history = json.loads((made / "digits" / "train" / "history.json").read_text())
    keys = {"epoch", "learning_rate", "train_loss", "train_accuracy", "validation_loss", "validation_accuracy"}
    assert [set(entry) for entry in history] == [keys, keys]
    assert [entry["epoch"] for entry in history] == [1, 2]


def test_the_picture_is_a_png(made: Path) -> None:
    from PIL import Image

    with Image.open(made / "digits" / "train" / "training.png") as image:
        assert image.size == (900, 400) and image.format == "PNG"


def test_the_lines_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["digits", *QUICK, "--build", str(tmp_path)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("train digits: resnet, ") and "300 images, 2 epochs, 1 threads" in lines[0]
    assert [line.split(",")[0] for line in lines[1:3]] == ["train digits: epoch 1/2", "train digits: epoch 2/2"]
    assert lines[-1].startswith("train digits: test accuracy ") and lines[-1].endswith("digits/train/model.pt")
    assert len(lines) == 4


def test_a_second_run_does_nothing_and_says_so(copy: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.setattr(program, "train", None)
    assert main(["digits", *QUICK, "--build", str(copy)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("train: unchanged, not run again (train digits: test accuracy ")


def test_same_seed_same_files(made: Path, tmp_path: Path) -> None:
    main(["digits", *QUICK, "--build", str(tmp_path)])
    first, second = (read_manifest(build / "digits" / "train") for build in (made, tmp_path))
    assert first["outputs"] == second["outputs"] and first["figures"] == second["figures"] and first["key"] == second["key"]


@pytest.mark.parametrize("damage", ["model.pt", "history.json", "manifest.json"])
def test_a_damaged_stage_is_made_again(copy: Path, made: Path, damage: str) -> None:
    path = copy / "digits" / "train" / damage
    path.write_bytes(path.read_bytes()[:-10])
    main(["digits", *QUICK, "--build", str(copy)])
    assert read_manifest(copy / "digits" / "train")["outputs"] == read_manifest(made / "digits" / "train")["outputs"]


# what decides the result


def test_settings_decide_and_the_data_folder_does_not() -> None:
    base = stage_config(load_recipe("digits"))
    assert stage_config(load_recipe("digits", ["data.folder=/elsewhere"])) == base
    assert stage_config(load_recipe("digits", ["host_tools.images=3", "firmware_export.compiler_level=3"])) == base
    for override in ("seed=9", "train.epochs=1", "train.augment.flip=true", "data.limit=9", "data.validation_fraction=0.2"):
        assert stage_config(load_recipe("digits", [override])) != base
    json.dumps(base)


def test_the_code_decides_too() -> None:
    assert len(stage_config(load_recipe("digits"))["source"]) == 64


# the command line


def test_help_names_every_setting_with_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leave:
        main(["--help"])
    assert leave.value.code == 0
    out = capsys.readouterr().out
    for line in (
        "train.epochs=30",
        "train.model.width=16",
        "train.augment.shift=0.0  (pixels, each direction)",
        "data.name=digits",
    ):
        assert line in out
    for word in ("recipe", "section.key=value", "--build DIR", "model.pt", "resumed"):
        assert word in out


def test_help_covers_the_whole_schema() -> None:
    text = settings_help()
    recipe = load_recipe("digits")
    for section in ("data", "train"):
        for key, value in getattr(recipe, section).model_dump().items():
            for name in value if isinstance(value, dict) else [""]:
                assert f"  {section}.{key}{'.' * bool(name)}{name}=" in text


@pytest.mark.parametrize(
    "order", [["digits", "BUILD", "OVERRIDES"], ["BUILD", "digits", "OVERRIDES"], ["digits", "OVERRIDES", "BUILD"]]
)
def test_options_and_overrides_in_any_order(copy: Path, capsys: pytest.CaptureFixture[str], order: list[str]) -> None:
    parts = {"digits": ["digits"], "BUILD": ["--build", str(copy)], "OVERRIDES": QUICK}
    main([argument for name in order for argument in parts[name]])
    assert "unchanged" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["digit"], "did you mean 'digits'"),
        (["digits", "train.epoch=3"], "did you mean 'epochs'"),
        (["digits", "train.epochs=many"], "train.epochs"),
        (["digits", "train.epochs"], "not of the form section.key=value"),
        (["digits", "data.name=digitz"], "did you mean 'digits'"),
        (["digits", "train.model.depth=16", "train.model.width=256"], "use less depth or width"),
    ],
)
def test_wrong_usage(tmp_path: Path, arguments: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        main([*arguments, "--build", str(tmp_path)])


def test_an_unknown_option_is_usage_too() -> None:
    with pytest.raises(UsageError, match="did you mean '--build'"):
        main(["digits", "--bild", "x"])


def test_missing_data(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz not found"):
        main(["fashion_mnist", f"data.folder={tmp_path}", "--build", str(tmp_path / "build")])


# as a process


def test_errors_are_one_line_with_their_exit_code(tmp_path: Path) -> None:
    assert "did you mean 'epochs'" in failed(run("digits", "train.epoch=3", "--build", str(tmp_path)), 2)
    assert not list(tmp_path.iterdir())
    line = failed(run("fashion_mnist", f"data.folder={tmp_path}", "--build", str(tmp_path / "build")), 3)
    assert "must hold the .gz files as published" in line


def test_nan_stops_training_and_leaves_the_earlier_result(copy: Path, made: Path) -> None:
    settings = ["train.optimizer=sgd", "train.learning_rate=1e30", "train.warmup_epochs=0"]
    line = failed(run("digits", *QUICK, *settings, "--build", str(copy)), 9)
    assert "epoch 1, step " in line and "first NaN or infinity in layer" in line
    assert read_manifest(copy / "digits" / "train") == read_manifest(made / "digits" / "train")


@pytest.mark.parametrize("limit", [3_000, 30_000])
def test_a_full_disk_leaves_the_earlier_result(copy: Path, made: Path, limit: int) -> None:
    """A file-size limit stands for the full disk: it stops the checkpoint, or the picture at the end."""
    line = failed(run("digits", *QUICK, "seed=2", "--build", str(copy), limit=limit), 4)
    assert "cannot write" in line and "earlier artifacts are intact" in line
    assert read_manifest(copy / "digits" / "train") == read_manifest(made / "digits" / "train")
    load_model(copy / "digits" / "train" / "model.pt")


def test_a_build_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    assert "cannot write" in failed(run("digits", *QUICK, "--build", str(tmp_path / "file")), 4)


def test_a_damaged_checkpoint_of_a_killed_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(program, "save_model", killed)
    with pytest.raises(KeyboardInterrupt):
        main(["digits", *QUICK, "--build", str(tmp_path)])
    checkpoint = tmp_path / "digits" / "train.partial" / "checkpoint.pt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:-1000])
    line = failed(run("digits", *QUICK, "--build", str(tmp_path)), 4)
    assert "checkpoint.pt is damaged" in line and "delete" in line


# the recipes


@pytest.mark.parametrize("name", ["digits", "fashion_mnist"])
def test_the_recipes_are_valid(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == recipe.data.name == name
    assert recipe.train.patience <= recipe.train.epochs


@pytest.mark.long
def test_the_digits_recipe_reaches_its_accuracy(tmp_path: Path) -> None:
    main(["digits", "--build", str(tmp_path)])
    assert read_manifest(tmp_path / "digits" / "train")["figures"]["accuracy"]["test"] >= 0.985
