"""`bench`: what one inference costs: exact instructions on every core, flash, RAM, stack; speed on this computer.

bench.json is a list with one entry for each model, core, toolchain and goal; see `Row`. Every run checks every output byte
against the simulator, so that a fast wrong answer is no figure.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field, ValidationError

from firmware_export.emit import emit
from firmware_export.export import arranged
from firmware_export.graph import DTYPES, Array, Graph
from firmware_export.hostlib import HostNetwork
from firmware_export.operators import operator_of
from firmware_export.plan import plan
from firmware_export.progress import progress
from firmware_export.simulate import simulate
from firmware_export.stored_constants import stored_bytes
from firmware_export.target import Target
from firmware_export.toolchain import Toolchain, arm_toolchain, host_toolchain
from host_tools.bench_image import CORES, NAME, BenchImage, build_bench_image
from host_tools.bench_picture import write_picture
from host_tools.bench_run import UNICORN_CPUS, has_qemu, run_qemu, run_unicorn
from host_tools.call_graph import deepest
from host_tools.compare import MismatchError
from host_tools.cycles import CORE as CYCLES_CORE
from host_tools.cycles import estimate
from host_tools.disassembly import functions, taken_addresses
from host_tools.results import Model as Section
from recipes.artifacts import ArtifactError, BuildLock, write_json_atomic, write_text_atomic

BENCH, PICTURE = "bench.json", "bench.svg"
SIZES = ("code_bytes", "weights_bytes", "tables_bytes", "activation_bytes", "stack_bytes", "stack_bound_bytes")
FIGURES = ("instructions", *SIZES)
ALLOWED_GROWTH = 0.01
"""What a figure may grow beyond the committed one."""
SECONDS_PER_TRIAL, TRIALS = 0.3, 5

Count = Annotated[int, Field(ge=0)]


class Row(Section):
    """One model on one core. Unknown figures are None: nothing of this computer's code is counted.

    instructions: executed in one inference; per_layer: those up to each layer's return. cycles_estimate: Cortex-M4 only.
    code_bytes: network and kernels; weights_bytes: the network's constants as stored; tables_bytes: parameters of layers and
    constants of kernels. activation_bytes: the caller's buffer, scratch included. stack_bytes: measured by painting;
    stack_bound_bytes: the most along any chain of calls. macs: of the model after the passes.
    """

    model: str
    core: str
    toolchain: str
    arithmetic: str
    optimize: str
    macs: Count
    instructions: Count | None = None
    per_layer: tuple[tuple[str, Count], ...] = ()
    cycles_estimate: Count | None = None
    code_bytes: Count | None = None
    weights_bytes: Count
    tables_bytes: Count | None = None
    activation_bytes: Count
    stack_bytes: Count | None = None
    stack_bound_bytes: Count | None = None
    macs_per_second: Annotated[float, Field(ge=0)] | None = None
    exact: bool

    @property
    def key(self) -> tuple[str, str, str, str, str]:
        """What a row is about."""
        return self.model, self.core, self.toolchain, self.arithmetic, self.optimize


@dataclass(frozen=True)
class BenchModel:
    """A model as `simplify` left it, and the name its rows bear."""

    name: str
    graph: Graph

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one inference."""
        return sum(operator_of(node).macs(self.graph, node) for node in self.graph.nodes)


@dataclass(frozen=True)
class BenchOrder:
    """What to measure: every combination. cores: of bench_image.CORES and "host"."""

    models: tuple[BenchModel, ...]
    cores: tuple[str, ...]
    toolchains: tuple[Toolchain, ...]
    goals: tuple[str, ...]

    def combinations(self) -> Iterator[tuple[BenchModel, str, Toolchain | None, str]]:
        """The rows to make; the host has one compiler."""
        for model in self.models:
            arranged_for = {goal: replace(model, graph=arranged(model.graph, goal)) for goal in self.goals}
            for core in self.cores:
                for goal in self.goals:
                    compilers = (None,) if core == "host" else self.toolchains
                    yield from ((arranged_for[goal], core, compiler, goal) for compiler in compilers)


def toolchains(preference: str) -> tuple[Toolchain, ...]:
    """The compilers for the boards: one by name, or with "all" every one that is installed."""
    if preference != "all":
        return (arm_toolchain(preference),)
    names = (("gcc",) if shutil.which("arm-none-eabi-gcc") else ()) + ("zig",)
    return tuple(arm_toolchain(name) for name in names)


