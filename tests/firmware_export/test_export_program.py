"""The program: stages export and firmware from the command line, in folders of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from graph_builder import inputs_of, small_net
from oracles import tflite_micro
from qdq_builder import resnet

import firmware_export.export
from firmware_export.__main__ import main
from firmware_export.graph import Graph, GraphError
from firmware_export.image import FitError
from firmware_export.read_tflite import read_tflite
from firmware_export.selftest import MismatchError
from firmware_export.simulate import simulate
from firmware_export.write_tflite import write_tflite
from recipes.artifacts import ArtifactError, UsageError, read_manifest, sha256_file

FILES = {
    "network.c",
    "network.h",
    "network_data.c",
    "network_data.h",
    "network_selftest.c",
    "network_config.h",
    "network_report.txt",
    "network_c_info.json",
    "network.tflite",
    "manifest.json",
}
Output = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _same_source(monkeypatch: pytest.MonkeyPatch) -> None:
    """The code under test may be edited while its tests run; that is not what they are about."""
    monkeypatch.setattr("firmware_export.__main__._source", lambda: "source")


@pytest.fixture
def build(tmp_path: Path) -> Path:
    """A build folder in which the stage before has made digits' int8 model."""
    model = tmp_path / "build" / "digits" / "compress" / "model_int8.onnx"
    model.parent.mkdir(parents=True)
    model.write_bytes(resnet().SerializeToString())
    return tmp_path / "build"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A .tflite file of somebody else's."""
    path = tmp_path / "their model.tflite"
    path.write_bytes(write_tflite(small_net()))
    return path


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_recipe_is_exported(build: Path, capsys: Output) -> None:
    assert main(["digits", "--build", str(build)]) == 0
    folder = build / "digits" / "export"
    assert names(folder) == FILES
    printed = capsys.readouterr().out
    assert (folder / "network_report.txt").read_text() in printed
    last = printed.strip().splitlines()[-1]
    assert last.startswith("export: 11 layers, 114,492 MACs, 3,800 bytes of weights") and str(folder) in last


def test_figures_go_into_the_manifest(build: Path) -> None:
    main(["digits", "--build", str(build)])
    folder = build / "digits" / "export"
    manifest = read_manifest(folder)
    info = json.loads((folder / "network_c_info.json").read_text())
    assert manifest["figures"]["macs"] == info["macs"] == 114_492
    assert manifest["figures"]["model_hash"] == info["model_hash"]
    assert set(manifest["outputs"]) == FILES - {"manifest.json"}
    assert list(manifest["inputs"]) == ["compress/model_int8.onnx"]


def test_the_twin_in_the_folder_answers_as_the_simulator(build: Path) -> None:
    main(["digits", "--build", str(build)])
    twin = build / "digits" / "export" / "network.tflite"
    graph = read_tflite(twin)
    for seed in range(5):
        inputs = inputs_of(graph, seed)
        assert simulate(graph, *inputs)[0].tobytes() == tflite_micro(twin.read_bytes(), inputs)[0].tobytes()


def test_nothing_is_done_twice_and_changes_are_noticed(build: Path, capsys: Output) -> None:
    arguments = ["digits", "--build", str(build)]
    main(arguments)
    capsys.readouterr()
    before = (build / "digits" / "export" / "manifest.json").stat().st_mtime_ns
    main(arguments)
    assert capsys.readouterr().out.startswith("export: unchanged, not run again")
    assert (build / "digits" / "export" / "manifest.json").stat().st_mtime_ns == before
    main([*arguments, "firmware_export.selftest_vectors=3"])
    assert "3 known answers" in capsys.readouterr().out
    (build / "digits" / "compress" / "model_int8.onnx").write_bytes(resnet(1).SerializeToString())
    main([*arguments, "firmware_export.selftest_vectors=3"])
    assert "unchanged" not in capsys.readouterr().out


def test_changed_code_exports_again(build: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    main(["digits", "--build", str(build)])
    monkeypatch.undo()
    capsys.readouterr()
    main(["digits", "--build", str(build)])
    assert "unchanged" not in capsys.readouterr().out


def test_the_optimisation_level_does_not_export_again(build: Path, capsys: Output) -> None:
    main(["digits", "--build", str(build)])
    capsys.readouterr()
    main(["digits", "firmware_export.compiler_level=3", "--build", str(build)])
    assert capsys.readouterr().out.startswith("export: unchanged")


def test_another_name_names_every_file_and_symbol(build: Path) -> None:
    main(["digits", "firmware_export.name=digits_net", "--build", str(build)])
    folder = build / "digits" / "export"
    assert names(folder) == {name.replace("network", "digits_net") for name in FILES - {"network_config.h"}} | {
        "network_config.h"
    }
    assert "digits_net_run" in (folder / "digits_net.h").read_text()


def test_a_model_file_needs_no_recipe(model: Path, tmp_path: Path, capsys: Output) -> None:
    assert main([str(model), "--build", str(tmp_path / "b")]) == 0
    folder = tmp_path / "b" / "their_model" / "export"
    assert names(folder) == FILES
    assert read_tflite(folder / "network.tflite").hash() == read_tflite(model).hash()


def test_an_onnx_file_with_settings(tmp_path: Path) -> None:
    path = tmp_path / "-net!.onnx"
    path.write_bytes(resnet().SerializeToString())
    assert main([str(path), "firmware_export.name=abc", "--build", str(tmp_path / "b")]) == 0
    assert "abc.c" in names(tmp_path / "b" / "net_" / "export")


def test_same_inputs_same_bytes(tmp_path: Path, model: Path) -> None:
    for folder in ("one", "two"):
        main([str(model), "--build", str(tmp_path / folder)])
    one, two = (tmp_path / folder / "their_model" / "export" for folder in ("one", "two"))
    for name in FILES - {"manifest.json"}:
        assert sha256_file(one / name) == sha256_file(two / name), name


def test_firmware_for_the_host_is_built_after_the_export(model: Path, tmp_path: Path, capsys: Output) -> None:
    arguments = [str(model), "--build", str(tmp_path / "b"), "--board", "host"]
    assert main(arguments) == 0
    folder = tmp_path / "b" / "their_model" / "firmware" / "host"
    assert {"firmware", "image.json", "manifest.json"} <= names(folder)
    firmware, compare = capsys.readouterr().out.strip().splitlines()[-2:]
    assert firmware.startswith("firmware/host: flash ") and "bytes" in firmware and str(folder) in firmware
    assert compare.startswith("compare: 0 of 40 output bytes differ over 10 random inputs")
    assert len(read_manifest(folder)["inputs"]) == len(FILES) - 1, "every exported file"
    main(arguments)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(": unchanged")[0] for line in lines] == ["export", "firmware/host", "compare"]


