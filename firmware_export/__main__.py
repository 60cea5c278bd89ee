"""Int8 model in, C and firmware out: runs the stage `export` and, with --board, `firmware/<board>`.

A model file needs no recipe: its C is also run on inputs, and every answer compared with the simulator and TFLite Micro.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path

from firmware_export.analyze import analysis_text, analyze, tables_text
from firmware_export.board import Board, board_names, load_board
from firmware_export.board_export import generated_for
from firmware_export.export import export_model
from firmware_export.image import ImageReport, build_image, toolchain_for
from firmware_export.keras_model import convert_stage
from firmware_export.model_source import is_keras, is_model, model_files, recipe_of_model
from firmware_export.oracle import ORACLES
from firmware_export.own_model import ModelRun, compare_stage, emulate
from firmware_export.report import report_text
from firmware_export.target import GOALS, Target, export_stage
from recipes.artifacts import OneLineParser, Stage, UsageError, read_manifest, run_program, source_hash
from recipes.recipe import FirmwareExportSection, Recipe, load_recipe

INT8_MODEL = "compress/model_int8.onnx"
RECIPE_HELP = "a recipe (YAML file or bare name), or a model: int8 .onnx or .tflite, float .keras, .h5 or SavedModel folder"
EXAMPLES = """\
examples:
  python -m firmware_export digits                              build/digits/compress/model_int8.onnx -> build/digits/export
  python -m firmware_export digits --board nucleo_f446re        and build/digits/firmware/nucleo_f446re/firmware.elf
  python -m firmware_export model.tflite --analyze              operators, layers, memory, which boards it fits; builds nothing
  python -m firmware_export model.tflite --board nucleo_f446re  any int8 .tflite or .onnx file -> build/model, run and compared
  python -m firmware_export model.tflite --inputs x.npz         run on the arrays `x` (labels `y`: the accuracy is printed)
  python -m firmware_export model.keras --calibration c.npz     a float Keras model (.keras, .h5, SavedModel) first
  python -m firmware_export digits --optimize ram               the smallest activation buffer

In the export folder: <name>.c, <name>.h, <name>_data.c, <name>_data.h, <name>_selftest.c (known answers from TFLite
Micro), network_config.h, <name>.tflite (the same model for TFLite Micro and LiteRT), <name>_report.txt, <name>_c_info.json.