def bench(order: BenchOrder, build: Path) -> list[Row]:
    """Measures, prints a table, writes build/bench/bench.json and a picture.

    Raises:
        ToolchainError: a core can neither be compiled for nor emulated here.
        MismatchError: some answer was wrong; everything is measured and written first.
    """
    folder, rows, left_out = build / "bench", [], []
    wanted = list(order.combinations())
    with BuildLock(folder):
        with progress("bench", len(wanted), "rows") as advance:
            for model, core, compiler, goal in wanted:
                if core == "host":
                    rows.append(host_row(model, goal))
                elif runnable(core):
                    assert compiler is not None
                    rows.append(core_row(model, core, goal, compiler))
                else:
                    left_out.append(core)
                advance(1)
        write_json_atomic(folder / BENCH, [row.model_dump(mode="json") for row in rows])
        write_picture(folder / PICTURE, rows)
    print(table(rows))
    for core in dict.fromkeys(left_out):
        print(f"{core} is left out: only qemu emulates it; install qemu-system-arm")
    print(f"bench: {len(rows)} rows, every output byte checked; {folder / BENCH}, {folder / PICTURE}", flush=True)
    wrong = [f"{row.model} on {row.core}" for row in rows if not row.exact]
    if wrong:
        raise MismatchError(f"bench: answers differ from the exact simulator: {', '.join(wrong)}; run make exact")
    return rows


def runnable(core: str) -> bool:
    """Whether an emulator of the core is installed."""
    return core in UNICORN_CPUS or has_qemu()


def random_inputs(graph: Graph, seed: int = 0) -> tuple[Array, ...]:
    """Pseudo-random bytes for every input; always the same. Floats are of the size of real data."""
    rng = np.random.default_rng(seed)
    found: list[Array] = []
    for tensor in (graph.tensors[index] for index in graph.inputs):
        if tensor.dtype == "float32":
            found.append(rng.normal(0, 1, tensor.shape).astype(np.float32))
        else:
            found.append(np.frombuffer(rng.bytes(tensor.nbytes), DTYPES[tensor.dtype]).reshape(tensor.shape))
    return tuple(found)


def core_row(model: BenchModel, core: str, goal: str, toolchain: Toolchain) -> Row:
    """Builds the bench program for a core and runs it in unicorn, or in qemu where unicorn lacks the core."""
    inputs = random_inputs(model.graph)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        image = build_bench_image(model.graph, CORES[core], goal, inputs, Path(folder), toolchain)
        counted = run_unicorn(image) if core in UNICORN_CPUS else run_qemu(image)
        bound = stack_bound(image)
    expected = simulate(model.graph, *inputs)
    names = [f"{place} {node.op}" for place, node in enumerate(model.graph.nodes)]
    return Row(
        model=model.name,
        core=core,
        toolchain=toolchain.label,
        arithmetic=model.graph.arithmetic,
        optimize=goal,
        macs=model.macs,
        instructions=counted.instructions,
        per_layer=tuple(zip(names, counted.per_layer, strict=True)),
        cycles_estimate=estimate(counted.blocks) if core == CYCLES_CORE else None,
        code_bytes=image.code_bytes,
        weights_bytes=image.weights_bytes,
        tables_bytes=image.tables_bytes,
        activation_bytes=image.plan.size,
        stack_bytes=counted.stack_bytes,
        stack_bound_bytes=bound,
        exact=_same(counted.outputs, expected),
    )


def _same(found: Sequence[Array], expected: Sequence[Array]) -> bool:
    return all(one.tobytes() == other.tobytes() for one, other in zip(found, expected, strict=True))


def stack_bound(image: BenchImage) -> int:
    """Bytes of stack that an inference uses at most, from the call of the network's run on."""
    known = functions(image.elf)
    start = next(place for place, function in known.items() if function.name == f"{NAME}_run")
    outside = (f"{NAME}_", "bench", "reset_handler")
    reachable = frozenset(p for p in taken_addresses(image.elf, known) if not known[p].name.startswith(outside))
    return deepest(known, start, {"": reachable, f"{NAME}_layers": frozenset()})


