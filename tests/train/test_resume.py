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


def run(folder: Path, *trainings: str) -> dict[str, list[str]]:
    """The lines printed by each training of interrupted.py."""
    command = [sys.executable, str(PROGRAM), str(folder), *trainings]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=ENVIRONMENT, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    blocks = done.stdout.split("training ")[1:]
    return {block.split("\n")[0]: block.split("\n")[1:] for block in blocks}


def results(lines: list[str]) -> list[str]:
    return [line for line in lines if line.startswith("result ")]


KILLED = [
    "adamw:1,4,9,5,end",  # before any checkpoint; off a checkpoint; across epochs; again
    "adamw:w1,w2,w3,w6,end",  # while a checkpoint is written: at a step, at an epoch's end
    "sgd:3,w2,8,end",
]


def test_killed_and_resumed_is_bit_equal(tmp_path: Path) -> None:
    last = f"adamw:w{CHECKPOINTS},end,end"  # in the last write the last epoch is lost and made again; then nothing is left
    lines = run(tmp_path, "adamw:end", "sgd:end", *KILLED, last)
    (adamw,), (sgd,) = results(lines["adamw:end"]), results(lines["sgd:end"])
    assert adamw != sgd
    for training in KILLED:
        assert results(lines[training]) == [adamw if training.startswith("adamw") else sgd], training
        assert any(": resumed at epoch" in line for line in lines[training]), training
    assert results(lines[last]) == [adamw, adamw]
    assert any("resumed after its end" in line for line in lines[last])


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_killed_at_every_step_and_in_every_write(tmp_path: Path, optimizer: str) -> None:
    places = [*map(str, range(1, STEPS + 1)), *(f"w{n}" for n in range(1, CHECKPOINTS + 1))]
    lines = run(tmp_path, f"{optimizer}:end", *(f"{optimizer}:{place},end" for place in places))
    expected = results(lines.pop(f"{optimizer}:end"))
    assert len(lines) == STEPS + CHECKPOINTS
    assert {training: results(found) for training, found in lines.items() if results(found) != expected} == {}


# the program itself, killed from outside at an arbitrary moment

QUICK = ["train.epochs=8", "train.threads=1", "train.checkpoint_steps=7", "train.model.width=8", "data.limit=600"]


def start(build: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "train", "digits", *QUICK, "--build", str(build)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT, cwd=ROOT)


def finish(build: Path) -> str:
    process = start(build)
    out, err = process.communicate()
    assert process.returncode == 0, err
    return out


def written(checkpoint: Path) -> int:
    """When a checkpoint was written last; 0 before the first."""
    return checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0


def kill_after_progress(build: Path, generator: random.Random) -> bool:
    """Kills a run a moment after it wrote its next checkpoint; false when it came to its end before."""
    checkpoint = build / "digits" / "train.partial" / "checkpoint.pt"
    before = written(checkpoint)
    process = start(build)
    while written(checkpoint) in (0, before) and process.poll() is None:
        time.sleep(0.002)
    time.sleep(generator.random() * 0.03)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return process.returncode == -signal.SIGKILL


def hashes(build: Path) -> dict[str, str]:
    return {p.name: sha256_file(p) for p in (build / "digits" / "train").iterdir() if p.name != "manifest.json"}


@pytest.mark.parametrize("kills", [1, pytest.param(8, marks=[pytest.mark.long, pytest.mark.timeout(1800)])])
def test_the_program_killed_at_random_makes_the_same_files(tmp_path: Path, kills: int) -> None:
    generator = random.Random(1)
    finish(tmp_path / "calm")
    assert [kill_after_progress(tmp_path / "killed", generator) for _ in range(kills)] == [True] * kills
    finish(tmp_path / "killed")
    assert hashes(tmp_path / "killed") == hashes(tmp_path / "calm")
    assert sorted(hashes(tmp_path / "calm")) == ["history.json", "model.pt", "training.png"]
    assert not (tmp_path / "killed" / "digits" / "train.partial").exists()
