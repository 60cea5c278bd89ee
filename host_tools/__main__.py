"""Streams a recipe's test images through a device, checks every answer against the exact simulator, writes a report."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from serial.tools.list_ports import comports

from firmware_export.board import load_board
from firmware_export.target import GOALS
from host_tools.bench import BenchOrder, bench, layer_table, save_figures, toolchains
from host_tools.bench_image import CORES
from host_tools.bench_models import bench_models
from host_tools.board import check_target
from host_tools.exact import exact, plan_targets
from host_tools.inspect_device import inspect_layers, print_hello, print_selftest
from host_tools.own_model import ModelOrder, run_model
from host_tools.report import rebuild_report
from host_tools.run import Order, run, target_folder
from recipes.artifacts import OneLineParser, UsageError, did_you_mean, run_program
from recipes.recipe import load_recipe

BENCH_CORES = ("host", *CORES)
DEFAULT_BOARD, DEFAULT_TARGET = "netduinoplus2", "unicorn"

COMMANDS = {
    "run": "stream the test images, check every answer, write results.json and report.html (this is done without a command)",
    "check": "look at recipe, board and target, and do nothing",
    "layers": "compare every layer of one image with the simulator and name the first wrong element",
    "info": "print what the device says of itself: board, clock, model, tensors",
    "selftest": "let the device check its built-in known answers",
    "model": "stream inputs through the firmware of a model file that firmware_export has built, check every answer",
    "exact": "compare simulator, C, outside interpreters and emulators byte for byte",
    "bench": "what an inference costs: instructions on every core, flash, RAM, stack; speed on this computer",
    "report": "write report.html again from the results of a run",
    "ports": "list the serial ports",
}

EXIT_CODES = """exit codes:
  0 all is well                      6 model not supported or damaged
  1 internal error, out of memory    7 model does not fit the board
  2 wrong option or recipe           8 compiler or emulator missing or failed
  3 data set missing or damaged      9 training failed
  4 artifact missing, disk full     10 answers differ
  5 port, line or board           130 interrupted (the same command goes on where it stopped)
"""

EXAMPLES = """examples:
  python -m host_tools digits --target unicorn
  python -m host_tools fashion_mnist --board nucleo_f446re --target serial:/dev/ttyACM0:115200 --images 1000
  python -m host_tools layers digits --target qemu --image 7
  python -m host_tools model model.tflite --board nucleo_f446re --inputs x.npz
