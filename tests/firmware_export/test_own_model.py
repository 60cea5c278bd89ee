"""A model file without a recipe, through the program: export, firmware, given inputs, comparison, the emulated board."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx.external_data_helper
import pytest
from graph_builder import inputs_of, small_net
from oracles import tflite_micro
from qdq_builder import resnet

from firmware_export import own_model
from firmware_export.__main__ import main
from firmware_export.compare import Comparison, Sides
from firmware_export.graph import GraphError
from firmware_export.hostlib import HostNetwork
from firmware_export.model_source import int8_model, is_keras, is_model, model_files, recipe_of_model
from firmware_export.own_model import ModelRun, is_tflite
from firmware_export.selftest import MismatchError
from firmware_export.write_tflite import write_tflite
from recipes.artifacts import DataError, UsageError
from recipes.recipe import FirmwareExportSection

ROOT = Path(__file__).resolve().parents[2]
Output = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _same_source(monkeypatch: pytest.MonkeyPatch) -> None:
    """The code under test may be edited while its tests run; that is not what they are about."""
    monkeypatch.setattr("firmware_export.__main__._source", lambda: "source")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "mine.tflite"
    path.write_bytes(write_tflite(small_net()))
    return path


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    """Eight inputs and what TFLite Micro answers to them as labels, one of them changed."""
    graph = small_net()
    images = np.concatenate([inputs_of(graph, seed)[0] for seed in range(8)])
    labels = np.array([int(np.argmax(tflite_micro(write_tflite(graph), [image[None]])[0])) for image in images])
    labels[5] = (labels[5] + 1) % 4
    path = tmp_path / "inputs.npz"
    np.savez(path, x=images, y=labels)
    return path


def comparison(build: Path, name: str = "mine") -> dict[str, object]:
    found: dict[str, object] = json.loads((build / name / "compare" / "comparison.json").read_text())
    return found


def test_a_model_alone_is_run_on_random_inputs_and_compared(model: Path, tmp_path: Path, capsys: Output) -> None:
    assert main([str(model), "--build", str(tmp_path / "b")]) == 0
    printed = capsys.readouterr().out
    for words in ("operator ", "board ", "export: 5 layers", "compare: 0 of 40 output bytes differ over 10 random inputs"):
        assert words in printed
    assert "the compiled C, the simulator and TFLite Micro on the original file; " in printed
    assert comparison(tmp_path / "b") == {
        "inputs": 10,
        "bytes_compared": 40,
        "oracle": "TFLite Micro on the original file",
        "correct": None,
        "source": "random inputs",
        "note": "",
    }


def test_given_inputs_and_labels_print_the_accuracy(model: Path, answers: Path, tmp_path: Path, capsys: Output) -> None:
    assert main([str(model), "--build", str(tmp_path / "b"), "--inputs", str(answers)]) == 0
    assert "over 8 inputs of inputs.npz" in (last := capsys.readouterr().out.strip().splitlines()[-1])
    assert "accuracy 87.5 % (7 of 8)" in last
    assert comparison(tmp_path / "b")["correct"] == 7


def test_only_the_first_inputs(model: Path, answers: Path, tmp_path: Path, capsys: Output) -> None:
    main([str(model), "--build", str(tmp_path / "b"), "--inputs", str(answers), "--images", "5"])
    assert "accuracy 100.0 % (5 of 5)" in capsys.readouterr().out
    main([str(model), "--build", str(tmp_path / "b"), "--images", "3"])
    assert "over 3 random inputs" in capsys.readouterr().out


def test_other_inputs_are_compared_anew_and_the_same_ones_are_not(
    model: Path, answers: Path, tmp_path: Path, capsys: Output
) -> None:
    arguments = [str(model), "--build", str(tmp_path / "b"), "--inputs", str(answers)]
    main(arguments)
    capsys.readouterr()
    main(arguments)
    assert [line.split(": unchanged")[0] for line in capsys.readouterr().out.splitlines()] == ["export", "compare"]
    np.savez(answers, x=np.zeros((2, 8, 6, 3), np.int8))
    main(arguments)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("export: unchanged") and "over 2 inputs" in lines[-1]


def test_an_onnx_model_takes_real_images_as_its_file_does(tmp_path: Path, capsys: Output) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(resnet().SerializeToString())
    given = tmp_path / "x.npz"
    np.savez(given, input=np.random.default_rng(0).random((6, 1, 8, 8)).astype(np.float32))
    assert main([str(path), "--build", str(tmp_path / "b"), "--inputs", str(given)]) == 0
    printed = capsys.readouterr().out
    assert "0 of 30 output bytes differ over 6 inputs of x.npz" in printed and "TFLite Micro on the .tflite twin" in printed


def test_a_recipes_model_runs_on_given_inputs_too(tmp_path: Path, capsys: Output) -> None:
    """Without inputs a recipe is only exported; its test images are the host tool's."""
    path = tmp_path / "b" / "digits" / "compress" / "model_int8.onnx"
    path.parent.mkdir(parents=True)
    path.write_bytes(resnet().SerializeToString())
    np.savez(tmp_path / "x.npz", x=np.random.default_rng(0).random((4, 8, 8)).astype(np.float32), y=np.zeros(4, int))
    assert main(["digits", "--build", str(tmp_path / "b")]) == 0
    assert "compare:" not in capsys.readouterr().out
    assert main(["digits", "--build", str(tmp_path / "b"), "--inputs", str(tmp_path / "x.npz")]) == 0
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert last.startswith("compare: 0 of 20 output bytes differ over 4 inputs of x.npz") and "accuracy" in last


