"""The stage `keras`: a float Keras model becomes an int8 .tflite file, by TensorFlow's converter in a process of its own."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from firmware_export.graph import GraphError
from firmware_export.keras_convert import REFUSED
from firmware_export.model_file import printable
from firmware_export.model_source import CONVERTED, KERAS_STAGE
from firmware_export.toolchain import ToolchainError
from recipes.artifacts import DataError, Stage, sha256_file

SECONDS = 900.0
"""A conversion that takes longer is ended."""
CRASHES = (-signal.SIGSEGV, -signal.SIGABRT)
LOOP_HINT = "it does so on layers that loop, such as an LSTM in a SavedModel: save the model as .keras, or with unroll=True"
QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1", "KERAS_BACKEND": "tensorflow"}


def convert_stage(root: Path, model: Path, calibration: Path, source: str, seconds: float = SECONDS) -> Path:
    """Runs the stage, unless it is unchanged; gives the .tflite file.

    Args:
        root: build/<name>. model: .keras, .h5 or a SavedModel folder. calibration: .npz with inputs as the model takes them.
        source: hash of the code that decides the result.
    Raises:
        ToolchainError: TensorFlow is not installed.
        DataError: the calibration is missing, damaged, or not what the model takes.
        GraphError: the model is damaged, holds code, cannot be converted to int8, or takes longer than `seconds`.
    """
    if not calibration.is_file():
        raise DataError(f"{calibration} not found; expected an .npz file (numpy.savez(path, x=inputs as the model takes them))")
    if not model.exists():
        raise GraphError(f"model file {model} not found; expected .keras, .h5 or a SavedModel folder")
    files = sorted(path for path in model.rglob("*") if path.is_file()) if model.is_dir() else [model]
    config = {"calibration": sha256_file(calibration), "source": source}
    with Stage(root, KERAS_STAGE, config, files) as stage:
        if stage.unchanged:
            print(stage.again(), flush=True)
            return stage.folder / CONVERTED
        print(f"keras: TensorFlow converts {model.name} to int8, some seconds to minutes", file=sys.stderr, flush=True)
        target = stage.work / CONVERTED
        count = convert_in_process(model, calibration, target, seconds)
        size = target.stat().st_size
        stage.finish(
            {"bytes": size, "calibrated_on": count},
            f"keras: {model.name} is {size:,} bytes of int8 .tflite now, calibrated on {count:,} inputs; "
            f"{stage.folder / CONVERTED}",
        )
    return stage.folder / CONVERTED


def convert_in_process(model: Path, calibration: Path, target: Path, seconds: float) -> int:
    """Runs keras_convert.py; gives the number of inputs it was calibrated on. Raises as convert_stage."""
    if importlib.util.find_spec("tensorflow") is None:
        raise ToolchainError("the Python package tensorflow is not installed; run pip install -r requirements-tensorflow.txt")
    command = [sys.executable, "-m", "firmware_export.keras_convert", str(model), str(calibration), str(target)]
    with tempfile.TemporaryDirectory(prefix="keras-") as home:
        try:
            result = subprocess.run(
                command, env={**os.environ, **QUIET, "KERAS_HOME": home}, capture_output=True, text=True, timeout=seconds,
                check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise GraphError(
                f"{model.name}: the conversion took more than {seconds:g} s; give fewer calibration inputs"
            ) from None
    said = (result.stdout.strip().splitlines() or [""])[-1]
    if result.returncode == 0 and said.startswith("ok: "):
        return int(said.removeprefix("ok: "))
    if result.returncode == REFUSED and said.startswith("data: "):
        raise DataError(f"{calibration}: {said.removeprefix('data: ')}")
    if result.returncode == REFUSED and said.startswith("error: "):
        raise GraphError(f"{model.name}: {said.removeprefix('error: ')}")
    if result.returncode in CRASHES:
        raise GraphError(f"{model.name}: TensorFlow's converter crashed ({_ending(result.returncode)}); {LOOP_HINT}")
    raise GraphError(f"{model.name}: TensorFlow ended with {_ending(result.returncode)}: {_last_line(result.stderr)}")


def _ending(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _last_line(text: str) -> str:
    return printable((text.strip().splitlines() or ["it said nothing"])[-1])[:200]