exit codes: 2 wrong recipe, option or board, 3 inputs missing or not the model's, 4 missing or damaged artifact, 6 model
damaged or not supported, 7 does not fit the board, 8 compiler missing or failed, 10 answers differ.
"""


def main(arguments: list[str]) -> int:
    """Runs the stages; returns the exit code."""
    options = _parser().parse_intermixed_args(arguments)
    board = None if options.board is None else load_board(options.board)
    chosen = {"optimize": options.optimize, "arithmetic": options.arithmetic}
    overrides = [*options.overrides, *(f"firmware_export.{key}={value}" for key, value in chosen.items() if value)]
    recipe, model = _recipe_and_model(options.recipe, overrides, Path(options.build))
    _check_calibration(model, options.calibration)
    if options.json and not options.analyze:
        raise UsageError("--json goes with --analyze")
    if options.check:
        label = toolchain_for(board, options.toolchain).label if board is not None else "no board"
        print(f"check: recipe {recipe.name}, {options.board or 'C sources only'}, {label}", flush=True)
        return 0
    root, section = Path(options.build) / recipe.name, recipe.firmware_export
    if is_keras(model):
        model = convert_stage(root, model, Path(options.calibration), _source())
    if options.analyze:
        analysis = analyze(model, section)
        print(json.dumps(analysis, indent=2) if options.json else analysis_text(analysis), flush=True)
        return 0
    given = is_model(Path(options.recipe))
    inputs = options.inputs and Path(options.inputs)
    export = root / export_stage("host" if board is None else board.core)
    run = ModelRun(model, export, section, inputs, options.images)
    if given:
        run.check()
    _export(root, model, section, "host" if board is None else board.core, tables=given)
    if board is not None:
        _firmware(root, board, options.toolchain, section, model)
    if not given and inputs is None:
        return 0
    compare_stage(root, run, _source())
    if board is None or not board.emulator.unicorn or not given:
        return 0
    return emulate([options.recipe, *overrides, "--build", options.build], board, run)


def _recipe_and_model(text: str, overrides: Iterable[str], build: Path) -> tuple[Recipe, Path]:
    """The recipe and its model; a model file stands for a recipe of its own name with the default settings."""
    if is_model(Path(text)):
        return recipe_of_model(Path(text), overrides), Path(text)
    recipe = load_recipe(text, overrides)
    return recipe, build / recipe.name / INT8_MODEL


def _check_calibration(model: Path, calibration: str | None) -> None:
    if is_keras(model) and calibration is None:
        raise UsageError(
            f"{model.name} is a float model; give inputs to quantize it with: --calibration c.npz (arrays as it takes them)"
        )
    if calibration is not None and not is_keras(model):
        raise UsageError(f"--calibration is for .keras, .h5 and SavedModel; {model.name} is int8 already")


def _export(root: Path, model: Path, section: FirmwareExportSection, core: str, *, tables: bool) -> None:
    """Runs the stage; with `tables` operators and boards are printed too."""
    config = {"firmware_export": section.model_dump(exclude={"compiler_level"}), "source": _source()}
    with Stage(root, export_stage(core), config, model_files(model)) as stage:
        if stage.unchanged:
            print(stage.again(), flush=True)
            return
        if tables:
            print(f"{tables_text(analyze(model, section))}\n", flush=True)
        info = export_model(model, stage.work, section, Target.of(core, section.optimize))
        print(report_text(info), flush=True)
        memory = info["memory"]["activations_bytes"]
        stage.finish(
            {key: info[key] for key in ("model_hash", "arithmetic", "macs", "weights_bytes", "constants_bytes", "memory")},
            f"{export_stage(core)}: {len(info['layers'])} layers, {info['macs']:,} MACs, "
            f"{info['weights_bytes']:,} bytes of weights, {memory:,} bytes of activations, "
            f"{section.selftest_vectors} known answers of {ORACLES[section.arithmetic]} equal; {stage.folder}",
        )


def _firmware(root: Path, board: Board, preference: str, section: FirmwareExportSection, model: Path) -> None:
    toolchain = toolchain_for(board, preference)
    export = root / export_stage(board.core)
    inputs = [export / name for name in read_manifest(export)["outputs"]]
    config = {"compiler_level": section.compiler_level, "toolchain": toolchain.label, "source": _source()}
    with Stage(root, f"firmware/{board.name}", config, inputs) as stage:
        if stage.unchanged:
            print(stage.again(), flush=True)
            return
        generated = generated_for(board, export, stage.work, section, model)
        report = build_image(board, generated, stage.work, toolchain, section.compiler_level)
        print(_memory_table(report), flush=True)
        sizes = f"flash {report.flash_bytes:,}, RAM {report.ram_bytes:,}, stack {report.stack_bytes:,} bytes"
        stage.finish(
            report.to_json(),
            f"firmware/{board.name}: {sizes}, {toolchain.label} -O{section.compiler_level}; {stage.folder / report.image.name}",
        )


def _memory_table(report: ImageReport) -> str:
    """One line for each memory region with its three largest contributors."""
    lines = []
    for region in report.regions:
        largest = ", ".join(f"{name} {size:,}" for name, size in region.largest)
        lines.append(f"{region.name:10} {region.used:>9,} of {region.size:>9,} bytes  {largest}".rstrip())
    return "\n".join(lines) or f"{report.board}: a process of this machine, no memory regions"


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number from 1 on")
    return int(text)


def _source() -> str:
    return source_hash(Path(__file__).parent)


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="python -m firmware_export",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("recipe", metavar="RECIPE", help=RECIPE_HELP)
    parser.add_argument(
        "overrides",
        metavar="section.key=value",
        nargs="*",
        default=[],
        help="changes of the recipe, such as firmware_export.name=net",
    )
    parser.add_argument("--build", metavar="DIR", default="build", help="folder of all artifacts (default: build)")
    parser.add_argument("--board", metavar="BOARD", help=f"build its firmware too: {', '.join(board_names())}")
    parser.add_argument(
        "--arithmetic", choices=("double", "float32"), help="the same as firmware_export.arithmetic=... (default: double)"
    )
    parser.add_argument("--optimize", choices=GOALS, help="the same as firmware_export.optimize=... (default: balanced)")
    parser.add_argument(
        "--toolchain", choices=("auto", "gcc", "zig"), default="auto", help="compiler for the boards (default: gcc, else zig)"
    )
    parser.add_argument("--analyze", action="store_true", help="print operators, layers, memory and boards; build nothing")
    parser.add_argument("--json", action="store_true", help="with --analyze: as JSON")
    parser.add_argument("--inputs", metavar="NPZ", help="run on these arrays (default for a model file: random inputs)")
    parser.add_argument("--calibration", metavar="NPZ", help="float inputs with which a Keras model is quantized")
    parser.add_argument("--images", metavar="N", type=_positive, help="run on the first N inputs only")
    parser.add_argument("--check", action="store_true", help="only check recipe, board and compiler")
    return parser


if __name__ == "__main__":
    run_program(main)
