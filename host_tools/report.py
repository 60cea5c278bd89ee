"""Gathers what the stages left and writes report.html beside results.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from firmware_export.board import Board, load_board
from firmware_export.target import export_stage
from host_tools.model import read_info
from host_tools.report_page import LayerRow, Report, Step, page
from host_tools.report_pictures import MemoryUse, PlannedTensor
from host_tools.results import Answers, Results, read_answers, read_results
from recipes.artifacts import (
    MANIFEST,
    ArtifactError,
    BuildLock,
    manifest_digest,
    read_manifest,
    sha256_file,
    verified_hash,
    write_json_atomic,
    write_text_atomic,
)
from recipes.recipe import Recipe
from train.data import load_dataset

REPORT = "report.html"


def write_report(
    folder: Path, root: Path, name: str, results: Results, answers: Answers, images: npt.NDArray[np.uint8]
) -> Path:
    """Writes folder/report.html.

    Args:
        root: build/<recipe>, whose stages the page tells of.
        name: prefix of the generated files.
        images: uint8 [n, h, w, c], the test images in the order of the answers.
    Raises:
        ArtifactError: an earlier stage is missing or damaged, or the page cannot be written.
    """
    board = load_board(results.board)
    info = read_info(root / export_stage(board.core), name)
    report = Report(
        results=results,
        answers=answers,
        images=images,
        steps=accuracy_steps(read_manifest(root / "compress")["figures"], results),
        memory=memory_uses(board, results, info),
        plan=planned_tensors(info),
        layers=layer_rows(info),
    )
    write_text_atomic(folder / REPORT, page(report))
    return folder / REPORT


def rebuild_report(folder: Path, root: Path, recipe: Recipe) -> Path:
    """Writes report.html again from the results of a finished run, which stays finished: its manifest follows the new page.

    Raises:
        ArtifactError: there is no such run, its files are damaged, or what it was made from has changed since.
    """
    name = recipe.firmware_export.name
    with BuildLock(root):
        results, answers = read_results(folder), read_answers(folder)
        manifest = verified_run(folder, root, name, load_board(results.board).core)
        test = load_dataset(recipe.data, recipe.seed).test
        if not np.array_equal(test.labels[: results.images], answers.labels):
            raise ArtifactError(f"{folder} was made with other test images than data set {recipe.data.name} has; run it again")
        path = write_report(folder, root, name, results, answers, test.images[: results.images])
        manifest["outputs"][REPORT] = sha256_file(path)
        manifest["digest"] = manifest_digest(manifest)
        write_json_atomic(folder / MANIFEST, manifest)
    return path


def verified_run(folder: Path, root: Path, name: str, core: str) -> dict[str, Any]:
    """The manifest of a run whose results, and the earlier stages that the page tells of, are as the run left them.

    The page itself may be missing or damaged: it is about to be written.

    Raises:
        ArtifactError: another file is damaged, or an earlier stage has been run again since.
    """
    manifest = read_manifest(folder)
    for output in manifest["outputs"]:
        if output != REPORT:
            verified_hash(folder / output)
    for path in (root / "compress" / MANIFEST, root / export_stage(core) / f"{name}_c_info.json"):
        if verified_hash(path) != manifest["inputs"].get(path.relative_to(root).as_posix()):
            raise ArtifactError(f"{path} is not the one that {folder} was made from; do that run again")
    return manifest


def accuracy_steps(figures: dict[str, Any], results: Results) -> tuple[Step, ...]:
    """The steps of training and compression, then the int8 file in onnxruntime, the simulator and the board."""
    steps = [Step(s["name"], s["accuracy"], s["macs"], s["weights"]) for s in figures["steps"]]
    share = results.accuracy
    if share.int8_onnx is not None:
        steps.append(Step("int8 in onnxruntime", share.int8_onnx))
    return (*steps, Step("exact simulator", share.simulator), Step(f"device ({results.target})", share.device))


def memory_uses(board: Board, results: Results, info: dict[str, Any]) -> tuple[MemoryUse, ...]:
    """Flash and RAM of the image against what the board has; nothing for the board `host`."""
    flash, ram = results.flash_bytes, results.ram_bytes
    if board.is_host or flash is None or ram is None:
        return ()
    constants = min(int(info["constants_bytes"]), flash)
    activations, stack = min(results.activations_bytes, ram), results.stack_bytes or 0
    regions = {board.data, board.activations}
    return (
        MemoryUse("flash", (("weights and tables", constants), ("code", flash - constants)), board.code.size),
        MemoryUse(
            "RAM",
            (("activations", activations), ("stack, reserved", stack), ("link and variables", ram - activations)),
            sum(memory.size for memory in board.memory if memory.name in regions),
        ),
    )


def planned_tensors(info: dict[str, Any]) -> tuple[PlannedTensor, ...]:
    """Which bytes of the activation buffer hold what during which layers, from network_c_info.json."""
    blocks = info["blocks"]
    return tuple(
        PlannedTensor(
            block["name"],
            block["offset"],
            block["size"],
            block["first"],
            block["last"],
            tuple(blocks[number]["name"] for number in block["over"]),
        )
        for block in blocks
    )


def layer_rows(info: dict[str, Any]) -> tuple[LayerRow, ...]:
    """The layers table of the page."""
    return tuple(
        LayerRow(
            layer["index"], layer["operator"], layer["summary"], layer["macs"], layer["weights_bytes"], layer["output_bytes"]
        )
        for layer in info["layers"]
    )