def test_firmware_for_a_board_has_a_line_for_each_memory_region(model: Path, tmp_path: Path, capsys: Output) -> None:
    arguments = [str(model), "--board", "netduinoplus2"]
    for folder in ("one", "two"):
        assert main([*arguments, "--build", str(tmp_path / folder)]) == 0
    printed = capsys.readouterr().out
    assert "FLASH" in printed and "of 1,048,576 bytes" in printed and "activations" in printed
    one, two = (tmp_path / folder / "their_model" / "firmware" / "netduinoplus2" for folder in ("one", "two"))
    assert {"firmware.elf", "image.json"} <= names(one)
    assert sha256_file(one / "firmware.elf") == sha256_file(two / "firmware.elf"), "the image too is the same"


def too_large(folder: Path) -> Path:
    """An activation of 64 KB, on a board with 20 KB of RAM."""
    from graph_builder import Build

    build = Build()
    x = build.activation((1, 64, 64, 8), name="x")
    path = folder / "large.tflite"
    path.write_bytes(write_tflite(build.graph(x, build.conv(x, 8, 1))))
    return path


def test_a_model_that_does_not_fit_is_refused_and_the_export_stays(tmp_path: Path) -> None:
    path = too_large(tmp_path)
    with pytest.raises(FitError) as caught:
        main([str(path), "--build", str(tmp_path / "b"), "--board", "nucleo_f103rb"])
    assert caught.value.exit_code == 7 and "bytes over" in str(caught.value) and "activations" in str(caught.value)
    assert names(tmp_path / "b" / "large" / "export-v7m") == FILES
    assert not (tmp_path / "b" / "large" / "firmware" / "nucleo_f103rb").exists()


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (["digits", "--board", "nucleo_f446"], UsageError, "did you mean 'nucleo_f446re'"),
        (["digit"], UsageError, "did you mean 'digits'"),
        (["digits", "firmware_export.nam=x"], UsageError, "did you mean 'name'"),
        (["digits", "firmware_export.name=Bad-Name"], UsageError, "firmware_export.name"),
        (["digits", "firmware_export.arithmetic=triple"], UsageError, "arithmetic"),
        (["missing.tflite"], GraphError, "missing.tflite not found"),
        (["fashion_mnist"], ArtifactError, "run the stage before this one first"),
    ],
)
def test_wrong_use_is_named(build: Path, arguments: list[str], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        main([*arguments, "--build", str(build)])


def test_a_damaged_model_leaves_the_earlier_export(build: Path) -> None:
    main(["digits", "--build", str(build)])
    folder = build / "digits" / "export"
    before = sha256_file(folder / "network.c")
    (build / "digits" / "compress" / "model_int8.onnx").write_bytes(resnet().SerializeToString()[:-200])
    with pytest.raises(GraphError, match=r"^model_int8\.onnx: "):
        main(["digits", "--build", str(build)])
    assert sha256_file(folder / "network.c") == before and names(folder) == FILES


def test_a_simulator_that_is_wrong_exports_nothing(build: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from firmware_export import selftest

    def wrong(graph: Graph, *inputs: np.ndarray) -> list[np.ndarray]:
        return [value ^ 1 for value in simulate(graph, *inputs)]

    monkeypatch.setattr(selftest, "simulate", wrong)
    with pytest.raises(MismatchError, match="nothing was exported"):
        main(["digits", "--build", str(build)])
    assert not (build / "digits" / "export").exists()


def run(arguments: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    root = Path(firmware_export.export.__file__).parents[1]
    return subprocess.run(
        [sys.executable, "-m", "firmware_export", *arguments],
        cwd=root,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_as_a_process_errors_are_one_line_with_their_exit_code(tmp_path: Path) -> None:
    (tmp_path / "bad.tflite").write_bytes(b"\0\0\0\0TFL3" + b"\xff" * 40)
    result = run([str(tmp_path / "bad.tflite"), "--build", str(tmp_path / "b")])
    assert result.returncode == 6 and result.stdout == ""
    assert result.stderr.startswith("error: bad.tflite: ") and result.stderr.count("\n") == 1


def test_help_is_enough_to_use_it() -> None:
    result = run(["--help"])
    assert result.returncode == 0
    for word in (
        "RECIPE",
        "--board",
        "--toolchain",
        "--build",
        "section.key=value",
        "netduinoplus2",
        "examples:",
        "exit codes:",
    ):
        assert word in result.stdout
    assert run([]).returncode == 2
