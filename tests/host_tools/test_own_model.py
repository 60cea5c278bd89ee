"""The command `model`: a model file's firmware answers given inputs, wrong answers are named with their layer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from graph_board import GraphBoard, who
from qdq_file import digits_file

import host_tools.own_model
from firmware_export.__main__ import main as firmware_export_main
from firmware_export.export import load_graph
from firmware_export.graph import Array, Graph
from firmware_export.model_source import CONVERTED, KERAS_STAGE
from firmware_export.simulate import simulate
from host_tools.__main__ import main
from host_tools.compare import MismatchError
from host_tools.errors import LinkError
from recipes.artifacts import ArtifactError, DataError, UsageError
from recipes.recipe import DataSection, FirmwareExportSection
from train.data import load_dataset

Output = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model file beside which build/mine is built up to the firmware of board `host`."""
    path = tmp_path_factory.mktemp("own") / "mine.onnx"
    path.write_bytes(digits_file(load_dataset(DataSection(), 1)))
    assert firmware_export_main([str(path), "--build", str(path.parent / "build"), "--board", "host"]) == 0
    return path


@pytest.fixture(scope="module")
def graph(model: Path) -> Graph:
    return load_graph(model, FirmwareExportSection())


def words(model: Path, *more: str) -> list[str]:
    return ["model", str(model), "--build", str(model.parent / "build"), "--board", "host", "--target", "host", *more]


def board_with(
    monkeypatch: pytest.MonkeyPatch, model: Path, graph: Graph, lie: dict[int, int] | None = None, **options: object
) -> GraphBoard:
    """A board in Python in the place of the process; `lie` maps layers to the element that is changed in them."""

    def change(layer: int, output: Array) -> Array:
        if lie is None or layer not in lie:
            return output
        changed = output.copy()
        changed.reshape(-1)[lie[layer]] ^= 1
        return changed

    identity = who(model.parent / "build" / "mine")
    board = GraphBoard(graph, lie=change, **{**identity, **options})  # type: ignore[arg-type]
    monkeypatch.setattr(host_tools.own_model, "open_target", lambda *_: board)
    return board


def test_random_inputs_through_the_firmware_as_a_process(model: Path, capsys: Output) -> None:
    assert main(words(model)) == 0
    line = capsys.readouterr().out.strip()
    assert line.startswith("model: 3 of 3 random inputs answered identically by host on host")
    assert line.endswith("build/mine/firmware/host") and "\n" not in line


def test_as_many_as_asked(model: Path, capsys: Output) -> None:
    assert main(words(model, "--images", "5")) == 0
    assert "5 of 5 random inputs" in capsys.readouterr().out


@pytest.mark.parametrize(("more", "count"), [((), 12), (("--images", "4"), 4), (("--images", "400"), 12)])
def test_given_inputs_all_of_them_or_the_first(
    model: Path, tmp_path: Path, capsys: Output, more: tuple[str, ...], count: int
) -> None:
    given = tmp_path / "x.npz"
    np.savez(given, x=np.random.default_rng(0).random((12, 1, 8, 8)).astype(np.float32))
    assert main(words(model, "--inputs", str(given), *more)) == 0
    assert f"{count} of {count} inputs of x.npz" in capsys.readouterr().out


