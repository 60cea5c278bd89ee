"""The firmware in an artifact folder: its files as their stage wrote them, and whether it is what answers on the line."""

from __future__ import annotations

import json
from pathlib import Path

from firmware_export.board import Board
from host_tools.errors import LinkError
from host_tools.messages import Hello
from recipes.artifacts import ArtifactError, read_manifest, verified_hash

IMAGE = "image.json"


def stage_files(folder: Path) -> list[Path]:
    """Every file that a stage has made. Raises ArtifactError when it has not been run."""
    return [folder / name for name in read_manifest(folder)["outputs"]]


def verify_stage(folder: Path) -> None:
    """Compares every file of a stage with its manifest.

    Raises:
        ArtifactError: the stage has not been run, or one of its files is missing or damaged.
    """
    for path in stage_files(folder):
        verified_hash(path)


def build_id_of(folder: Path) -> str:
    """The build id of the image in a folder, which its firmware tells in its hello.

    Raises:
        ArtifactError: image.json is missing or damaged.
    """
    path = folder / IMAGE
    verified_hash(path)
    try:
        return str(json.loads(path.read_bytes())["build_id"])
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{path} is damaged ({type(error).__name__}); build the firmware again") from None


def check_answering_board(hello: Hello, board: Board, folder: Path, target: str) -> None:
    """Makes sure that figures of a board and its image come from that board and that image.

    Args:
        hello: who answers on `target`.
        folder: where the image lies that was built for `board`.
    Raises:
        LinkError: another board answers, or other firmware runs on it.
        ArtifactError: the image is missing or damaged.
    """
    build_id = build_id_of(folder)
    if (hello.board, hello.build_id) == (board.name, build_id):
        return
    flash = f"flash {folder} ({board.flash_hint})" if board.flash_hint else f"build {folder} again"
    advice = f"choose --board {hello.board} or {flash}" if hello.board != board.name else flash
    raise LinkError(
        f"{target}: {hello.board} with build {hello.build_id} answers, expected {board.name} with build {build_id}; {advice}"
    )
