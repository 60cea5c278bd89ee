"""`bench`: speed on this computer, and instructions, flash, RAM and stack of every board, each answer checked.

bench.json is a list with one entry for each model and place it ran at; see `Row`.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from firmware_export.board import Board, board_names, load_board
from firmware_export.emit import emit
from firmware_export.image import FitError, ImageReport, build_image, toolchain_for
from firmware_export.plan import plan
from firmware_export.progress import progress
from firmware_export.target import Target
from firmware_export.toolchain import host_toolchain
from host_tools.board import open_target
from host_tools.compare import Int8, MismatchError
from host_tools.firmware import check_answering_board
from host_tools.link import Link
from host_tools.model import Model, load_model, simulated
from host_tools.results import Model as Section
from recipes.artifacts import BuildLock, write_json_atomic
from recipes.recipe import Recipe

BENCH = "bench.json"
TARGET_MACS_PER_SECOND = 50e6
"""What the compiled C must reach on one core of this computer."""
CHECKED_IMAGES = 3
"""How many random images each board answers; their answers are compared with the simulator's."""
SECONDS_PER_TRIAL, TRIALS = 0.3, 5

Count = Annotated[int, Field(ge=0)]


class Row(Section):
    """One model at one place. Unknown figures are None: a host has no flash, a core without a counter no instructions.

    activation_bytes: the activation buffer, scratch included. stack_bytes: the most that was used, measured by painting.
    code_bytes: flash without the network's constants.
    """

    model: str
    board: str
    core: str
    toolchain: str
    arithmetic: str
    optimize: str
    macs: Count
    weights_bytes: Count
    activation_bytes: Count
    instructions: Count | None = None
    macs_per_second: Annotated[float, Field(ge=0)] | None = None
    flash_bytes: Count | None = None
    ram_bytes: Count | None = None
    code_bytes: Count | None = None
    stack_bytes: Count | None = None
    exact: bool | None = None
    note: str = ""


def bench(recipes: Sequence[Recipe], build: Path, toolchain: str = "auto") -> list[Row]:
    """Measures built recipes, prints a table and writes build/bench/bench.json.

    Raises:
        ArtifactError: a recipe has not been exported.
        MismatchError: some answer was wrong; everything is measured and written first.
    """
    folder, rows = build / "bench", []
    with BuildLock(folder):
        for recipe in recipes:
            model = load_model(build / recipe.name, recipe)
            rows.append(host_row(recipe, model))
            with progress(f"bench {recipe.name}", len(board_names()) - 1, "boards") as advance:
                for name in board_names():
                    if name != "host":
                        rows.append(board_row(recipe, model, load_board(name), toolchain))
                        advance(1)
        write_json_atomic(folder / BENCH, [row.model_dump(mode="json") for row in rows])
    print(table(rows))
    print(summary(rows, folder / BENCH), flush=True)
    wrong = [f"{row.model} on {row.board}" for row in rows if row.exact is False]
    if wrong:
        raise MismatchError(f"bench: answers differ from the exact simulator: {', '.join(wrong)}; run make exact")
    return rows


def random_images(model: Model, count: int) -> Int8:
    """Pseudo-random inputs int8 [n, h, w, c]; always the same."""
    shape = model.graph.tensors[model.graph.inputs[0]].shape[1:]
    return np.random.default_rng(0).integers(-128, 128, (count, *shape)).astype(np.int8)


def host_row(recipe: Recipe, model: Model) -> Row:
    """Speed of the compiled C on one core of this computer."""
    images = random_images(model, CHECKED_IMAGES)
    same = np.array_equal(model.compiled(images), simulated(model.graph, images))
    speed = model.macs / seconds_per_image(model.compiled, images)
    compiler = host_toolchain().label
    return _row(recipe, model, "host", "host", compiler, exact=same, macs_per_second=speed, note="one core, in process")


def seconds_per_image(run: Callable[[Int8], object], images: Int8, clock: Callable[[], float] = time.perf_counter) -> float:
    """The fastest of TRIALS trials, each of enough repetitions to last SECONDS_PER_TRIAL: other load only slows down."""
    count = 1
    while True:
        batch = np.resize(images, (count, *images.shape[1:]))
        started = clock()
        run(batch)
        elapsed = clock() - started
        if elapsed >= SECONDS_PER_TRIAL / 2:
            break
        count = max(2 * count, min(64 * count, int(count * SECONDS_PER_TRIAL / max(elapsed, 1e-6))))
    trials = [elapsed]
    for _ in range(TRIALS - 1):
        started = clock()
        run(batch)
        trials.append(clock() - started)
    return min(trials) / count