def test_inputs_that_do_not_fit_leave_with_three_before_anything_is_made(model: Path, tmp_path: Path) -> None:
    given = tmp_path / "x.npz"
    np.savez(given, x=np.zeros((2, 3, 8, 6), np.int8))
    for inputs, words in ((given, r"takes float32 or int8 \(n, 8, 6, 3\)"), (tmp_path / "none.npz", "not found")):
        with pytest.raises(DataError, match=words) as caught:
            main([str(model), "--build", str(tmp_path / "b"), "--inputs", str(inputs)])
        assert caught.value.exit_code == 3
        assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("text.tflite", b"no model at all", "not an ONNX file: .* nor a .tflite file: no TFL3"),
        ("empty.onnx", b"", "is empty; expected"),
        ("cut.tflite", None, "damaged"),
        ("missing.tflite", ..., "model file .* not found; expected"),
    ],
)
def test_a_model_that_is_refused_leaves_nothing(model: Path, tmp_path: Path, name: str, content: object, words: str) -> None:
    """Neither a build folder nor a lock, nor a stage begun."""
    path = tmp_path / name
    if content is not ...:
        path.write_bytes(content if isinstance(content, bytes) else model.read_bytes()[:700])
    for options in ([], ["--board", "nucleo_f446re"], ["--analyze"]):
        with pytest.raises(GraphError, match=words):
            main([str(path), "--build", str(tmp_path / "b"), *options])
        assert not (tmp_path / "b").exists()


def test_a_folder_named_like_a_model_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "m.tflite").mkdir()
    with pytest.raises(GraphError, match=r"m\.tflite is a folder; expected a \.tflite or \.onnx file"):
        main([str(tmp_path / "m.tflite"), "--build", str(tmp_path / "b")])


def test_real_numbers_are_taken_for_an_int8_input(model: Path, answers: Path, tmp_path: Path, capsys: Output) -> None:
    """As a person has them who trained on real numbers: the same bytes go in, so the accuracy is the same."""
    stored = dict(np.load(answers))
    tensor = small_net().tensors[small_net().inputs[0]]
    real = (stored["x"].astype(np.float32) - tensor.zero_point) * np.float32(tensor.scale)
    np.savez(tmp_path / "real.npz", x=real, y=stored["y"])
    assert main([str(model), "--build", str(tmp_path / "b"), "--inputs", str(tmp_path / "real.npz")]) == 0
    assert "accuracy 87.5 % (7 of 8)" in capsys.readouterr().out


def test_labels_that_are_no_classes_are_refused(model: Path, answers: Path, tmp_path: Path) -> None:
    stored = dict(np.load(answers))
    np.savez(tmp_path / "x.npz", x=stored["x"], y=stored["y"] + 90)
    with pytest.raises(DataError, match=r"expected 0 to 3, the places in the model's first output"):
        main([str(model), "--build", str(tmp_path / "b"), "--inputs", str(tmp_path / "x.npz")])


def test_without_arguments_only_the_model_is_asked_for() -> None:
    with pytest.raises(UsageError, match=r"^the following arguments are required: RECIPE; see"):
        main([])


