"""`make pipeline` as a user types it: figures reached, every answer identical, nothing redone, mistakes seen before work."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
STAGES = ("train", "compress", "export", "firmware/", "run/")


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["make", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


def pipeline(build: Path, recipe: str, *arguments: str, target: str = "unicorn") -> dict[str, Any]:
    done = make("pipeline", f"RECIPE={recipe}", f"BUILD={build}", f"TARGET={target}", *arguments)
    assert done.returncode == 0, done.stderr
    results: dict[str, Any] = json.loads((build / recipe / "run" / target / "results.json").read_text())
    assert (build / recipe / "run" / target / "report.html").stat().st_size > 10_000
    return results


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["RECIPE=digit"], "did you mean 'digits'"),
        (["SET=trian.epochs=3"], "did you mean 'train'"),
        (["SET=compress.steps.0.prune.ration=0.3"], "did you mean 'ratio'"),
        (["BOARD=nucleo_f44"], "did you mean 'nucleo_f446re'"),
        (["TARGET=unicrn"], "did you mean 'unicorn'"),
        (["TARGET=unicorn", "BOARD=host"], "does not run firmware of board 'host'"),
        (["TOOLCHAIN=gccc"], "did you mean 'gcc'"),
    ],
)
def test_mistakes_are_told_before_anything_is_made(tmp_path: Path, arguments: list[str], words: str) -> None:
    done = make("pipeline", f"BUILD={tmp_path / 'b'}", *arguments)
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert done.returncode == 2
    assert len(errors) == 1
    assert words in errors[0]
    assert "Error 2" in done.stderr
    assert not (tmp_path / "b").exists()


def test_clean_removes_what_was_built_and_nothing_else(tmp_path: Path) -> None:
    build = tmp_path / "my build"
    (build / "digits").mkdir(parents=True)
    (build / "digits" / ".lock").touch()
    (build / "mine").mkdir()
    (build / "mine" / "notes.txt").write_text("keep")
    assert make("clean", f"BUILD={build}").returncode == 0
    assert [p.name for p in build.iterdir()] == ["mine"]
    shutil.rmtree(build / "mine")
    assert make("clean", f"BUILD={build}").returncode == 0
    assert not build.exists()


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_digits_reaches_its_figures_and_is_not_redone(tmp_path: Path) -> None:
    results = pipeline(tmp_path / "b", "digits")
    assert (results["images"], results["identical"], results["different"]) == (360, 360, 0)
    assert results["accuracy"]["device"] >= 0.975
    assert results["accuracy"]["device"] >= results["accuracy"]["float"] - 0.006
    compressed = json.loads((tmp_path / "b" / "digits" / "compress" / "manifest.json").read_text())["figures"]
    assert compressed["macs"]["final"] <= 0.4 * compressed["macs"]["unpruned"]
    assert compressed["weights"]["final"] <= 0.4 * compressed["weights"]["unpruned"]
    again = make("pipeline", f"BUILD={tmp_path / 'b'}")
    unchanged = [line for line in again.stdout.splitlines() if "unchanged, not run again" in line]
    assert [line.startswith(stage) for line, stage in zip(unchanged, STAGES, strict=True)] == [True] * len(STAGES)


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_fashion_mnist_reaches_its_figures(tmp_path: Path, shared_data: Path) -> None:
    results = pipeline(tmp_path / "b", "fashion_mnist", f"DATA={shared_data / 'fashion-mnist'}", target="host")
    assert (results["images"], results["identical"], results["different"]) == (10_000, 10_000, 0)
    assert results["accuracy"]["device"] >= 0.905
    assert results["weights_bytes"] <= 40_000
