"""The program as a user runs it: from a trained model to files, with steps left out, killed, repeated, and with bad input."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from compress.__main__ import main
from recipes.artifacts import ArtifactError, UsageError, read_manifest
from train.__main__ import main as train_main
from train.checkpoint import load_model, save_model
from train.diagnose import TrainingError
from train.models import count_macs, count_weights

RECIPE = """\
name: small
data: {name: digits, limit: 320}
train:
  model: {family: FAMILY, width: 8, depth: 2, activation: relu6}
  epochs: 5
  learning_rate: 5.0e-3
  batch_size: 32
  warmup_epochs: 0.5
  threads: 1
compress:
  steps:
    - prune: {ratio: 0.5}
    - distill: {epochs: 4, learning_rate: 5.0e-3}
    - quantize: {method: qat, epochs: 1, calibration_images: 64}
"""
ONE_PRUNE = "compress.steps=[{prune: {ratio: 0.5}}]"
ONE_PTQ = "compress.steps=[{quantize: {method: ptq, calibration_images: 64}}]"


@pytest.fixture(scope="module", params=["resnet", "dscnn"])
def trained_build(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recipe and a finished train stage."""
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "small.yaml").write_text(RECIPE.replace("FAMILY", request.param))
    assert train_main([str(folder / "small.yaml"), "--build", str(folder / "build")]) == 0
    return folder


@pytest.fixture
def folder(trained_build: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(trained_build, tmp_path / "copy"))


def compress(folder: Path, *overrides: str) -> Path:
    assert main([str(folder / "small.yaml"), *overrides, "--build", str(folder / "build")]) == 0
    return folder / "build" / "small" / "compress"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def figures_of(result: Path) -> dict[str, Any]:
    figures: dict[str, Any] = read_manifest(result)["figures"]
    return figures


def test_all_steps(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = compress(folder)
    assert sorted(contents(result)) == ["manifest.json", "model.pt", "model_float.onnx", "model_int8.onnx"]
    figures = figures_of(result)
    assert [step["name"] for step in figures["steps"]] == ["train", "prune", "distill", "quantize"]
    model, config, _ = load_model(result / "model.pt")
    assert figures["macs"]["final"] == count_macs(model, config.input_shape) < 0.5 * figures["macs"]["unpruned"]
    assert figures["weights"]["final"] == count_weights(model) < 0.5 * figures["weights"]["unpruned"]
    assert all(width % 4 == 0 for width in config.widths)
    for name in ("model_float.onnx", "model_int8.onnx"):
        onnx.checker.check_model(onnx.load(result / name), full_check=True)
    printed = capsys.readouterr().out.splitlines()
    assert printed[-1].startswith("compress: int8 ") and printed[-1].endswith(str(result))
    assert sum(line.startswith("step ") and "/3: " in line for line in printed) == 3


def test_a_second_run_does_nothing_and_says_so(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = compress(folder, ONE_PTQ)
    before = {path: path.stat().st_mtime_ns for path in result.iterdir()}
    capsys.readouterr()
    compress(folder, ONE_PTQ)
    assert {path: path.stat().st_mtime_ns for path in result.iterdir()} == before
    assert capsys.readouterr().out.startswith("compress: unchanged, not run again (compress: int8 ")


def test_the_same_inputs_give_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(folder, tmp_path / "other"))
    first, second = (contents(compress(place)) for place in (folder, other))
    for name in ("model_float.onnx", "model_int8.onnx"):
        assert first[name] == second[name]


@pytest.mark.parametrize("left_out", [0, 1, 2])
def test_each_step_can_be_left_out(folder: Path, left_out: int) -> None:
    steps = ["prune: {ratio: 0.5}", "distill: {epochs: 1}", "quantize: {method: ptq, calibration_images: 64}"]
    kept = ", ".join(f"{{{step}}}" for index, step in enumerate(steps) if index != left_out)
    result = compress(folder, f"compress.steps=[{kept}]")
    figures = figures_of(result)
    assert (result / "model_int8.onnx").exists() == (left_out != 2) == (figures["accuracy"]["int8_onnx"] is not None)
    assert (figures["macs"]["final"] == figures["macs"]["unpruned"]) == (left_out == 0)


def test_no_steps_at_all_gives_the_float_file(folder: Path) -> None:
    result = compress(folder, "compress.steps=[]")
    figures = figures_of(result)
    assert sorted(contents(result)) == ["manifest.json", "model.pt", "model_float.onnx"]
    assert figures["accuracy"]["float"] == figures["accuracy"]["pruned"]
    assert (result / "model.pt").stat().st_size > 1000


def test_an_override_reaches_the_step(folder: Path) -> None:
    less = figures_of(compress(folder, ONE_PRUNE, "compress.steps.0.prune.ratio=0.0"))
    more = figures_of(compress(folder, ONE_PRUNE))
    assert less["macs"]["final"] == less["macs"]["unpruned"] > more["macs"]["final"]


def test_a_changed_setting_runs_again(folder: Path) -> None:
    first = contents(compress(folder, ONE_PTQ))
    second = contents(compress(folder, ONE_PTQ, "compress.steps.0.quantize.percentile=90"))
    assert first["model_float.onnx"] == second["model_float.onnx"]
    assert first["model_int8.onnx"] != second["model_int8.onnx"]


def test_int8_figures_are_those_of_the_file(folder: Path) -> None:
    import onnxruntime

    from recipes.recipe import DataSection
    from train.data import load_dataset

    result = compress(folder, ONE_PTQ)
    test = load_dataset(DataSection(name="digits", limit=320), 1).test
    session = onnxruntime.InferenceSession(str(result / "model_int8.onnx"), providers=["CPUExecutionProvider"])
    images = test.images.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)
    right = [session.run(None, {"input": i[None]})[0].argmax() == label for i, label in zip(images, test.labels, strict=True)]
    assert abs(figures_of(result)["accuracy"]["int8_onnx"] - np.mean(right)) <= 1.01 / len(test)