def test_cycles_are_told_where_the_board_counts_them(
    model: Path, graph: Graph, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    board = board_with(monkeypatch, model, graph)
    assert main(words(model)) == 0
    assert ", 5,002 cycles each; " in capsys.readouterr().out, "5001, 5002 and 5003"
    assert board.runs == 3


def test_what_the_board_sees_are_the_stored_inputs_in_order(
    model: Path, graph: Graph, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    images = np.random.default_rng(1).integers(-128, 128, (3, 8, 8, 1)).astype(np.int8)
    given, seen = tmp_path / "x.npz", list[bytes]()
    np.savez(given, x=images)
    board = board_with(monkeypatch, model, graph)
    answer = board._run

    def noted(payload: bytes) -> bytes | None:
        answered = answer(payload)
        seen.append(board._input)
        return answered

    monkeypatch.setattr(board, "_run", noted)
    main(words(model, "--inputs", str(given)))
    assert seen == [image.tobytes() for image in images]


@pytest.mark.parametrize("layer", [0, 1])
def test_the_first_wrong_layer_is_named(model: Path, graph: Graph, monkeypatch: pytest.MonkeyPatch, layer: int) -> None:
    last = len(graph.nodes) - 1
    board_with(monkeypatch, model, graph, {min(layer, last): 2, last: 0})
    with pytest.raises(MismatchError) as caught:
        main(words(model))
    text = str(caught.value)
    assert text.startswith(
        f"input 0 on host: layer {min(layer, last)} ({graph.nodes[min(layer, last)].op}) is the first that differs"
    )
    assert caught.value.exit_code == 10


def test_an_answer_that_is_wrong_once_is_still_told(model: Path, graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    """The layers are right when they are read one by one: the board is at fault, and that is said."""
    lies = {"left": 1}

    def once(_: int, output: Array) -> Array:
        if output.shape != graph.tensors[graph.outputs[0]].shape or lies["left"] == 0:
            return output
        lies["left"] -= 1
        changed = output.copy()
        changed.reshape(-1)[0] ^= 1
        return changed

    board = board_with(monkeypatch, model, graph)
    board.lie = once
    with pytest.raises(MismatchError, match="the answer differs, but no layer"):
        main(words(model))


def test_another_board_or_image_is_refused(model: Path, graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    board_with(monkeypatch, model, graph, build_id="1111111111111111")
    with pytest.raises(LinkError, match="build 1111111111111111 answers"):
        main(words(model))
    board_with(monkeypatch, model, graph, model_hash="22" * 32)
    with pytest.raises(LinkError, match="222222"):
        main(words(model))


def test_a_model_that_is_not_built_names_what_to_run(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="run the stage"):
        main(["model", str(model), "--build", str(tmp_path), "--board", "host", "--target", "host"])
    with pytest.raises(ArtifactError, match="run the stage 'nucleo_f446re' first"):
        main([*words(model)[:4], "--board", "nucleo_f446re", "--target", "unicorn"])


def test_damaged_firmware_is_not_run(model: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(model.parent, tmp_path / "own")
    copy = tmp_path / "own" / "mine.onnx"
    (tmp_path / "own" / "build" / "mine" / "export" / "network.h").write_text("changed")
    with pytest.raises(ArtifactError):
        main(words(copy))


def test_inputs_that_do_not_fit(model: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.zeros((3, 5, 5), np.float32))
    with pytest.raises(DataError, match=r"takes float32 or int8 \(n, 1, 8, 8\)"):
        main(words(model, "--inputs", str(tmp_path / "x.npz")))


@pytest.mark.parametrize(
    ("more", "expected"),
    [(("--target", "unicorn"), "does not run firmware of board 'host'"), (("--images", "0"), "'0' is not a number from 1 on")],
)
def test_wrong_use(model: Path, more: tuple[str, ...], expected: str) -> None:
    with pytest.raises(UsageError, match=expected):
        main([*words(model), *more])


def test_a_keras_models_int8_file_is_taken_from_its_stage(model: Path, tmp_path: Path, capsys: Output) -> None:
    """What firmware_export has converted lies in build/<name>/keras; here it is put there by hand."""
    import shutil

    keras = tmp_path / "mine.keras"
    keras.write_bytes(b"float")
    shutil.copytree(model.parent / "build", tmp_path / "build")
    stage = tmp_path / "build" / "mine" / KERAS_STAGE
    stage.mkdir()
    shutil.copy(tmp_path / "build" / "mine" / "export" / "network.tflite", stage / CONVERTED)
    assert main(words(keras)) == 0
    assert "3 of 3 random inputs" in capsys.readouterr().out


def test_the_answers_are_those_of_the_simulator(
    model: Path, graph: Graph, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    """A board that computes another image than it was given is found out."""
    board = board_with(monkeypatch, model, graph)
    blank = np.zeros(graph.tensors[graph.inputs[0]].shape, np.int8)
    wrong = simulate(graph, blank)[0]
    board.lie = lambda layer, output: wrong if layer == len(graph.nodes) - 1 else output
    with pytest.raises(MismatchError, match="input 0 on host"):
        main(words(model))
    assert capsys.readouterr().out == ""
