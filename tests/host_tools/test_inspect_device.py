"""info, selftest and layers, on the real firmware of board `host` and on a board that lies in one layer."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from built_recipe import copy_recipe
from graph_board import GraphBoard, who

import host_tools.inspect_device
from firmware_export.board import load_board
from firmware_export.graph import Array
from host_tools.__main__ import main
from host_tools.compare import MismatchError
from host_tools.errors import LinkError
from host_tools.inspect_device import inspect_layers, print_hello, print_selftest
from host_tools.link import Link
from host_tools.model import load_model
from host_tools.run import Order
from recipes.artifacts import ArtifactError, UsageError
from recipes.recipe import load_recipe


def order(built: Path) -> Order:
    return Order(load_recipe(built), ("tiny",), load_board("host"), "host", built.parent / "build" / "tiny", None)


@pytest.fixture
def put_on(monkeypatch: pytest.MonkeyPatch, built: Path) -> Callable[..., GraphBoard]:
    """Makes every target lead to a board in Python."""

    def put(**options: object) -> GraphBoard:
        model = load_model(built.parent / "build" / "tiny", load_recipe(built))
        board = GraphBoard(model.graph, **{**who(model.export.parent), **options})  # type: ignore[arg-type]
        monkeypatch.setattr(host_tools.inspect_device, "open_target", lambda *_: board)
        monkeypatch.setattr(host_tools.inspect_device, "Link", partial(Link, clock=board.clock))
        return board

    return put


def test_info_tells_what_the_board_says(
    built: Path, put_on: Callable[..., GraphBoard], capsys: pytest.CaptureFixture[str]
) -> None:
    board = put_on(errors=(2, 4))
    print_hello(order(built))
    lines = dict(line.split(None, 1) for line in capsys.readouterr().out.splitlines())
    assert lines["board"] == "host" and lines["core"] == "python" and lines["clock"] == "16 MHz"
    assert lines["model"] == board.graph.hash() and lines["arithmetic"] == "double" and lines["layers"] == "3"
    assert lines["stack"] == "4,096 bytes reserved"
    assert lines["input"].startswith("0      int8 1x8x8x1, 64 bytes, real = 0.00392156886 * (stored - -128)")
    assert "1,002 frames, 2 damaged, 4 bytes overrun" in lines["since"] and lines["since"].endswith("stack used 321 bytes")


def test_the_real_firmware_from_the_command_line(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [str(built), "--build", str(built.parent / "build"), "--target", "host"]
    assert main(["selftest", *words]) == 0
    assert main(["info", *words]) == 0
    assert main(["layers", *words, "--image", "359"]) == 0
    text = capsys.readouterr().out
    assert "selftest: host on host gives the known answers of TFLite Micro" in text
    assert "clock        unknown" in text
    assert "layers: all 3 layers of image 359 identical on host" in text


def test_a_failing_selftest(built: Path, put_on: Callable[..., GraphBoard]) -> None:
    put_on(selftest_status=3)
    with pytest.raises(MismatchError, match=r"gets a known answer wrong.*host_tools layers tiny --board host --target host"):
        print_selftest(order(built))


@pytest.mark.parametrize("look", [print_hello, print_selftest, lambda asked: inspect_layers(asked, 0)])
@pytest.mark.parametrize("lie", [{"build_id": "fe" * 8}, {"name": "another"}])
def test_another_board_or_image_is_refused(
    built: Path,
    put_on: Callable[..., GraphBoard],
    capsys: pytest.CaptureFixture[str],
    look: Callable[[Order], None],
    lie: dict[str, str],
) -> None:
    put_on(**lie)
    with pytest.raises(LinkError, match="answers, expected host with build") as caught:
        look(order(built))
    assert caught.value.exit_code == 5
    shown = capsys.readouterr().out
    assert next(iter(lie.values())) in shown if look is print_hello else shown == ""


LOOKS = ["info", "selftest", "layers"]


@pytest.mark.parametrize("name", ["export/network_data.c", "firmware/host/firmware", "firmware/host/image.json"])
@pytest.mark.parametrize("command", LOOKS)
def test_a_damaged_file_is_not_used(built: Path, tmp_path: Path, command: str, name: str) -> None:
    recipe = copy_recipe(built, tmp_path)
    path = tmp_path / "build" / "tiny" / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ArtifactError, match=rf"{path.name} is damaged: SHA-256"):
        main([command, str(recipe), "--build", str(tmp_path / "build"), "--target", "host"])


@pytest.mark.parametrize("command", LOOKS)
def test_firmware_that_is_not_built_is_named(built: Path, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ArtifactError, match=r"build it with: python -m firmware_export .* --board nucleo_f446re"):
        main([command, str(built), "--build", str(built.parent / "build"), "--board", "nucleo_f446re"])
    assert capsys.readouterr().out == ""


def wrong_element(layer: int, output: Array) -> Array:
    if layer == 1:
        output = output.copy()
        output[0, 0, 0, 4] = 99
    return output


def test_layers_names_the_first_wrong_element(
    built: Path, put_on: Callable[..., GraphBoard], capsys: pytest.CaptureFixture[str]
) -> None:
    put_on(lie=wrong_element)
    with pytest.raises(MismatchError) as caught:
        inspect_layers(order(built), 3)
    sentence = str(caught.value)
    assert sentence.startswith("image 3 on host: layer 1 (conv2d) is the first that differs: output 0 at [0, 0, 0, 4] of")
    assert "is 99, expected " in sentence and "1 of 10 elements differ" in sentence
    table = capsys.readouterr().out.splitlines()
    assert [line.split()[-1] for line in table[1:]] == ["same", "DIFFERS", "same"]


def test_there_is_no_such_image(built: Path) -> None:
    with pytest.raises(UsageError, match="--image 360: the test images are 0 to 359"):
        inspect_layers(order(built), 360)
