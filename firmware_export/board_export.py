"""The generated C for one board: the export that all boards of a core share, or one whose activations lie in two regions."""

from __future__ import annotations

import json
from pathlib import Path

from firmware_export.board import Board
from firmware_export.export import export_model
from firmware_export.fit import activation_rooms
from firmware_export.plan import RegionsError
from firmware_export.target import Target
from recipes.recipe import FirmwareExportSection


def generated_for(board: Board, export: Path, work: Path, section: FirmwareExportSection, model: Path) -> Path:
    """The folder whose C is to be built for a board.

    Args:
        export: the generated C for the board's core, all activations in one buffer.
        work: where a folder `export` is made if the board's region is too small for them and it has a second one.
        model: what `export` was made of.
    Returns:
        `export`, or the new folder: the same layers with other offsets.
    Raises:
        RegionsError: the activations fit neither the first region nor both.
    """
    if not board.activations_overflow:
        return export
    rooms = activation_rooms(board)
    info = json.loads((export / f"{section.name}_c_info.json").read_text())
    if info["memory"]["activations_bytes"] <= rooms[0]:
        return export
    folder = work / "export"
    folder.mkdir(parents=True)
    try:
        export_model(model, folder, section, Target.of(board.core, section.optimize), rooms)
    except RegionsError as error:
        names = (board.activations, board.activations_overflow)
        raise RegionsError(error.needed, error.rooms, [f"{board.name}'s {name}" for name in names]) from None
    return folder
