"""bench: rows for the host and for boards, against figures known otherwise; wrong answers and boards too small."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from built_recipe import copy_recipe
from graph_board import GraphBoard
from pydantic import ValidationError

import host_tools.bench
from firmware_export.board import Board, Memory, load_board
from host_tools.__main__ import main
from host_tools.bench import Row, bench, board_row, host_row, seconds_per_image, summary, table
from host_tools.compare import MismatchError
from host_tools.errors import LinkError
from host_tools.model import Model, load_model
from recipes.artifacts import ArtifactError, UsageError
from recipes.recipe import Recipe, load_recipe

IMAGES = np.zeros((3, 1, 1, 1), np.int8)


@pytest.fixture
def recipe(built: Path, tmp_path: Path) -> Path:
    return copy_recipe(built, tmp_path)


@pytest.fixture
def loaded(built: Path) -> tuple[Recipe, Model]:
    recipe = load_recipe(built)
    return recipe, load_model(built.parent / "build" / "tiny", recipe)


def only(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Leaves some boards and makes the timing short."""
    monkeypatch.setattr(host_tools.bench, "board_names", lambda: [*names, "host"])
    monkeypatch.setattr(host_tools.bench, "SECONDS_PER_TRIAL", 0.01)


def row(**changes: object) -> Row:
    values: dict[str, object] = {
        "model": "m",
        "board": "b",
        "core": "cortex-m4",
        "toolchain": "gcc 1",
        "arithmetic": "double",
        "optimize": "2",
        "macs": 1000,
        "weights_bytes": 10,
        "activation_bytes": 20,
    }
    return Row.model_validate({**values, **changes})


class Clock:
    """Time that passes only in `run`, so much for each image."""

    def __init__(self, seconds: list[float]) -> None:
        self.now, self.seconds, self.batches = 0.0, seconds, []

    def run(self, batch: np.ndarray) -> None:
        self.batches.append(len(batch))
        per_image = self.seconds.pop(0) if len(self.seconds) > 1 else self.seconds[0]
        self.now += per_image * len(batch)

    def __call__(self) -> float:
        return self.now


def test_time_per_image_is_that_of_the_fastest_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_tools.bench, "SECONDS_PER_TRIAL", 1.0)
    clock = Clock([0.5, 0.25, 0.125, 0.5])
    # One image takes 0.5 s: enough for a trial at once; the later trials take 0.25, 0.125, 0.5 and 0.5 s.
    assert seconds_per_image(clock.run, IMAGES, clock) == 0.125
    assert clock.batches == [1] * 5


def test_short_inferences_are_repeated_until_they_can_be_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_tools.bench, "SECONDS_PER_TRIAL", 1.0)
    clock = Clock([2.0**-12])
    assert seconds_per_image(clock.run, IMAGES, clock) == pytest.approx(2.0**-12)
    assert clock.batches[0] == 1 and clock.batches[-1] >= 2048
    assert len(set(clock.batches[-5:])) == 1


def test_a_clock_that_stands_still_at_first_does_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_tools.bench, "SECONDS_PER_TRIAL", 1.0)
    clock = Clock([0.0, 0.0, 2.0**-3])
    assert seconds_per_image(clock.run, IMAGES, clock) == 2.0**-3


def test_the_host_is_measured_and_checked(loaded: tuple[Recipe, Model], monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch)
    found = host_row(*loaded)
    assert (found.model, found.board, found.core, found.exact) == ("tiny", "host", "host", True)
    assert (found.macs, found.weights_bytes, found.arithmetic) == (1216, 732, "double")
    assert found.macs_per_second is not None and 1e6 < found.macs_per_second < 1e12
    assert found.flash_bytes is None and found.instructions is None