def test_killed_and_run_again_goes_on_and_ends_with_the_same_bytes(folder: Path, tmp_path: Path, root: Path) -> None:
    """Killed inside the distillation; the second run resumes its checkpoint and gives what an unbroken run gives."""
    long = ["compress.steps.1.distill.epochs=12", "train.checkpoint_steps=1"]
    unbroken = contents(compress(Path(shutil.copytree(folder, tmp_path / "unbroken")), *long))
    command = [sys.executable, "-m", "compress", str(folder / "small.yaml"), *long, "--build", str(folder / "build")]
    work = folder / "build" / "small" / "compress.partial"
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=root)
    deadline = time.monotonic() + 120
    while not list(work.glob("checkpoints/1_distill/*.pt")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    output = process.communicate()[0]
    assert process.returncode == -signal.SIGKILL, output
    assert not (folder / "build" / "small" / "compress").exists()
    resumed = compress(folder, *long)
    assert not (resumed / "checkpoints").exists()
    for name in ("model_float.onnx", "model_int8.onnx"):
        assert contents(resumed)[name] == unbroken[name]


def test_nan_stops_the_stage_and_keeps_the_earlier_result(folder: Path) -> None:
    before = contents(compress(folder, ONE_PTQ))
    with pytest.raises(TrainingError, match="this step's learning_rate"):
        compress(folder, "compress.steps.1.distill.learning_rate=1e30", "compress.steps.1.distill.epochs=3")
    assert contents(folder / "build" / "small" / "compress") == before


def test_a_model_with_nan_is_refused(folder: Path) -> None:
    path = folder / "build" / "small" / "train" / "model.pt"
    model, config, _ = load_model(path)
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    save_model(path, model, config, {})
    (path.parent / "manifest.json").unlink()
    with pytest.raises(ArtifactError, match="NaN or infinity"):
        compress(folder)


def test_without_training_the_stage_to_run_is_named(folder: Path) -> None:
    shutil.rmtree(folder / "build")
    with pytest.raises(ArtifactError, match=r"model.pt not found: run the stage before this one first"):
        compress(folder)


def test_a_damaged_model_is_refused_by_its_hash(folder: Path) -> None:
    path = folder / "build" / "small" / "train" / "model.pt"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"model.pt is damaged: SHA-256"):
        compress(folder)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("compress.steps=[{prun: {}}]", "unknown method 'prun'; did you mean 'prune'"),
        ("compress.steps.0.prune.ration=0.4", "unknown key 'ration'; did you mean 'ratio'"),
        ("compress.steps.7.prune.ratio=0.4", "'7' is not one of the entries 0 to 2"),
        ("compress.stepz=[]", "unknown key 'compress.stepz'; did you mean 'steps'"),
        ("compress.steps.2.quantize.method=int4", "'method' is 'int4'"),
    ],
)
def test_a_wrong_recipe_fails_before_anything_runs(folder: Path, override: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        compress(folder, override)
    assert not (folder / "build" / "small" / "compress").exists()


def run_program(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "compress", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=root)


def test_help_names_every_method_with_its_settings_and_defaults(root: Path) -> None:
    shown = run_program(root, "--help")
    assert shown.returncode == 0
    for text in ("prune:", "distill:", "quantize:", "ratio=0.5", "method=qat  (qat | ptq", "--build", "model_int8.onnx"):
        assert text in shown.stdout


def test_errors_are_one_line_with_the_documented_code(tmp_path: Path, root: Path) -> None:
    unknown = run_program(root, "nonsense")
    assert unknown.returncode == 2 and unknown.stderr.startswith("error: no recipe nonsense; known: ")
    assert len(unknown.stderr.splitlines()) == 1
    (tmp_path / "r.yaml").write_text("name: r\n")
    missing = run_program(root, str(tmp_path / "r.yaml"), "--build", str(tmp_path / "build"))
    assert missing.returncode == 4 and len(missing.stderr.splitlines()) == 1 and "Traceback" not in missing.stderr


def test_the_manifest_tells_config_and_inputs(folder: Path) -> None:
    manifest = json.loads((compress(folder, ONE_PTQ) / "manifest.json").read_text())
    assert manifest["stage"] == "compress" and manifest["inputs"].keys() == {"train/model.pt"}
    assert manifest["config"].keys() == {"seed", "data", "train", "compress", "source"}
    assert "folder" not in manifest["config"]["data"]