def host_row(model: BenchModel, goal: str) -> Row:
    """Speed of the compiled C on one core of this computer, on the packed data of cores with DSP instructions."""
    layout = plan(model.graph, Target.of("host", goal))
    inputs = [value if value.shape[:1] == (1,) else value[np.newaxis] for value in random_inputs(model.graph)]
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        for name, text in emit(model.graph, layout, NAME, selftest=False).items():
            (Path(folder) / name).write_text(text)
        network = HostNetwork(Path(folder), NAME)
    expected = simulate(model.graph, *random_inputs(model.graph))
    seconds = seconds_per_run(lambda count: network.run(*(np.repeat(value, count, 0) for value in inputs)))
    return Row(
        model=model.name,
        core="host",
        toolchain=host_toolchain().label,
        arithmetic=model.graph.arithmetic,
        optimize=goal,
        macs=model.macs,
        weights_bytes=stored_bytes(layout.codes),
        activation_bytes=layout.size,
        macs_per_second=model.macs / seconds,
        exact=_same(network.run(*inputs), expected),
    )


def seconds_per_run(run: Callable[[int], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """The fastest of TRIALS trials, each of enough repetitions to last SECONDS_PER_TRIAL: other load only slows down.

    run: does so many inferences.
    """
    count = 1
    while True:
        elapsed = _timed(run, count, clock)
        if elapsed >= SECONDS_PER_TRIAL / 2:
            break
        count = max(2 * count, min(64 * count, int(count * SECONDS_PER_TRIAL / max(elapsed, 1e-6))))
    return min([elapsed, *(_timed(run, count, clock) for _ in range(TRIALS - 1))]) / count


def _timed(run: Callable[[int], object], count: int, clock: Callable[[], float]) -> float:
    started = clock()
    run(count)
    return clock() - started


COLUMNS = (
    "model", "core", "toolchain", "optimize", "instructions", "per MAC", "cycles (estimate)", "M MAC/s", "code", "weights",
    "tables", "RAM", "stack", "bound", "exact",
)  # fmt: skip
TEXT_COLUMNS = 4


def table(rows: Sequence[Row]) -> str:
    """The rows as text; a dash for what is not known."""
    cells = [COLUMNS, *(_cells(row) for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(COLUMNS))]
    lines = []
    for row in cells:
        columns = [
            cell.ljust(w) if i < TEXT_COLUMNS else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(columns).rstrip())
    return "\n".join(lines)


def _cells(row: Row) -> tuple[str, ...]:
    speed = "–" if row.macs_per_second is None else f"{row.macs_per_second / 1e6:,.0f}"
    per_mac = "–" if row.instructions is None or not row.macs else f"{row.instructions / row.macs:.2f}"
    sizes = (_count(getattr(row, name)) for name in SIZES)
    figures = (_count(row.instructions), per_mac, _count(row.cycles_estimate), speed, *sizes)
    return (row.model, row.core, row.toolchain, row.optimize, *figures, "yes" if row.exact else "NO")


def _count(number: int | None) -> str:
    return "–" if number is None else f"{number:,}"


def layer_table(row: Row) -> str:
    """Where the instructions of one row are."""
    total = max(row.instructions or 0, 1)
    width = max((len(name) for name, _ in row.per_layer), default=0)
    lines = [f"{name.ljust(width)}  {count:>12,}  {100 * count / total:5.1f} %" for name, count in row.per_layer]
    return "\n".join([f"{row.model} on {row.core}, {row.toolchain}, {row.optimize}:", *lines])


def grown(rows: Sequence[Row], committed: Sequence[Row]) -> list[str]:
    """What each figure that is more than ALLOWED_GROWTH above the committed one was and is; rows that were not committed
    have nothing to be compared with."""
    before = {row.key: row for row in committed}
    found = []
    for row in rows:
        for figure in FIGURES if row.key in before else ():
            was, now = getattr(before[row.key], figure), getattr(row, figure)
            if was is not None and now is not None and now > was * (1 + ALLOWED_GROWTH):
                found.append(f"{' '.join(row.key)}: {figure} {was:,} -> {now:,}")
    return found


def save_figures(path: Path, rows: Sequence[Row]) -> None:
    """Writes what `grown` compares: one line for each row that was counted, without its layers."""
    counted = [row.model_copy(update={"per_layer": ()}) for row in rows if row.instructions is not None]
    lines = ",\n".join(row.model_dump_json(exclude_defaults=True) for row in sorted(counted, key=lambda row: row.key))
    write_text_atomic(path, f"[\n{lines}\n]\n")


def read_rows(path: Path) -> list[Row]:
    """A bench.json.

    Raises:
        ArtifactError: missing or damaged.
    """
    try:
        return [Row.model_validate(entry) for entry in json.loads(path.read_text())]
    except FileNotFoundError:
        raise ArtifactError(f"{path} not found; run make bench") from None
    except (ValueError, ValidationError, OSError) as error:
        raise ArtifactError(f"{path} is damaged ({str(error).splitlines()[0]}); run make bench again") from None