def test_a_difference_leaves_with_ten_and_no_comparison(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(sides: Sides, *_: object) -> Comparison:
        raise MismatchError("input 0: 1 of 4 bytes differ")

    monkeypatch.setattr(own_model, "compare", wrong)
    with pytest.raises(MismatchError) as caught:
        main([str(model), "--build", str(tmp_path / "b")])
    assert caught.value.exit_code == 10 and not (tmp_path / "b" / "mine" / "compare").exists()


def test_a_changed_constant_in_the_export_is_found(model: Path, tmp_path: Path) -> None:
    """Through the real files: the generated C of the folder, not some other one, is what is compared."""
    main([str(model), "--build", str(tmp_path / "b")])
    data = tmp_path / "b" / "mine" / "export" / "network_data.c"
    text = data.read_text()
    changed = re.sub(r"(network_4_weights\[\d+\][^{]*{\s*)(\d+)", lambda m: f"{m[1]}{int(m[2]) ^ 0x40404040}", text)
    assert changed != text
    data.write_text(changed)
    section = FirmwareExportSection()
    run = ModelRun(model, data.parent, section, None, None)
    with pytest.raises(MismatchError, match=r"the first layer that differs is 4 \(fully_connected "):
        own_model._compare(run)


def test_the_host_board_needs_no_emulator(model: Path, tmp_path: Path, capsys: Output) -> None:
    assert main([str(model), "--build", str(tmp_path / "b"), "--board", "host"]) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    assert lines[-2].startswith("firmware/host: ") and lines[-1].startswith("compare: ")


@pytest.mark.parametrize("board", ["nucleo_f446re", pytest.param("nucleo_f103rb", marks=pytest.mark.long)])
def test_one_command_to_the_emulated_board(model: Path, answers: Path, tmp_path: Path, board: str) -> None:
    """As a person starts it: the image that was built answers the given inputs as TFLite Micro does."""
    pytest.importorskip("unicorn")
    command = ["-m", "firmware_export", str(model), "--build", str(tmp_path / "b"), "--board", board, "--inputs", str(answers)]
    result = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.strip().splitlines()
    assert lines[-1].startswith(f"model: 3 of 3 inputs of inputs.npz answered identically by {board} on unicorn, ")
    assert "instructions each" in lines[-1] and lines[-2].startswith("running: python -m host_tools model ")
    assert any(line.startswith("compare: 0 of 32 output bytes differ over 8 inputs") for line in lines)


def test_the_emulators_exit_code_is_the_programs(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def run(command: list[str], check: bool) -> subprocess.CompletedProcess[str]:
        asked.append(command[1:])
        return subprocess.CompletedProcess(command, 10)

    monkeypatch.setattr("firmware_export.own_model.subprocess.run", run)
    monkeypatch.setattr("firmware_export.__main__._firmware", lambda *_: None)
    arguments = [str(model), "firmware_export.name=net", "--build", str(tmp_path / "b"), "--board", "netduinoplus2"]
    monkeypatch.setattr("firmware_export.__main__.compare_stage", lambda *_: None)
    assert main([*arguments, "--images", "7"]) == 10
    words = ["-m", "host_tools", "model", str(model), "firmware_export.name=net", "--build", str(tmp_path / "b")]
    assert asked == [[*words, "--board", "netduinoplus2", "--target", "unicorn", "--images", "3"]]


# Which arguments are models


@pytest.mark.parametrize("name", ["a.tflite", "A.ONNX", "dir/b.onnx", "c.keras", "d.h5", "e.HDF5"])
def test_model_names(name: str) -> None:
    assert is_model(Path(name))
    assert is_keras(Path(name)) == name.lower().endswith(("keras", "h5", "hdf5"))


@pytest.mark.parametrize("name", ["digits", "recipes/digits.yaml", "tflite", "model.tflite.yaml"])
def test_recipe_names(name: str) -> None:
    assert not is_model(Path(name)) and not is_keras(Path(name))


def test_a_folder_is_a_model_when_it_holds_a_saved_model(tmp_path: Path) -> None:
    assert not is_model(tmp_path)
    (tmp_path / "saved_model.pb").write_bytes(b"")
    assert is_model(tmp_path) and is_keras(tmp_path)
    assert int8_model(tmp_path, Path("root")) == Path("root/keras/model.tflite")
    assert int8_model(Path("x.tflite"), Path("root")) == Path("x.tflite")


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("a b.tflite", "a_b"),
        ("-net!.onnx", "net_"),
        ("...onnx", "model"),
        ("é.tflite", "model"),
        ("x" * 200 + ".onnx", "x" * 64),
    ],
)
def test_the_recipe_is_named_like_the_file(file: str, name: str) -> None:
    assert recipe_of_model(Path(file), ()).name == name


def test_the_recipe_takes_settings(tmp_path: Path) -> None:
    recipe = recipe_of_model(Path("a.tflite"), ["firmware_export.name=abc", "firmware_export.selftest_vectors=3"])
    assert recipe.firmware_export.name == "abc" and recipe.firmware_export.selftest_vectors == 3
    with pytest.raises(UsageError, match="did you mean 'name'"):
        recipe_of_model(Path("a.tflite"), ["firmware_export.nam=abc"])