def test_a_board_is_built_run_and_checked(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    only(monkeypatch, "nucleo_f103rb")
    build = recipe.parent / "build"
    assert main(["bench", str(recipe), "--build", str(build)]) == 0
    rows = json.loads((build / "bench" / "bench.json").read_text())
    assert [r["board"] for r in rows] == ["host", "nucleo_f103rb"]
    board = rows[1]
    assert board["core"] == "cortex-m3" and board["exact"] is True
    assert board["flash_bytes"] == board["code_bytes"] + 802  # constants of the generated C, see network_report.txt
    assert 1216 < board["instructions"] < 100 * 1216
    assert 0 < board["stack_bytes"] < 4096
    text = capsys.readouterr().out
    assert "M MAC/s on one core of this computer (to reach: 50)" in text and "bench.json" in text


def test_the_figures_are_those_of_the_image_just_built(loaded: tuple[Recipe, Model], monkeypatch: pytest.MonkeyPatch) -> None:
    board = GraphBoard(loaded[1].graph, name="nucleo_g071rb", build_id="fe" * 8)
    monkeypatch.setattr(host_tools.bench, "open_target", lambda *_: board)
    with pytest.raises(LinkError, match="answers, expected nucleo_g071rb with build"):
        board_row(*loaded, load_board("nucleo_g071rb"), "auto")
    assert board.runs == 0


def test_both_compilers_give_exact_firmware(loaded: tuple[Recipe, Model]) -> None:
    """zig comes from PyPI; where gcc is not installed it is all there is."""
    found = board_row(*loaded, load_board("nucleo_g071rb"), "zig")
    assert found.toolchain.startswith("zig ") and found.core == "cortex-m0plus"
    assert found.exact is True and found.instructions is not None


def test_an_unknown_compiler_is_refused(loaded: tuple[Recipe, Model]) -> None:
    with pytest.raises(UsageError, match="unknown toolchain"):
        board_row(*loaded, load_board("nucleo_g071rb"), "clangg")


def smaller(board: Board, kind: str, size: int) -> Board:
    memory = tuple(
        Memory(name=m.name, kind=m.kind, origin=m.origin, size=size if m.kind == kind else m.size) for m in board.memory
    )
    return board.model_copy(update={"memory": memory})


def test_a_board_that_is_too_small_has_a_row_that_says_so(loaded: tuple[Recipe, Model]) -> None:
    found = board_row(*loaded, smaller(load_board("nucleo_f103rb"), "flash", 4096), "auto")
    assert found.flash_bytes is None and found.instructions is None and found.exact is None
    assert "does not fit nucleo_f103rb: FLASH needs" in found.note
    assert "does not fit" in table([found])


def test_a_board_that_cannot_be_emulated_still_has_its_sizes(loaded: tuple[Recipe, Model]) -> None:
    board = load_board("nucleo_f103rb")
    silent = board.model_copy(update={"emulator": board.emulator.model_copy(update={"unicorn": False})})
    found = board_row(*loaded, silent, "auto")
    assert found.flash_bytes is not None and found.exact is None and found.note == "not emulated"


def test_wrong_answers_are_written_then_refused(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch)
    right: Callable[[Model, np.ndarray], np.ndarray] = Model.compiled
    monkeypatch.setattr(Model, "compiled", lambda self, images: right(self, images) ^ np.int8(1))
    build = recipe.parent / "build"
    with pytest.raises(MismatchError, match="tiny on host") as caught:
        bench([load_recipe(recipe)], build)
    assert caught.value.exit_code == 10
    assert json.loads((build / "bench" / "bench.json").read_text())[0]["exact"] is False


def test_several_recipes_share_one_file(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch)
    build = recipe.parent / "build"
    shutil.copytree(build / "tiny", build / "second")
    second = recipe.with_name("second.yaml")
    second.write_text(recipe.read_text().replace("name: tiny", "name: second"))
    assert main(["bench", str(recipe), str(second), "--build", str(build)]) == 0
    rows = json.loads((build / "bench" / "bench.json").read_text())
    assert [(r["model"], r["board"], r["exact"]) for r in rows] == [("tiny", "host", True), ("second", "host", True)]


def test_every_key_that_later_figures_build_on_is_there() -> None:
    keys = {"model", "core", "toolchain", "arithmetic", "optimize", "instructions", "code_bytes", "weights_bytes"}
    assert keys | {"activation_bytes", "stack_bytes", "exact"} <= row().model_dump().keys()


def test_a_recipe_that_is_not_built_is_named(recipe: Path) -> None:
    with pytest.raises(ArtifactError, match=r"model_int8\.onnx not found"):
        bench([load_recipe(recipe)], recipe.parent / "elsewhere")


@pytest.mark.parametrize("name", ["network.c", "network.tflite", "network_selftest.c"])
def test_generated_files_that_were_changed_are_not_measured(recipe: Path, name: str) -> None:
    path = recipe.parent / "build" / "tiny" / "export" / name
    path.write_bytes(path.read_bytes() + b"\n")
    with pytest.raises(ArtifactError, match=rf"{name} is damaged"):
        bench([load_recipe(recipe)], recipe.parent / "build")


def test_bench_needs_a_recipe(recipe: Path) -> None:
    with pytest.raises(UsageError, match="at least one recipe"):
        main(["bench", "train.epochs=3"])
    with pytest.raises(UsageError, match="RECIPE"):
        main(["bench"])


def test_the_table_shows_what_is_known() -> None:
    full = row(instructions=4500, flash_bytes=20_000, ram_bytes=3_000, stack_bytes=500, exact=True)
    lines = table([full, row(board="host", macs_per_second=61.26e6, exact=False)]).split("\n")
    head = ["model", "board", "core", "toolchain", "instructions", "per", "MAC", "M", "MAC/s", "flash", "RAM", "stack", "exact"]
    assert lines[0].split() == head
    assert lines[1].split() == ["m", "b", "cortex-m4", "gcc", "1", "4,500", "4.50", "–", "20,000", "3,000", "500", "yes"]
    assert lines[2].split() == ["m", "host", "cortex-m4", "gcc", "1", "–", "–", "61.3", "–", "–", "–", "NO"]


def test_the_closing_line_tells_every_model() -> None:
    rows = [row(model="a", macs_per_second=51e6), row(model="a"), row(model="b", macs_per_second=40e6)]
    text = summary(rows, Path("build/bench/bench.json"))
    assert text == (
        "bench: a 51.0 M MAC/s on one core of this computer, b 40.0 M MAC/s on one core of this computer "
        "(to reach: 50), figures in build/bench/bench.json"
    )


@pytest.mark.parametrize("changes", [{"macs": -1}, {"macs_per_second": float("inf")}, {"unknown": 1}])
def test_rows_that_cannot_be_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        row(**changes)
