"""The command line: commands, options, one-line errors with their exit codes."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from built_recipe import copy_recipe

import host_tools.__main__ as program
from firmware_export.__main__ import main as firmware_export_main
from firmware_export.graph import GraphError
from firmware_export.toolchain import ToolchainError
from host_tools.__main__ import COMMANDS, main
from host_tools.compare import MismatchError
from host_tools.errors import LinkError
from host_tools.run import Order
from recipes.artifacts import ArtifactError, DataError, PipelineError, UsageError, run_program


@pytest.fixture
def recipe(built: Path, tmp_path: Path) -> Path:
    return copy_recipe(built, tmp_path)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Order]:
    """What the run stage is asked to do, without doing it."""
    orders: list[Order] = []
    monkeypatch.setattr(program, "run", orders.append)
    return orders


def process(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The program as a person starts it."""
    return subprocess.run([sys.executable, "-m", "host_tools", *arguments], capture_output=True, text=True, timeout=120)


def test_help_tells_every_command_and_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["--help"])
    assert left.value.code == 0
    text = capsys.readouterr().out
    for name in COMMANDS:
        assert f"  {name} " in text
    for code, meaning in (("4", "artifact"), ("5", "port"), ("7", "fit"), ("10", "answers differ"), ("130", "interrupted")):
        assert any(code in line.split() and meaning in line for line in text.split("\n")), code
    assert "serial:PORT[:BAUD]" in text and "--images" in text


@pytest.mark.parametrize("command", [c for c in COMMANDS if c != "run"])
def test_every_command_has_its_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    text = capsys.readouterr().out
    assert f"python -m host_tools {command}" in text and "exit codes:" in text


def test_the_options_become_an_order(recipe: Path, asked: list[Order]) -> None:
    build = str(recipe.parent / "build")
    words = [
        str(recipe),
        "data.limit=50",
        "--build",
        build,
        "--board",
        "nucleo_f446re",
        "--target",
        "serial:COM3",
        "--images",
        "9",
    ]
    assert main(words) == 0
    (order,) = asked
    assert (order.target, order.board.name, order.images) == ("serial:COM3", "nucleo_f446re", 9)
    assert order.recipe.data.limit == 50
    assert order.root == Path(build) / "tiny" and order.firmware == Path(build) / "tiny" / "firmware" / "nucleo_f446re"
    assert order.words == " ".join([*words[:4], *words[4:]])


def test_overrides_may_stand_anywhere(recipe: Path, asked: list[Order]) -> None:
    main([str(recipe), "--images", "2", "seed=5"])
    assert asked[0].recipe.seed == 5


@pytest.mark.parametrize(("options", "board"), [([], "netduinoplus2"), (["--target", "host"], "host")])
def test_the_board_follows_the_target(recipe: Path, asked: list[Order], options: list[str], board: str) -> None:
    main([str(recipe), *options])
    assert asked[0].board.name == board and asked[0].images is None


