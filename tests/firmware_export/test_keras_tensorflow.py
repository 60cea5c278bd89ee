"""Keras models through TensorFlow's converter and the whole way to compared C; models that hold code are refused."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from keras_files import CLASSES, IMAGES, images

from firmware_export.__main__ import main
from firmware_export.graph import GraphError
from firmware_export.keras_model import convert_in_process
from firmware_export.read_tflite import read_tflite
from firmware_export.simulate import simulate
from recipes.artifacts import DataError

pytestmark = [
    pytest.mark.tensorflow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        importlib.util.find_spec("tensorflow") is None,
        reason="the optional extra tensorflow is not installed (pip install -r requirements-tensorflow.txt)",
    ),
]
Output = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keras models of every kind."""
    folder = tmp_path_factory.mktemp("keras")
    program = Path(__file__).with_name("keras_files.py")
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    result = subprocess.run(
        [sys.executable, str(program), str(folder)], env=environment, capture_output=True, text=True, timeout=500
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return folder


@pytest.mark.parametrize("name", ["net.keras", "net.h5", "net_saved"])
def test_every_form_goes_the_whole_way(folder: Path, tmp_path: Path, capsys: Output, name: str) -> None:
    given = tmp_path / "x.npz"
    arguments = [str(folder / name), "--calibration", str(folder / "calibration.npz"), "--build", str(tmp_path / "b")]
    assert main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"keras: {name} is ") and f"calibrated on {IMAGES} inputs" in lines[0]
    assert lines[-1].startswith("compare: 0 of 40 output bytes differ over 10 random inputs")
    assert "TFLite Micro on the original file" in lines[-1]
    graph = read_tflite(tmp_path / "b" / Path(name).stem / "keras" / "model.tflite")
    x, y = graph.tensors[graph.inputs[0]], graph.tensors[graph.outputs[0]]
    assert (x.dtype, x.shape, y.dtype, y.shape) == ("int8", (1, 8, 8, 1), "int8", (1, CLASSES))
    stored = np.clip(np.rint(images() / x.scale) + x.zero_point, -128, 127).astype(np.int8)
    np.savez(given, x=stored, y=np.arange(IMAGES) % CLASSES)
    assert main([*arguments, "--inputs", str(given)]) == 0
    assert f"accuracy 100.0 % ({IMAGES} of {IMAGES})" in capsys.readouterr().out


def test_the_int8_answers_are_near_the_float_ones(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "model.tflite"
    assert convert_in_process(folder / "net.keras", folder / "calibration.npz", target, 300) == IMAGES
    graph = read_tflite(target)
    x, y = graph.tensors[graph.inputs[0]], graph.tensors[graph.outputs[0]]
    expected = np.load(folder / "float.npy", allow_pickle=False)
    for image, wanted in zip(images(), expected, strict=True):
        stored = np.clip(np.rint(image[None] / x.scale) + x.zero_point, -128, 127).astype(np.int8)
        real = (simulate(graph, stored)[0].astype(float) - y.zero_point) * y.scale
        assert np.abs(real[0] - wanted).max() < 0.05 and real[0].argmax() == wanted.argmax()


def test_two_inputs_keep_their_names(folder: Path, tmp_path: Path, capsys: Output) -> None:
    arguments = [str(folder / "two.keras"), "--calibration", str(folder / "two.npz"), "--build", str(tmp_path / "b")]
    assert main(arguments) == 0
    graph = read_tflite(tmp_path / "b" / "two" / "keras" / "model.tflite")
    shapes = {graph.tensors[i].name: graph.tensors[i].shape for i in graph.inputs}
    assert shapes == {"serving_default_left:0": (1, 4, 4, 1), "serving_default_b_right:0": (1, 3)}
    rng = np.random.default_rng(0)
    given = {"b_right": rng.integers(-128, 128, (5, 3)), "left": rng.integers(-128, 128, (5, 4, 4, 1))}
    np.savez(tmp_path / "x.npz", left=given["left"].astype(np.int8), b_right=given["b_right"].astype(np.int8))
    assert main([*arguments, "--inputs", str(tmp_path / "x.npz")]) == 0
    assert "over 5 inputs of x.npz" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("lambda.keras", "the layer 'evil' is a Lambda, which holds code"),
        ("lambda.h5", "the layer 'evil' is a Lambda, which holds code"),
        ("custom.keras", "'mine' is a custom function or object"),
        ("writes", r"operator '\w+' \(WriteFile\) touches files or runs code"),
        ("python", r"operator '\w+' \(EagerPyFunc\) touches files or runs code"),
    ],
)
def test_models_that_hold_code_are_refused(folder: Path, tmp_path: Path, name: str, words: str) -> None:
    with pytest.raises(GraphError, match=words) as caught:
        convert_in_process(folder / name, folder / "calibration.npz", tmp_path / "out", 300)
    assert caught.value.exit_code == 6 and str(caught.value).startswith(f"{name}: ") and str(caught.value).isprintable()
    assert not (folder / "written").exists() and not (tmp_path / "out").exists()


@pytest.mark.parametrize("length", [0, 100, 5000])
@pytest.mark.parametrize("name", ["net.keras", "net.h5"])
def test_damaged_files_are_one_line(folder: Path, tmp_path: Path, name: str, length: int) -> None:
    damaged = tmp_path / name
    damaged.write_bytes((folder / name).read_bytes()[:length])
    with pytest.raises(GraphError, match=r"no whole Keras model|cannot be read by Keras"):
        convert_in_process(damaged, folder / "calibration.npz", tmp_path / "out", 300)


def test_a_damaged_saved_model_is_one_line(folder: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "saved"
    damaged.mkdir()
    for data, words in ((b"\xff" * 50, "cannot be read as a SavedModel"), (b"", "no signature 'serving_default'")):
        (damaged / "saved_model.pb").write_bytes(data)
        with pytest.raises(GraphError, match=words):
            convert_in_process(damaged, folder / "calibration.npz", tmp_path / "out", 300)


def test_a_calibration_of_another_shape_is_one_line(folder: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "c.npz", x=np.zeros((5, 28, 28, 1), np.float32))
    with pytest.raises(DataError, match=r"calibration's 'x' is float32 \(5, 28, 28, 1\); expected float32 \(n, \(8, 8, 1\)\)"):
        convert_in_process(folder / "net.keras", tmp_path / "c.npz", tmp_path / "out", 300)


@pytest.mark.parametrize("name", ["lstm.keras", "gru.keras"])
def test_recurrent_layers_as_keras_builds_them(folder: Path, tmp_path: Path, capsys: Output, name: str) -> None:
    """Their loop ends TensorFlow's calibration in a crash, so they are unrolled."""
    arguments = [str(folder / name), "--calibration", str(folder / "sequence.npz"), "--build", str(tmp_path / "b")]
    assert main([*arguments, "--inputs", str(folder / "sequence.npz")]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("compare: 0 of 60 output bytes differ over 20 inputs of sequence.npz")


def test_the_same_model_and_calibration_give_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        convert_in_process(folder / "net.keras", folder / "calibration.npz", tmp_path / name, 300)
    one, two = (read_tflite(tmp_path / name) for name in ("one", "two"))
    assert one.hash() == two.hash()
