"""The stage `exact`: every implementation agrees on a real network; one that does not is found and named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from built_recipe import build_recipe, copy_recipe
from graph_board import GraphBoard, who
from qdq_file import mixed_file

import host_tools.exact
import recipes.artifacts
from firmware_export.__main__ import main as firmware_export_main
from firmware_export.board import load_board
from firmware_export.graph import Array
from firmware_export.toolchain import ToolchainError
from host_tools.__main__ import main
from host_tools.compare import Agreement, MismatchError
from host_tools.errors import LinkError
from host_tools.exact import ExactOrder, exact, plan_targets, tolerance_table
from host_tools.link import Link
from host_tools.model import load_model
from host_tools.run import Order, load_images
from recipes.artifacts import ArtifactError, UsageError
from recipes.recipe import load_recipe

IMPLEMENTATIONS = ["simulator", "compiled C", "tflite-micro", "LiteRT ref", "host"]


@pytest.fixture
def recipe(built: Path, tmp_path: Path) -> Path:
    return copy_recipe(built, tmp_path)


def order(recipe: Path, images: int | None = 20) -> Order:
    root = recipe.parent / "build" / "tiny"
    return Order(load_recipe(recipe), (str(recipe),), load_board("netduinoplus2"), "unicorn", root, images)


def report(recipe: Path) -> dict[str, object]:
    content: dict[str, object] = json.loads((recipe.parent / "build" / "tiny" / "exact" / "exact.json").read_text())
    return content


def test_all_agree_on_every_test_image(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exact(plan_targets(order(recipe, None), ["host"]))
    found = report(recipe)
    pairs = found["exact"]
    assert isinstance(pairs, list) and len(pairs) == 10  # every two of five
    assert {p["first"] for p in pairs} | {p["second"] for p in pairs} == set(IMPLEMENTATIONS)
    assert all(p["bytes_compared"] == 3600 and p["bytes_different"] == 0 for p in pairs)
    text = capsys.readouterr().out
    assert (
        "exact: 0 of 36,000 bytes differ over 360 images between simulator, compiled C, tflite-micro, LiteRT ref, host" in text
    )
    assert "tolerance only" in text


def test_tolerances_are_told_apart(recipe: Path) -> None:
    exact(plan_targets(order(recipe), []))
    found = report(recipe)
    rows = found["tolerance"]
    assert isinstance(rows, list) and [row["second"] for row in rows] == ["onnxruntime", "torch"]
    assert all(row["largest_difference"] <= 1 for row in rows)
    pairs = found["exact"]
    assert isinstance(pairs, list) and not {"onnxruntime", "torch"} & {p["second"] for p in pairs}


def test_the_second_time_nothing_is_compared(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        exact(plan_targets(order(recipe), []))
    text = capsys.readouterr().out
    assert "exact: unchanged, not run again (exact: 0 of" in text
    assert text.count("bytes differing/compared") == 2  # the table is shown again all the same


def test_code_and_settings_decide_whether_it_is_compared_again(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[int] = []
    monkeypatch.setattr(host_tools.exact, "load_images", lambda *given: counted.append(1) or load_images(*given))
    first = order(recipe, 3)
    moved = replace(first, recipe=load_recipe(recipe, [f"data.folder={recipe.parent}"]))
    for asked, times in ((first, 1), (first, 1), (moved, 1), (replace(first, images=4), 2)):
        exact(plan_targets(asked, []))
        assert len(counted) == times
    original, changed = recipes.artifacts.sha256_file, Path(host_tools.__file__).parents[1] / "firmware_export/hostlib.py"
    monkeypatch.setattr(recipes.artifacts, "sha256_file", lambda path: "00" * 32 if path == changed else original(path))
    exact(plan_targets(replace(first, images=4), []))
    assert len(counted) == 3


def flip_last(layer: int, output: Array) -> Array:
    if layer == 2:
        output = output.copy()
        output.reshape(-1)[9] ^= 1
    return output


def test_a_board_that_differs_is_named(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = load_model(recipe.parent / "build" / "tiny", load_recipe(recipe))
    board = GraphBoard(model.graph, lie=flip_last, **who(model.export.parent))
    monkeypatch.setattr(host_tools.exact, "open_target", lambda *_: board)
    monkeypatch.setattr(host_tools.exact, "Link", partial(Link, clock=board.clock))
    for _ in range(2):  # the second time from what is written
        with pytest.raises(MismatchError) as caught:
            exact(plan_targets(order(recipe, 5), ["host"]))
        assert caught.value.exit_code == 10
        assert "20 bytes differ" in str(caught.value)  # 5 images, 1 byte each, against 4 others
        assert "simulator / host, compiled C / host, tflite-micro / host, LiteRT ref / host;" in str(caught.value)
        assert str(caught.value).endswith(f"layers {recipe} --board host --target host --images 5")
    assert board.runs == 5
    assert "5/50" in capsys.readouterr().out


def test_an_interrupted_comparison_goes_on_where_it_stopped(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_model(recipe.parent / "build" / "tiny", load_recipe(recipe))
    runs = []
    for dies_at in (6, None):
        board = GraphBoard(model.graph, dies_at=dies_at, **who(model.export.parent))
        monkeypatch.setattr(host_tools.exact, "open_target", lambda *_, line=board: line)
        monkeypatch.setattr(host_tools.exact, "Link", partial(Link, clock=board.clock))
        if dies_at is not None:
            with pytest.raises(LinkError, match="has gone"):
                exact(plan_targets(order(recipe), ["host"]))
        else:
            exact(plan_targets(order(recipe), ["host"]))
        runs.append(board.runs)
    assert runs == [7, 14]  # the seventh answer was lost; 6 of 20 are not asked for again
    pairs = report(recipe)["exact"]
    assert isinstance(pairs, list) and all(p["bytes_different"] == 0 and p["images"] == 20 for p in pairs)


def test_answers_of_another_image_are_not_compared(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_model(recipe.parent / "build" / "tiny", load_recipe(recipe))
    board = GraphBoard(model.graph, name="host", build_id="fe" * 8)
    monkeypatch.setattr(host_tools.exact, "open_target", lambda *_: board)
    monkeypatch.setattr(host_tools.exact, "Link", partial(Link, clock=board.clock))
    with pytest.raises(LinkError, match="answers, expected host with build"):
        exact(plan_targets(order(recipe, 2), ["host"]))
    assert board.runs == 0


def test_exact_needs_an_export(tmp_path: Path, recipe: Path) -> None:
    with pytest.raises(ArtifactError, match="run the stage"):
        exact(plan_targets(replace(order(recipe), root=tmp_path / "empty"), []))


def test_a_serial_line_answers_the_first_images_only(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_tools.exact, "LINK_IMAGES", 7)
    exact(plan_targets(order(recipe, 20), ["host"]))
    pairs = report(recipe)["exact"]
    assert isinstance(pairs, list)
    counts = {(p["first"], p["second"]): p["images"] for p in pairs}
    assert counts["simulator", "tflite-micro"] == 20 and counts["simulator", "host"] == 7


@pytest.mark.parametrize("targets", [None, ["unicorn"], ["host", "qemu"]])
def test_firmware_that_is_not_built_is_an_error_that_says_how(recipe: Path, targets: list[str] | None) -> None:
    """Otherwise a comparison without the board would pass for one with it."""
    with pytest.raises(
        ArtifactError, match=r"no firmware in \S+netduinoplus2; build it with: python -m firmware_export .*plus2$"
    ):
        plan_targets(order(recipe), targets)


def test_a_program_that_is_not_installed_is_left_out_and_said(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    request = plan_targets(order(recipe, 3), None)
    monkeypatch.undo()
    assert [run.target for run in request.runs] == ["host"] and set(request.left_out) == {"unicorn", "qemu"}
    for _ in range(2):  # the second time from what is written
        exact(request)
        text = capsys.readouterr().out
        assert "unicorn is left out: the Python package unicorn is not installed" in text
        assert "qemu is left out: qemu-system-arm not found; install qemu-system-arm" in text
    assert report(recipe)["left_out"] == request.left_out
    table = (recipe.parent / "build" / "tiny" / "exact" / "table.txt").read_text()
    assert table.count("left out") == 2


@pytest.mark.parametrize("target", ["unicorn", "qemu"])
def test_a_program_that_was_asked_for_must_be_there(recipe: Path, monkeypatch: pytest.MonkeyPatch, target: str) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ToolchainError, match=f"{target}.*install"):
        plan_targets(order(recipe), ["host", target])


def test_a_board_that_qemu_does_not_know_is_compared_without_it(recipe: Path) -> None:
    words = [str(recipe), "--build", str(recipe.parent / "build"), "--board", "nucleo_f103rb"]
    assert firmware_export_main(words) == 0
    asked = replace(order(recipe), board=load_board("nucleo_f103rb"))
    request = plan_targets(asked, None)
    assert [(run.target, run.board.name) for run in request.runs] == [("host", "host"), ("unicorn", "nucleo_f103rb")]
    assert "no machine for board nucleo_f103rb" in request.left_out["qemu"]
    with pytest.raises(LinkError, match="no machine for board nucleo_f103rb"):
        plan_targets(asked, ["qemu"])


def test_board_host_is_compared_without_emulators(recipe: Path) -> None:
    request = plan_targets(replace(order(recipe, 3), board=load_board("host")), None)
    assert [run.target for run in request.runs] == ["host"] and set(request.left_out) == {"unicorn", "qemu"}
    assert request.order.target == "host"
    with pytest.raises(UsageError, match="does not run firmware of board 'host'"):
        plan_targets(replace(order(recipe), board=load_board("host")), ["unicorn"])


def test_the_firmware_of_this_computer_is_built_on_the_way(recipe: Path) -> None:
    root = recipe.parent / "build" / "tiny"
    before = json.loads((root / "firmware" / "host" / "image.json").read_text())
    shutil.rmtree(root / "firmware")
    exact(plan_targets(order(recipe, 3), ["host"]))
    pairs = report(recipe)["exact"]
    assert isinstance(pairs, list) and ("simulator", "host") in {(p["first"], p["second"]) for p in pairs}
    assert json.loads((root / "exact" / "host" / "image.json").read_text())["build_id"] == before["build_id"]


def test_an_old_firmware_of_this_computer_does_no_harm(recipe: Path) -> None:
    firmware = recipe.parent / "build" / "tiny" / "firmware" / "host" / "firmware"
    firmware.write_bytes(b"not a program")
    exact(plan_targets(order(recipe, 3), ["host"]))


def test_a_damaged_export_is_refused(recipe: Path) -> None:
    twin = recipe.parent / "build" / "tiny" / "export" / "network.tflite"
    twin.write_bytes(twin.read_bytes()[:-1] + b"?")
    with pytest.raises(ArtifactError, match="is damaged"):
        exact(ExactOrder(order(recipe), (), {}))


def test_the_command_line(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["exact", str(recipe), "--build", str(recipe.parent / "build"), "--images", "3", "--targets", "none"]
    assert main(arguments) == 0
    assert "over 3 images between simulator, compiled C, tflite-micro, LiteRT ref," in capsys.readouterr().out


@pytest.mark.parametrize("seed", [0, 1])
def test_a_network_of_every_operator_is_exact_everywhere(tmp_path: Path, seed: int) -> None:
    """Depthwise, clamps, addition, pools and a linear layer with random weights, down to the emulated Cortex-M4."""
    content = mixed_file(np.random.default_rng(seed), classes=10)
    recipe = build_recipe(tmp_path, content, ("host", "netduinoplus2"))
    exact(plan_targets(order(recipe, 60), ["host", "unicorn"]))
    pairs = report(recipe)["exact"]
    assert isinstance(pairs, list) and len(pairs) == 15
    assert all(p["bytes_compared"] == 600 and p["bytes_different"] == 0 for p in pairs)
    model = load_model(tmp_path / "build" / "tiny", load_recipe(recipe))
    operators = {node.op for node in model.graph.nodes}
    assert operators >= {"conv2d", "depthwise_conv2d", "add", "max_pool2d", "mean", "fully_connected"}
    _, images, _, _ = load_images(load_recipe(recipe), model, 60)
    assert len(np.unique(model.compiled(images))) > 20  # the answers are not all alike


@pytest.mark.long
@pytest.mark.parametrize("seed", range(20))
def test_many_random_networks_are_exact(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(1000 + seed)
    recipe = build_recipe(tmp_path, mixed_file(rng, classes=10), ("host", "netduinoplus2"))
    exact(plan_targets(order(recipe, None), None))
    pairs = report(recipe)["exact"]
    assert isinstance(pairs, list) and all(p["bytes_different"] == 0 and p["images"] == 360 for p in pairs)


def test_the_tolerance_table_says_what_it_is() -> None:
    text = tolerance_table([Agreement("simulator", "torch", 50, 500, 5, 2, 1)])
    assert text.startswith("tolerance only")
    assert "torch" in text and "5 of 500 bytes differ (1.00 %), by 2 at most; 1 of 50 classes differ" in text


def test_one_wrong_byte_in_any_implementation_is_seen(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original: Callable[..., np.ndarray] = host_tools.exact.tflite_micro_outputs

    def wrong(*arguments: object) -> np.ndarray:
        outputs = original(*arguments)
        outputs[19, 9] ^= 1
        return outputs

    monkeypatch.setattr(host_tools.exact, "tflite_micro_outputs", wrong)
    with pytest.raises(MismatchError, match="3 bytes differ"):
        exact(plan_targets(order(recipe), []))