"""


def main(arguments: list[str]) -> int:
    """Runs one command; returns the exit code."""
    command, rest = _split(arguments)
    handlers: dict[str, Callable[[list[str]], int]] = {"ports": _ports, "bench": _bench, "exact": _exact, "model": _model}
    handler = handlers.get(command)
    return _on_device(command, rest) if handler is None else handler(rest)


def _split(arguments: list[str]) -> tuple[str, list[str]]:
    """The command and its arguments; without one the command is `run`."""
    if arguments and arguments[0] in COMMANDS:
        return arguments[0], arguments[1:]
    return "run", arguments


def _parser(command: str, recipe: bool = True) -> OneLineParser:
    epilog = f"{_commands_help()}\n{EXIT_CODES}\n{EXAMPLES}" if command == "run" else EXIT_CODES
    parser = OneLineParser(
        prog="python -m host_tools" + ("" if command == "run" else f" {command}"),
        description=__doc__ if command == "run" else COMMANDS[command].capitalize() + ".",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    if recipe:
        parser.add_argument("recipe", metavar="RECIPE", help="a YAML file, or the bare name of one in recipes/, such as digits")
        parser.add_argument("overrides", metavar="section.key=value", nargs="*", help="changes of the recipe")
    parser.add_argument("--build", metavar="DIR", default="build", help="folder of all artifacts (default: build)")
    return parser


def _commands_help() -> str:
    lines = [f"  {name:<9} {text}" for name, text in COMMANDS.items()]
    return "commands (python -m host_tools COMMAND RECIPE ...; COMMAND --help for its options):\n" + "\n".join(lines) + "\n"


def _add_device(parser: OneLineParser) -> None:
    parser.add_argument("--board", metavar="B", help=f"a folder of firmware_export/boards (default: {DEFAULT_BOARD})")
    parser.add_argument(
        "--target",
        metavar="T",
        default=DEFAULT_TARGET,
        help=f"host, unicorn, qemu or serial:PORT[:BAUD] (default: {DEFAULT_TARGET})",
    )
    _add_images(parser)


def _add_images(parser: OneLineParser) -> None:
    parser.add_argument("--images", metavar="N", type=_positive, help="only the first N test images (default: the recipe's)")


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number from 1 on")
    return int(text)


def _natural(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"'{text}' is not a number from 0 on")
    return int(text)


def _order(options: argparse.Namespace, target: str) -> Order:
    recipe = load_recipe(options.recipe, options.overrides)
    board = load_board(options.board or ("host" if target == "host" else DEFAULT_BOARD))
    images = options.images or recipe.host_tools.images
    words = (options.recipe, *options.overrides, *(("--build", options.build) if options.build != "build" else ()))
    return Order(recipe, words, board, target, Path(options.build) / recipe.name, images)


def _on_device(command: str, arguments: list[str]) -> int:
    """The commands that speak to one device or look at its run."""
    parser = _parser(command)
    _add_device(parser)
    if command == "layers":
        parser.add_argument("--image", metavar="I", type=_natural, default=0, help="which test image (default: 0)")
    options = parser.parse_intermixed_args(arguments)
    order = _order(options, options.target)
    check_target(order.target, order.board)
    if command == "check":
        print(f"check: recipe {order.recipe.name}, board {order.board.name} and target {order.target} go together", flush=True)
    elif command == "run":
        run(order)
    elif command == "layers":
        inspect_layers(order, options.image)
    elif command == "info":
        print_hello(order)
    elif command == "selftest":
        print_selftest(order)
    else:
        print(rebuild_report(order.root / "run" / target_folder(order.target), order.root, order.recipe), flush=True)
    return 0


def _exact(arguments: list[str]) -> int:
    parser = _parser("exact")
    _add_images(parser)
    parser.add_argument("--board", metavar="B", help=f"for the emulators (default: {DEFAULT_BOARD})")
    parser.add_argument(
        "--targets",
        metavar="T,T",
        help="which firmware to run: host, unicorn, qemu; 'none' for none (default: what is installed)",
    )
    options = parser.parse_intermixed_args(arguments)
    order = _order(options, "unicorn")
    exact(plan_targets(order, _targets(options.targets)))
    return 0


def _model(arguments: list[str]) -> int:
    parser = _parser("model")
    _add_device(parser)
    parser.add_argument("--inputs", metavar="NPZ", help="arrays for the model's inputs (default: random ones)")
    options = parser.parse_intermixed_args(arguments)
    board = load_board(options.board or ("host" if options.target == "host" else DEFAULT_BOARD))
    check_target(options.target, board)
    inputs = None if options.inputs is None else Path(options.inputs)
    words, build = tuple(options.overrides), Path(options.build)
    run_model(ModelOrder(options.recipe, words, build, board, options.target, inputs, options.images))
    return 0


def _targets(text: str | None) -> tuple[str, ...] | None:
    if text is None:
        return None
    known = ("host", "unicorn", "qemu")
    names = () if text == "none" else tuple(text.split(","))
    for name in names:
        if name not in known:
            raise UsageError(f"unknown target '{name}'{did_you_mean(name, known)}; known: none, {', '.join(known)}")
    return names


def _bench(arguments: list[str]) -> int:
    parser = _parser("bench", recipe=False)
    parser.add_argument(
        "models", metavar="MODEL", nargs="+", help="recipes that are exported, .tflite or .onnx files, folders of them; words "
        "with '=' change the recipes"
    )  # fmt: skip
    parser.add_argument("--cores", metavar="C,C", default=",".join(BENCH_CORES), help="default: all, and host")
    parser.add_argument("--toolchain", choices=("auto", "all", "gcc", "zig"), default="auto", help="all: every one installed")
    parser.add_argument("--optimize", metavar="G,G", default="balanced", help=f"goals: {', '.join(GOALS)} (default: balanced)")
    parser.add_argument("--layers", action="store_true", help="where the instructions are, layer by layer")
    parser.add_argument("--save", metavar="FILE", help="keep the counted figures in FILE, to compare later versions with")
    options = parser.parse_intermixed_args(arguments)
    cores = _listed(options.cores, BENCH_CORES, "core")
    goals = _listed(options.optimize, GOALS, "goal")
    models = bench_models(options.models, Path(options.build))
    rows = bench(BenchOrder(models, cores, toolchains(options.toolchain), goals), Path(options.build))
    if options.layers:
        print("\n".join(f"\n{layer_table(row)}" for row in rows if row.per_layer))
    if options.save is not None:
        save_figures(Path(options.save), rows)
    return 0


def _listed(text: str, known: Sequence[str], what: str) -> tuple[str, ...]:
    """Words between commas, each one of those that are known."""
    names = tuple(text.split(","))
    for name in names:
        if name not in known:
            raise UsageError(f"unknown {what} '{name}'{did_you_mean(name, known)}; known: {', '.join(known)}")
    return names


def _ports(arguments: list[str]) -> int:
    _parser("ports", recipe=False).parse_args(arguments)
    found = sorted(comports(), key=lambda port: (port.vid is None, port.device))  # those on USB first
    for port in found:
        print(f"{port.device}  {port.description}")
    if not found:
        print("no serial port is plugged in; check the cable (some only charge)")
    return 0


if __name__ == "__main__":
    run_program(main)