def test_the_content_tells_the_format(model: Path, tmp_path: Path) -> None:
    assert is_tflite(model)
    renamed = tmp_path / "renamed.tflite"
    renamed.write_bytes(resnet().SerializeToString())
    assert not is_tflite(renamed)
    renamed.write_bytes(b"TFL")
    assert not is_tflite(renamed)


# External data of .onnx files


def external(folder: Path, location: str = "weights.bin") -> Path:
    """A model whose tensors all lie in a file beside it, or where `location` says."""
    model = resnet()
    (folder / "weights.bin").write_bytes(b"")
    onnx.external_data_helper.convert_model_to_external_data(model, location="weights.bin", size_threshold=0)
    onnx.save_model(model, folder / "net.onnx")
    if location != "weights.bin":
        changed = onnx.load(folder / "net.onnx", load_external_data=False)
        for tensor in changed.graph.initializer:
            for entry in tensor.external_data:
                entry.value = location if entry.key == "location" else entry.value
        (folder / "net.onnx").write_bytes(changed.SerializeToString())
    return folder / "net.onnx"


def test_the_files_of_a_model(model: Path, tmp_path: Path) -> None:
    assert model_files(model) == [model]
    path = external(tmp_path)
    assert model_files(path) == [path, tmp_path / "weights.bin"]
    assert model_files(tmp_path / "none.onnx") == [tmp_path / "none.onnx"]
    path.write_bytes(b"no model")
    assert model_files(path) == [path]


@pytest.mark.parametrize("location", ["../outside.bin", "/etc/passwd", "link.bin", "none.bin", "\0"])
def test_files_outside_the_folder_are_neither_hashed_nor_read(tmp_path: Path, location: str) -> None:
    (tmp_path / "outside.bin").write_bytes(bytes(100_000))
    folder = tmp_path / "inside"
    folder.mkdir()
    path = external(folder, location)
    (folder / "link.bin").symlink_to(tmp_path / "outside.bin")
    assert model_files(path) == [path]
    with pytest.raises(GraphError, match=r"external data .* is not a file inside the model's folder"):
        main([str(path), "--build", str(tmp_path / "b")])


def test_changed_external_data_is_exported_again(tmp_path: Path, capsys: Output) -> None:
    path = external(tmp_path)
    arguments = [str(path), "--build", str(tmp_path / "b"), "--images", "1"]
    assert main(arguments) == 0
    capsys.readouterr()
    assert main(arguments) == 0
    assert capsys.readouterr().out.startswith("export: unchanged")
    data = bytearray((tmp_path / "weights.bin").read_bytes())
    weights = next(t for t in onnx.load(path, load_external_data=False).graph.initializer if t.name.startswith("w_"))
    place = int({entry.key: entry.value for entry in weights.external_data}.get("offset", "0"))
    data[place] = (data[place] + 1) % 100
    (tmp_path / "weights.bin").write_bytes(bytes(data))
    assert main(arguments) == 0
    assert "unchanged" not in capsys.readouterr().out


# The models of MLPerf Tiny, with a real data set


def test_keyword_spotting_answers_as_expected(shared_data: Path, tmp_path: Path, capsys: Output) -> None:
    model, inputs = shared_data / "mlperf_tiny_models" / "kws_ref_model.tflite", shared_data / "kws01_mfcc_int8.npz"
    arguments = [str(model), "--build", str(tmp_path), "--inputs", str(inputs), "--images", "20"]
    assert main(arguments) == 0
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert "0 of 240 output bytes differ over 20 inputs of kws01_mfcc_int8.npz" in last and "accuracy " in last


@pytest.mark.long
def test_keyword_spotting_on_all_inputs_has_its_published_accuracy(shared_data: Path, tmp_path: Path, capsys: Output) -> None:
    model, inputs = shared_data / "mlperf_tiny_models" / "kws_ref_model.tflite", shared_data / "kws01_mfcc_int8.npz"
    assert main([str(model), "--build", str(tmp_path), "--inputs", str(inputs)]) == 0
    assert "accuracy 90.1 % (901 of 1,000)" in capsys.readouterr().out


@pytest.mark.long
def test_an_environment_without_this_folder_still_finds_the_host_tool(model: Path, tmp_path: Path) -> None:
    """From another folder, with the checkout on the path only."""
    pytest.importorskip("unicorn")
    command = [sys.executable, "-m", "firmware_export", str(model), "--build", str(tmp_path / "b"), "--board", "nucleo_g071rb"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert "3 of 3 random inputs answered identically by nucleo_g071rb on unicorn" in result.stdout
    assert HostNetwork(tmp_path / "b" / "mine" / "export-v6m").selftest()
