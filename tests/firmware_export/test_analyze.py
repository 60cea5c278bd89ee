"""The analysis: operators, layers, memory and boards of a model, quickly, with nothing built and nothing heavy loaded."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from graph_builder import small_net
from megabyte_net import LAYERS, megabyte_net
from qdq_builder import resnet

from firmware_export.__main__ import main
from firmware_export.analyze import analysis_text, analyze
from firmware_export.board import board_names, load_board
from firmware_export.write_tflite import write_tflite
from recipes.artifacts import UsageError
from recipes.recipe import FirmwareExportSection

ROOT = Path(__file__).resolve().parents[2]
SECTION = FirmwareExportSection()
Output = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def megabyte(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The generated model as a file."""
    path = tmp_path_factory.mktemp("megabyte") / "megabyte.tflite"
    path.write_bytes(write_tflite(megabyte_net()))
    assert 1 << 20 <= path.stat().st_size < 1.2 * (1 << 20)
    return path


@pytest.fixture(scope="module")
def analysis(megabyte: Path) -> dict[str, Any]:
    return analyze(megabyte, SECTION)


@pytest.fixture(scope="module")
def text(analysis: dict[str, Any]) -> str:
    return analysis_text(analysis)


def macs_of(layer: tuple[str, tuple[int, ...], int]) -> int:
    return math.prod(layer[1]) * layer[2]


# What it says


def test_every_layer_with_shape_and_macs(analysis: dict[str, Any], text: str) -> None:
    assert [(row["operator"], tuple(row["output_shapes"][0]), row["macs"]) for row in analysis["layers"]] == [
        (layer[0], layer[1], macs_of(layer)) for layer in LAYERS
    ]
    rows = [line.split() for line in text.splitlines()]
    for place, layer in enumerate(LAYERS):
        shape = "x".join(map(str, layer[1]))
        assert any(row[:4] == [str(place), layer[0], shape, f"{macs_of(layer):,}"] for row in rows), place


def test_operators_are_counted_with_macs_and_weights(analysis: dict[str, Any], text: str) -> None:
    by_name = {row["operator"]: row for row in analysis["operators"]}
    assert list(by_name) == ["conv2d", "add", "mean", "fully_connected", "softmax"], "in the order of the model"
    for name, row in by_name.items():
        layers = [layer for layer in LAYERS if layer[0] == name]
        weights = sum(layer[1][-1] * (layer[2] + 4) for layer in layers if layer[2])  # a byte each, and a bias of four
        assert (row["layers"], row["macs"], row["weights_bytes"]) == (len(layers), sum(map(macs_of, layers)), weights)
        assert any(line.split() == [name, f"{len(layers):,}", f"{row['macs']:,}", f"{weights:,}"] for line in text.splitlines())
    totals = [analysis["macs"], analysis["weights_bytes"]]
    assert totals == [sum(row[key] for row in by_name.values()) for key in ("macs", "weights_bytes")]
    assert ["total", "11", *(f"{total:,}" for total in totals)] in [line.split() for line in text.splitlines()]


def test_activation_memory_and_file(analysis: dict[str, Any], megabyte: Path, text: str) -> None:
    assert analysis["file_bytes"] == megabyte.stat().st_size and analysis["name"] == "megabyte.tflite"
    live = 16 * 16 * 32 + 16 * 16 * 64  # the second layer reads one and writes the other, unless it may overlap them
    assert 16 * 16 * 64 <= analysis["memory"]["activations_bytes"] <= live + 26_000
    assert f"activation buffer {analysis['memory']['activations_bytes']:,} bytes" in text


def test_every_board_has_its_verdict(analysis: dict[str, Any], text: str) -> None:
    boards = {row["board"]: row for row in analysis["boards"]}
    assert set(boards) == {name for name in board_names() if not load_board(name).is_host}
    for name, row in boards.items():
        flash = load_board(name).code.size
        assert row["flash"]["size"] == flash and row["core"] == load_board(name).core
        assert row["flash"]["needed"] > 1_056_000, "the weights alone"
        (line,) = [line for line in text.splitlines() if line.startswith(f"{name} ")]
        assert row["fits"] == (" yes " in line) and row["fits"] == (flash >= row["flash"]["needed"])
        assert f"of {flash:,}" in line
    assert boards["nucleo_h743zi"]["fits"] and not boards["nucleo_f446re"]["fits"]


