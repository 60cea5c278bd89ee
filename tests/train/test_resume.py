"""A training killed by SIGKILL, again and again, ends with the same bits as one left alone."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from recipes.artifacts import sha256_file

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(__file__).with_name("interrupted.py")
STEPS, CHECKPOINTS = 20, 12  # of interrupted.py: 4 epochs of 5 steps; checkpoints after steps 2 and 4 and the epoch's end
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def run(folder: Path, optimizer: str, *places: str) -> list[str]:
    """The lines printed by the runs."""
    command = [sys.executable, str(PROGRAM), str(folder), optimizer, *places]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=ENVIRONMENT, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


def result_of(lines: list[str]) -> str:
    (result,) = [line for line in lines if line.startswith("result ")]
    return result


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The SHA-256 of each optimizer's result."""
    return {name: result_of(run(tmp_path_factory.mktemp(name), name, "end")) for name in ("adamw", "sgd")}


def test_both_optimizers_are_told_apart(uninterrupted: dict[str, str]) -> None:
    assert uninterrupted["adamw"] != uninterrupted["sgd"]


@pytest.mark.parametrize(
    ("optimizer", "places"),
    [
        ("adamw", ("1", "4", "9", "5")),  # before any checkpoint; off a checkpoint; across epochs; again
        ("adamw", ("w1", "w2", "w3", "w6")),  # while a checkpoint is written: at a step, at an epoch's end
        ("sgd", ("3", "w2", "8")),
    ],
)
def test_killed_and_resumed_is_bit_equal(
    tmp_path: Path, uninterrupted: dict[str, str], optimizer: str, places: tuple[str, ...]
) -> None:
    lines = run(tmp_path, optimizer, *places, "end")
    assert result_of(lines) == uninterrupted[optimizer]
    assert any(": resumed at epoch" in line for line in lines)


def test_killed_after_the_last_step(tmp_path: Path, uninterrupted: dict[str, str]) -> None:
    """In the last write the last epoch is lost and made again; after it nothing is left to do."""
    lines = run(tmp_path, "adamw", f"w{CHECKPOINTS}", "end", "end")
    assert [line for line in lines if line.startswith("result ")] == [uninterrupted["adamw"]] * 2
    assert any("resumed after its end" in line for line in lines)


@pytest.mark.long
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_killed_at_every_step_and_in_every_write(tmp_path: Path, uninterrupted: dict[str, str], optimizer: str) -> None:
    for place in (*map(str, range(1, STEPS + 1)), *(f"w{n}" for n in range(1, CHECKPOINTS + 1))):
        assert result_of(run(tmp_path / place, optimizer, place, "end")) == uninterrupted[optimizer], place


# the program itself, killed from outside at an arbitrary moment

QUICK = ["train.epochs=5", "train.threads=1", "train.checkpoint_steps=3", "train.model.width=8", "data.limit=600"]


def start(build: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "train", "digits", *QUICK, "--build", str(build)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT, cwd=ROOT)


def finish(build: Path) -> str:
    process = start(build)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out


def kill_soon(build: Path, generator: random.Random) -> None:
    """Kills a run a moment after its first checkpoint appeared."""
    process = start(build)
    checkpoint = build / "digits" / "train.partial" / "checkpoint.pt"
    begun = time.monotonic()
    while not checkpoint.exists() and process.poll() is None and time.monotonic() - begun < 100:
        time.sleep(0.005)
    time.sleep(generator.random() * 0.3)
    process.send_signal(signal.SIGKILL)
    process.communicate()


def hashes(build: Path) -> dict[str, str]:
    return {p.name: sha256_file(p) for p in (build / "digits" / "train").iterdir() if p.name != "manifest.json"}


@pytest.mark.parametrize("kills", [1, pytest.param(20, marks=pytest.mark.long)])
def test_the_program_killed_at_random_makes_the_same_files(tmp_path: Path, kills: int) -> None:
    generator = random.Random(1)
    finish(tmp_path / "calm")
    for _ in range(kills):
        kill_soon(tmp_path / "killed", generator)
    finish(tmp_path / "killed")
    assert hashes(tmp_path / "killed") == hashes(tmp_path / "calm")
    assert sorted(hashes(tmp_path / "calm")) == ["history.json", "model.pt", "training.png"]
    assert not (tmp_path / "killed" / "digits" / "train.partial").exists()