def test_the_recipe_decides_the_number_of_images(recipe: Path, asked: list[Order]) -> None:
    recipe.write_text(recipe.read_text() + "host_tools: {images: 77}\n")
    main([str(recipe)])
    main([str(recipe), "--images", "3"])
    assert [order.images for order in asked] == [77, 3]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required: RECIPE"),
        (["digits", "--images", "0"], "not a number from 1 on"),
        (["digits", "--images", "many"], "not a number from 1 on"),
        (["digits", "--nonsense"], "--nonsense"),
        (["digitz"], "did you mean 'digits'"),
        (["digits", "hosttools.images=3"], "did you mean 'host_tools'"),
        (["digits", "--board", "nucleo_f446"], "did you mean 'nucleo_f446re'"),
        (["layers", "digits", "--image", "-1"], "-1"),
        (["exact", "digits", "--targets", "unicron"], "did you mean 'unicorn'"),
        (["exact", "digits", "--targets", ""], "unknown target ''"),
        (["exact", "digits", "--targets", "host,"], "unknown target ''"),
    ],
)
def test_wrong_options_are_one_line_and_code_two(arguments: list[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        main(arguments)
    assert message in str(caught.value) and caught.value.exit_code == 2


def test_a_process_ends_with_one_line_and_the_code(recipe: Path) -> None:
    build = ["--build", str(recipe.parent / "build")]
    for arguments, code in (
        (["nothing"], 2),
        ([str(recipe), *build, "--target", "unicorn"], 4),
        (["info", str(recipe), *build, "--target", "serial:/dev/no_such_port"], 5),
    ):
        ended = process(*arguments)
        assert ended.returncode == code, ended.stderr
        assert ended.stderr.startswith("error: ") and ended.stderr.count("\n") == 1
        assert "Traceback" not in ended.stderr


def unavailable(*_: object) -> None:
    """Stands for a look-up that finds nothing."""


def test_an_emulator_that_is_not_installed_is_code_eight(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = copy_recipe(built, tmp_path)
    words = [str(recipe), "--build", str(tmp_path / "build")]
    assert firmware_export_main([*words, "--board", "netduinoplus2"]) == 0
    monkeypatch.setattr("shutil.which", unavailable)
    with pytest.raises(ToolchainError, match="qemu-system-arm not found; install") as caught:
        main(["info", *words, "--target", "qemu"])
    assert caught.value.exit_code == 8


def test_missing_data_is_code_three(recipe: Path, tmp_path: Path) -> None:
    words = [str(recipe), "--build", str(recipe.parent / "build"), "--target", "host"]
    with pytest.raises(DataError) as caught:
        main([*words, "data.name=fashion_mnist", f"data.folder={tmp_path / 'nowhere'}"])
    assert caught.value.exit_code == 3 and "\n" not in str(caught.value)


def test_an_unknown_data_set_is_code_two(recipe: Path) -> None:
    words = [str(recipe), "--build", str(recipe.parent / "build"), "--target", "host"]
    with pytest.raises(UsageError, match="digits"):
        main([*words, "data.name=digitz"])


@pytest.mark.parametrize("command", ["run", "layers", "info", "selftest"])
def test_a_recipe_that_is_not_built_is_code_four(recipe: Path, tmp_path: Path, command: str) -> None:
    with pytest.raises(ArtifactError, match="not found") as caught:
        main([command, str(recipe), "--build", str(tmp_path / "empty"), "--target", "host"])
    assert caught.value.exit_code == 4
    assert not list((tmp_path / "empty").rglob("results.json"))


def test_a_busy_port_is_one_line(recipe: Path) -> None:
    """Another program that has locked the port, as pyserial and most terminals do."""
    ours, theirs = os.openpty()
    try:
        fcntl.flock(theirs, fcntl.LOCK_EX)
        words = [str(recipe), "--build", str(recipe.parent / "build"), "--board", "host"]
        with pytest.raises(LinkError, match="in use by another program") as caught:
            main(["info", *words, "--target", f"serial:{os.ttyname(theirs)}"])
        assert caught.value.exit_code == 5
    finally:
        os.close(ours)
        os.close(theirs)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError, 2),
        (DataError, 3),
        (ArtifactError, 4),
        (LinkError, 5),
        (GraphError, 6),
        (ToolchainError, 8),
        (MismatchError, 10),
    ],
)
def test_every_error_leaves_with_its_code_and_one_line(
    error: type[PipelineError], code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(_: object) -> None:
        raise error("what was found;\n what to do")

    monkeypatch.setattr(program, "run", fails)
    monkeypatch.setattr(sys, "argv", ["host_tools", "digits", "--target", "host"])
    with pytest.raises(SystemExit) as left:
        run_program(main)
    assert left.value.code == code
    assert capsys.readouterr().err == "error: what was found; what to do\n"


def test_a_target_that_does_not_go_with_the_board(recipe: Path) -> None:
    build = ["--build", str(recipe.parent / "build")]
    with pytest.raises(UsageError):
        main([str(recipe), *build, "--board", "host", "--target", "unicorn"])
    with pytest.raises(UsageError, match="did you mean 'unicorn'"):
        main([str(recipe), *build, "--board", "host", "--target", "unicon"])


def test_ports_are_listed_those_on_usb_first(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    onboard = SimpleNamespace(device="/dev/ttyS0", description="n/a", vid=None)
    probe = SimpleNamespace(device="/dev/ttyACM0", description="ST-Link VCP", vid=0x0483)
    monkeypatch.setattr(program, "comports", lambda: [onboard, probe])
    assert main(["ports"]) == 0
    assert capsys.readouterr().out == "/dev/ttyACM0  ST-Link VCP\n/dev/ttyS0  n/a\n"
    monkeypatch.setattr(program, "comports", list)
    assert main(["ports"]) == 0
    assert "no serial port is plugged in" in capsys.readouterr().out