def test_what_is_short_is_named(analysis: dict[str, Any], text: str) -> None:
    row = next(row for row in analysis["boards"] if row["board"] == "nucleo_f446re")
    short = row["flash"]["needed"] - 512 * 1024
    assert (row["short_of"], row["short_bytes"]) == ("FLASH", short)
    assert f"no: {short:,} bytes short of FLASH" in text


def test_the_closing_line(text: str) -> None:
    last = text.splitlines()[-1]
    assert last.startswith("analyze: 11 layers of 5 operators, ") and last.endswith("nothing was built")
    assert "; fits 1 of " in last and " boards: nucleo_h743zi; " in last


def test_cores_of_one_class_share_a_plan_and_others_have_their_own(tmp_path: Path) -> None:
    path = tmp_path / "small.tflite"
    path.write_bytes(write_tflite(small_net()))
    ram = {row["board"]: row["ram"] for row in analyze(path, SECTION)["boards"]}
    stack = {name: load_board(name).stack_bytes for name in ram}
    m4, m4_too = (ram[name][0]["needed"] - stack[name] for name in ("netduinoplus2", "nucleo_f446re"))
    assert m4 == m4_too


def test_an_onnx_file(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(resnet().SerializeToString())
    found = analyze(path, SECTION)
    assert found["macs"] == 114_492 and all(row["fits"] for row in found["boards"])
    assert "fits 5 of 5 boards" in analysis_text(found)


# The command


def test_the_command_prints_it_and_leaves_no_file(megabyte: Path, tmp_path: Path, capsys: Output, text: str) -> None:
    assert main([str(megabyte), "--analyze", "--build", str(tmp_path / "b")]) == 0
    assert capsys.readouterr().out == f"{text}\n"
    assert not (tmp_path / "b").exists()


def test_as_json(megabyte: Path, tmp_path: Path, capsys: Output, analysis: dict[str, Any]) -> None:
    assert main([str(megabyte), "--analyze", "--json", "--build", str(tmp_path / "b")]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(analysis))


def test_settings_count(megabyte: Path, capsys: Output) -> None:
    sizes = {}
    for goal in ("time", "ram"):
        main([str(megabyte), "--analyze", "--json", "--optimize", goal])
        sizes[goal] = json.loads(capsys.readouterr().out)["memory"]["activations_bytes"]
    assert sizes["ram"] <= sizes["time"]


def test_a_recipes_model_can_be_analysed_too(tmp_path: Path, capsys: Output) -> None:
    model = tmp_path / "digits" / "compress" / "model_int8.onnx"
    model.parent.mkdir(parents=True)
    model.write_bytes(resnet().SerializeToString())
    assert main(["digits", "--analyze", "--build", str(tmp_path)]) == 0
    assert "114,492 MACs" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["x.tflite", "--analyse"], "did you mean '--analyze'"),
        (["x.tflite", "--images", "0"], "'0' is not a number from 1 on"),
        (["x.tflite", "--images", "many"], "'many' is not a number"),
        (["x.tflite", "--json"], "--json goes with --analyze"),
        (["x.tflite", "--calibration", "c.npz"], "--calibration is for .keras, .h5 and SavedModel; x.tflite is int8 already"),
        (["x.keras"], "x.keras is a float model; give inputs to quantize it with: --calibration c.npz"),
    ],
)
def test_wrong_options_are_named(arguments: list[str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        main(arguments)


PROGRAM = """
import sys
from firmware_export.__main__ import main
code = main(sys.argv[1:])
heavy = ["tensorflow", "torch", "onnxruntime", "onnx", "tflite_micro", "sklearn", "matplotlib", "unicorn"]
heavy.append("ai_edge_litert.interpreter")
print("LOADED", *(name for name in heavy if name in sys.modules))
sys.exit(code)
"""


def test_nothing_heavy_is_loaded(megabyte: Path) -> None:
    """What keeps it under two seconds; the time itself depends on the machine (README: Figures)."""
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(megabyte), "--analyze"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1].split() == ["LOADED"]
    assert "nothing was built" in result.stdout
