"""The command `model`: somebody's own model file on a board or an emulated one, every answer against the exact simulator."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from firmware_export.board import Board
from firmware_export.export import load_graph
from firmware_export.graph import Array
from firmware_export.inputs import ModelInputs
from firmware_export.model_source import int8_model, recipe_of_model
from firmware_export.own_model import EMULATED_INPUTS, ModelRun
from firmware_export.progress import progress
from firmware_export.simulate import simulate, simulate_trace
from firmware_export.target import export_stage
from host_tools.board import open_target
from host_tools.compare import MismatchError
from host_tools.firmware import check_answering_board, verify_stage
from host_tools.layers import find_difference, layer_verdicts
from host_tools.link import Link
from host_tools.model import Model, read_info


@dataclass(frozen=True)
class ModelOrder:
    """What to run where. text: the model file; overrides, build: as firmware_export got them. count: None for a few inputs."""

    text: str
    overrides: tuple[str, ...]
    build: Path
    board: Board
    target: str
    inputs: Path | None
    count: int | None


def run_model(order: ModelOrder) -> None:
    """Streams the inputs through the firmware that `python -m firmware_export MODEL --board B` has built.

    Raises:
        MismatchError: an answer differs; names the first layer that does.
        ArtifactError: the firmware is not built, or damaged.
        LinkError: the port, the line or the board failed.
    """
    recipe = recipe_of_model(Path(order.text), order.overrides)
    root = order.build / recipe.name
    firmware, export = root / "firmware" / order.board.name, root / export_stage(order.board.core)
    verify_stage(export)
    verify_stage(firmware)
    source, section = int8_model(Path(order.text), root), recipe.firmware_export
    graph, info = load_graph(source, section), read_info(export, section.name)
    model = Model(export, section.name, graph, info, b"", (export / f"{section.name}.tflite").read_bytes())
    count = order.count or (None if order.inputs else EMULATED_INPUTS)
    inputs = ModelRun(source, export, section, order.inputs, count).load(graph)
    with Link(open_target(order.target, order.board, firmware), model.expected()) as link:
        check_answering_board(link.hello, order.board, firmware, order.target)
        cycles = _stream(link, model, inputs, order.target)
        unit = "instructions" if order.target in ("unicorn", "qemu") else link.hello.cycle_unit
    told = f", {round(float(np.mean(cycles))):,} {unit} each" if cycles else ""
    print(
        f"model: {len(inputs):,} of {len(inputs):,} {inputs.source} answered identically by {order.board.name} on "
        f"{order.target}{told}; {firmware}",
        flush=True,
    )


def _stream(link: Link, model: Model, inputs: ModelInputs, target: str) -> list[int]:
    """Asks for every answer and compares it; gives the cycles of each where the board counts them."""
    cycles = []
    with progress("model", len(inputs), "inputs") as advance:
        for place in range(len(inputs)):
            vector = inputs.vector(place)
            result = link.run(_bytes(vector))
            if result.outputs != _bytes(simulate(model.graph, *vector)):
                raise MismatchError(f"input {place} on {target}: {_first_layer(link, model, vector)}")
            cycles += [] if result.cycles is None else [result.cycles]
            advance(1)
    return cycles


def _bytes(arrays: tuple[Array, ...] | list[Array]) -> bytes:
    """Arrays as they stand in the board's memory, one after the other."""
    return b"".join(array.astype(array.dtype.newbyteorder("<")).tobytes() for array in arrays)


def _first_layer(link: Link, model: Model, vector: tuple[Array, ...]) -> str:
    trace, data = simulate_trace(model.graph, *vector), _bytes(vector)
    found = find_difference(link, layer_verdicts(link, model.graph, trace, data), trace, data)
    return "the answer differs, but no layer when they are read one by one" if found is None else found.sentence()