def board_row(recipe: Recipe, model: Model, board: Board, toolchain: str) -> Row:
    """Builds the image for a board and, where it can be emulated, runs it."""
    compiler = toolchain_for(board, toolchain)
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        work = Path(scratch)
        try:
            section = recipe.firmware_export
            sources = _emitted(model, board.core, section.optimize, work)
            image = build_image(board, sources, work, compiler, section.compiler_level)
        except FitError as error:
            return _row(recipe, model, board.name, board.core, compiler.label, note=str(error))
        if not board.emulator.unicorn:
            return _row(recipe, model, board.name, board.core, compiler.label, image, note="not emulated")
        return emulated_row(recipe, model, board, image, work)


def _emitted(model: Model, core: str, optimize: str, work: Path) -> Path:
    """The generated C for a core, in a folder of its own."""
    folder = work / "c"
    folder.mkdir()
    layout = plan(model.graph, Target.of(core, optimize))
    for name, text in emit(model.graph, layout, model.name, selftest=False).items():
        (folder / name).write_text(text)
    return folder


def emulated_row(recipe: Recipe, model: Model, board: Board, image: ImageReport, work: Path) -> Row:
    """Instructions and stack of an image in unicorn, whose cycle counter counts executed instructions."""
    images = random_images(model, CHECKED_IMAGES)
    with Link(open_target("unicorn", board, work), model.expected()) as link:
        check_answering_board(link.hello, board, work, "unicorn")
        answers = [link.run(one.tobytes()) for one in images]
    counts = [answer.cycles for answer in answers if answer.cycles is not None]
    outputs = np.stack([np.frombuffer(answer.outputs, np.int8) for answer in answers])
    return _row(
        recipe,
        model,
        board.name,
        board.core,
        image.toolchain,
        image,
        instructions=round(sum(counts) / len(counts)) if counts else None,
        stack_bytes=max(answer.stack_used for answer in answers) or None,
        exact=np.array_equal(outputs, simulated(model.graph, images)),
    )


def _row(
    recipe: Recipe,
    model: Model,
    board: str,
    core: str,
    toolchain: str,
    image: ImageReport | None = None,
    *,
    instructions: int | None = None,
    stack_bytes: int | None = None,
    exact: bool | None = None,
    macs_per_second: float | None = None,
    note: str = "",
) -> Row:
    constants = int(model.info["constants_bytes"])
    return Row(
        model=recipe.name,
        board=board,
        core=core,
        toolchain=toolchain,
        arithmetic=model.graph.arithmetic,
        optimize=recipe.firmware_export.optimize,
        macs=model.macs,
        weights_bytes=model.graph.weights_bytes(),
        activation_bytes=model.activations_bytes,
        instructions=instructions,
        macs_per_second=macs_per_second,
        flash_bytes=image.flash_bytes if image else None,
        ram_bytes=image.ram_bytes if image else None,
        code_bytes=max(image.flash_bytes - constants, 0) if image else None,
        stack_bytes=stack_bytes,
        exact=exact,
        note=note,
    )


def table(rows: Sequence[Row]) -> str:
    """The rows as text; a dash for what is not known."""
    head = ("model", "board", "core", "toolchain", "instructions", "per MAC", "M MAC/s", "flash", "RAM", "stack", "exact")
    cells = [head, *(_cells(row) for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    lines = []
    for row in cells:
        columns = [cell.ljust(w) if i < 4 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))]
        lines.append("  ".join(columns).rstrip())
    notes = [f"{row.model} on {row.board}: {row.note}" for row in rows if row.note and row.board != "host"]
    return "\n".join([*lines, *notes])


def _cells(row: Row) -> tuple[str, ...]:
    speed = "–" if row.macs_per_second is None else f"{row.macs_per_second / 1e6:.1f}"
    per_mac = "–" if row.instructions is None or not row.macs else f"{row.instructions / row.macs:.2f}"
    exact = {None: "–", True: "yes", False: "NO"}[row.exact]
    sizes = (_count(row.flash_bytes), _count(row.ram_bytes), _count(row.stack_bytes))
    return (row.model, row.board, row.core, row.toolchain, _count(row.instructions), per_mac, speed, *sizes, exact)


def _count(number: int | None) -> str:
    return "–" if number is None else f"{number:,}"


def summary(rows: Sequence[Row], path: Path) -> str:
    """The closing line: host speed of every model against what it must reach."""
    speeds = [
        f"{row.model} {row.macs_per_second / 1e6:.1f} M MAC/s on one core of this computer"
        for row in rows
        if row.macs_per_second is not None
    ]
    return f"bench: {', '.join(speeds)} (to reach: {TARGET_MACS_PER_SECOND / 1e6:.0f}), figures in {path}"
