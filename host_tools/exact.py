"""The stage `exact`: one model, the same images, every implementation; 0 bytes may differ between any two.

Compared are the numpy simulator, the compiled C, TensorFlow Lite Micro (tflite-micro wheel), LiteRT's reference kernels
and the firmware on emulated boards. onnxruntime and torch requantize in float: they are told as tolerances beside it.
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from firmware_export.board import load_board
from firmware_export.image import build_image
from firmware_export.progress import progress
from firmware_export.target import export_stage
from firmware_export.toolchain import ToolchainError, host_toolchain
from host_tools.board import open_target
from host_tools.compare import Agreement, Int8, MismatchError, agreement, all_pairs, pairs_table
from host_tools.fake_quant import fake_quant_outputs
from host_tools.firmware import check_answering_board, stage_files
from host_tools.link import Link
from host_tools.model import INT8_ONNX, Model, load_model, simulated
from host_tools.oracles import Advance, litert_outputs, litert_reference_outputs, onnxruntime_outputs, tflite_micro_outputs
from host_tools.run import Order, base_config, firmware_files, load_images
from host_tools.stream import stream
from recipes.artifacts import (
    PipelineError,
    Stage,
    package_versions,
    write_json_atomic,
    write_text_atomic,
)

EXACT, TABLE = "exact.json", "table.txt"
DEFAULT_TARGETS = ("host", "unicorn", "qemu")
PAIR = " / "
LINK_IMAGES = 1000
"""A serial line takes milliseconds per image: a target behind one answers at most so many of them."""


@dataclass(frozen=True)
class ExactOrder:
    """What to compare: an order for its recipe and images, one more for each target on which the firmware runs."""

    order: Order
    runs: tuple[Order, ...]
    left_out: dict[str, str]
    """Targets that are not compared, and why."""


def plan_targets(order: Order, targets: Sequence[str] | None) -> ExactOrder:
    """One order for each target; None takes this computer and every emulator of the board that is installed here.

    Raises:
        ArtifactError: the board's firmware is not built; the message names the command that does it.
        LinkError, ToolchainError, UsageError: a target that was asked for cannot be run.
    """
    runs, left_out = [], {}
    for target in DEFAULT_TARGETS if targets is None else targets:
        run = replace(order, target=target, board=load_board("host") if target == "host" else order.board)
        try:
            check_program(run)
        except PipelineError as error:
            if targets is not None:
                raise
            left_out[target] = str(error)
            continue
        if not run.board.is_host:
            firmware_files(run)
        runs.append(run)
    return ExactOrder(replace(order, target="host") if order.board.is_host else order, tuple(runs), left_out)


def check_program(run: Order) -> None:
    """Whether the target's program is here and knows the board; says nothing of the firmware.

    Raises:
        UsageError, LinkError: the target does not run, or does not emulate, this board.
        ToolchainError: the emulator is not installed.
    """
    open_target(run.target, run.board, run.firmware)
    if run.target == "unicorn" and importlib.util.find_spec("unicorn") is None:
        raise ToolchainError("the Python package unicorn is not installed; run `pip install -r requirements.txt`")
    if run.target == "qemu" and shutil.which("qemu-system-arm") is None:
        raise ToolchainError("qemu-system-arm not found; install qemu-system-arm")


def exact(request: ExactOrder) -> None:
    """Runs the stage, unless it is unchanged.

    Raises:
        MismatchError: some byte differs between two implementations; exact.json is written first.
        ArtifactError: an earlier stage is missing or damaged.
    """
    root = request.order.root
    with Stage(root, "exact", _config(request), _inputs(request)) as stage:
        if stage.unchanged:
            print((stage.folder / TABLE).read_text(), end="")
            print(stage.again(), flush=True)
        else:
            _compare_everything(request, stage)
        figures = stage.manifest["figures"]
    different = figures["bytes_different"]
    if different:
        told = _suspect(request, figures["pairs"])
        raise MismatchError(
            f"{different:,} bytes differ between implementations that must agree: {', '.join(figures['pairs'])}; "
            f"find the layer with: python -m host_tools layers {told.words}"
        )


def _suspect(request: ExactOrder, pairs: Sequence[str]) -> Order:
    """The first firmware that is one of a differing pair."""
    differing = {name for pair in pairs for name in pair.split(PAIR)}
    return next((run for run in request.runs if run.target in differing), request.order)


def _config(request: ExactOrder) -> dict[str, Any]:
    targets = {run.target: run.board.name for run in request.runs}
    image = {"toolchain": host_toolchain().label, "compiler_level": request.order.recipe.firmware_export.compiler_level}
    return {**base_config(request.order), "targets": targets, "left_out": request.left_out, "host": image}


def _inputs(request: ExactOrder) -> list[Path]:
    root = request.order.root
    built = [run for run in request.runs if not run.board.is_host]
    firmware = {path: None for run in built for path in firmware_files(run)}
    return [root / "compress" / INT8_ONNX, *stage_files(root / export_stage(request.order.board.core)), *firmware]


def _compare_everything(request: ExactOrder, stage: Stage) -> None:
    order = request.order
    model = load_model(order.root, order.recipe, order.board.core)
    _, images, _, _ = load_images(order.recipe, model, order.images)
    answers = {name: _timed(name, run, images) for name, run in implementations(model).items()}
    for run in request.runs:
        firmware = host_firmware(run, model.export, stage.work / "host") if run.board.is_host else run.firmware
        answers[run.target] = device_answers(run, firmware, model, images[:LINK_IMAGES], stage.work)
    pairs = all_pairs(answers)
    tolerance = [
        agreement("simulator", answers["simulator"], "onnxruntime", onnxruntime_outputs(model.onnx, images, model.output)),
        agreement("simulator", answers["simulator"], "torch", fake_quant_outputs(model.onnx, images, model.output)),
    ]
    left_out = "".join(f"{target} is left out: {reason}\n" for target, reason in request.left_out.items())
    text = f"{pairs_table(pairs)}\n{left_out}{tolerance_table(tolerance)}\n"
    print(text, end="", flush=True)
    write_text_atomic(stage.work / TABLE, text)
    write_json_atomic(stage.work / EXACT, _report(request, model, pairs, tolerance))
    stage.finish(_figures(pairs), _summary(pairs, len(images), stage.folder))


def implementations(model: Model) -> dict[str, Callable[[Int8, Advance], Int8]]:
    """Everything that runs in this process and must give the same bytes; the outside runtimes are those of its arithmetic."""
    own: dict[str, Callable[[Int8, Advance], Int8]] = {
        "simulator": lambda images, advance: simulated(model.graph, images, advance),
        "compiled C": lambda images, advance: model.compiled(images),
    }
    if model.graph.arithmetic == "float32":
        return own | {"LiteRT": lambda images, advance: litert_outputs(model.graph, model.twin, images, advance)}
    return own | {
        "tflite-micro": lambda images, advance: tflite_micro_outputs(model.graph, model.twin, images, advance),
        "LiteRT ref": lambda images, advance: litert_reference_outputs(model.graph, images, advance),
    }


def _timed(name: str, run: Callable[[Int8, Advance], Int8], images: Int8) -> Int8:
    with progress(name, len(images)) as advance:
        return run(images, advance)


def host_firmware(run: Order, export: Path, folder: Path) -> Path:
    """Builds the firmware of board `host` from the export into `folder`: it takes a second and is never an old one."""
    build_image(run.board, export, folder, host_toolchain(), run.recipe.firmware_export.compiler_level)
    return folder


def device_answers(run: Order, firmware: Path, model: Model, images: Int8, work: Path) -> Int8:
    """The firmware's answers int8 [n, outputs] over its serial line; an interrupted run goes on where it stopped.

    Args:
        firmware: the folder of the image. work: where the answers are kept until all have come.
    """
    transport = open_target(run.target, run.board, firmware)
    with Link(transport, model.expected()) as link, progress(run.target, len(images)) as advance:
        check_answering_board(link.hello, run.board, firmware, run.target)
        return stream(link, images, work / f"{run.target}.txt", advance).outputs.reshape(len(images), -1)


def tolerance_table(rows: Sequence[Agreement]) -> str:
    """Agreement with runtimes of another arithmetic, marked as what it is."""
    lines = ["tolerance only (these requantize in float; never part of exactness):"]
    for row in rows:
        share = 100 * row.bytes_different / row.bytes_compared
        lines.append(
            f"  {row.second:<14}{row.bytes_different:,} of {row.bytes_compared:,} bytes differ ({share:.2f} %), "
            f"by {row.largest_difference} at most; {row.classes_different} of {row.images:,} classes differ"
        )
    return "\n".join(lines)


def _report(request: ExactOrder, model: Model, pairs: list[Agreement], tolerance: list[Agreement]) -> dict[str, Any]:
    return {
        "version": 1,
        "recipe": request.order.recipe.name,
        "boards": {run.target: run.board.name for run in request.runs},
        "left_out": request.left_out,
        "model_hash": model.hash,
        "arithmetic": model.graph.arithmetic,
        "exact": [asdict(pair) for pair in pairs],
        "tolerance": [asdict(row) for row in tolerance],
        "versions": package_versions(),
    }


def _figures(pairs: Sequence[Agreement]) -> dict[str, Any]:
    different = [pair for pair in pairs if not pair.exact]
    return {
        "bytes_compared": sum(pair.bytes_compared for pair in pairs),
        "bytes_different": sum(pair.bytes_different for pair in different),
        "pairs": [f"{pair.first}{PAIR}{pair.second}" for pair in different],
    }


def _summary(pairs: Sequence[Agreement], images: int, folder: Path) -> str:
    figures = _figures(pairs)
    names = list(dict.fromkeys([p.first for p in pairs] + [p.second for p in pairs]))
    return (
        f"exact: {figures['bytes_different']:,} of {figures['bytes_compared']:,} bytes differ over {images:,} images between "
        f"{', '.join(names)}, table in {folder / EXACT}"
    )
