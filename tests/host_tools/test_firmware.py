"""Firmware folders: every file as it was built, and only the board and image that were asked for may answer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from built_recipe import copy_recipe

from firmware_export.board import load_board
from host_tools.errors import LinkError
from host_tools.firmware import build_id_of, check_answering_board, stage_files, verify_stage
from host_tools.messages import Hello
from recipes.artifacts import ArtifactError

BUILD_ID = "0123456789abcdef"


@pytest.fixture
def firmware(built: Path, tmp_path: Path) -> Path:
    """The firmware of board `host` of a copied recipe."""
    return copy_recipe(built, tmp_path).parent / "build" / "tiny" / "firmware" / "host"


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A folder with a description of an image and no manifest."""
    (tmp_path / "image.json").write_text(json.dumps({"build_id": BUILD_ID}))
    return tmp_path


def hello(board: str, build_id: str = BUILD_ID) -> Hello:
    return Hello(1, 512, 7, "00" * 32, "double", 3, 16_000_000, 4096, board, "cortex-m4", build_id, "cycles", (), ())


def test_the_right_board_with_the_right_image_may_answer(image: Path) -> None:
    check_answering_board(hello("nucleo_f446re"), load_board("nucleo_f446re"), image, "serial:/dev/ttyACM0")


def test_another_image_is_refused_with_how_to_flash_the_right_one(image: Path) -> None:
    with pytest.raises(LinkError) as caught:
        check_answering_board(hello("nucleo_f446re", "fe" * 8), load_board("nucleo_f446re"), image, "serial:/dev/ttyACM0")
    text = str(caught.value)
    assert caught.value.exit_code == 5 and "\n" not in text
    assert text.startswith(
        f"serial:/dev/ttyACM0: nucleo_f446re with build {'fe' * 8} answers, expected nucleo_f446re with build {BUILD_ID}; "
    )
    assert f"flash {image} (copy firmware.bin to the drive NODE_F446RE" in text and "choose --board" not in text


def test_another_board_is_refused_with_how_to_choose_it(image: Path) -> None:
    with pytest.raises(LinkError, match=r"choose --board nucleo_f103rb or flash .*NODE_F446RE"):
        check_answering_board(hello("nucleo_f103rb"), load_board("nucleo_f446re"), image, "serial:COM7")


def test_a_process_is_built_again_not_flashed(image: Path) -> None:
    with pytest.raises(LinkError, match=rf"; build {image} again$"):
        check_answering_board(hello("host", "fe" * 8), load_board("host"), image, "host")


def test_the_build_id_is_that_of_the_firmware(firmware: Path) -> None:
    assert build_id_of(firmware).encode() in (firmware / "firmware").read_bytes()


@pytest.mark.parametrize("content", ["", "[]", "3", "{}", '"text"', '{"build_id"'])
def test_a_description_that_is_none_is_refused(image: Path, content: str) -> None:
    (image / "image.json").write_text(content)
    with pytest.raises(ArtifactError, match=r"image\.json is damaged"):
        build_id_of(image)


def test_a_description_that_was_changed_is_refused(firmware: Path) -> None:
    path = firmware / "image.json"
    path.write_text(path.read_text().replace(build_id_of(firmware), BUILD_ID))
    with pytest.raises(ArtifactError, match=r"image\.json is damaged: SHA-256"):
        build_id_of(firmware)


def test_every_file_of_a_stage_is_verified(firmware: Path) -> None:
    verify_stage(firmware)
    assert {path.name for path in stage_files(firmware)} == {"firmware", "image.json"}
    for path in stage_files(firmware):
        before = path.read_bytes()
        path.write_bytes(before[:-1])
        with pytest.raises(ArtifactError, match=rf"{path.name} is damaged"):
            verify_stage(firmware)
        path.unlink()
        with pytest.raises(ArtifactError, match=rf"{path.name} not found"):
            verify_stage(firmware)
        path.write_bytes(before)


def test_a_stage_that_was_not_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"manifest\.json not found: run the stage 'host' first"):
        verify_stage(tmp_path / "host")
