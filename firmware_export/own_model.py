"""Somebody's own model file, run as it is: the stage `compare`, and the same inputs through the emulated board."""

from __future__ import annotations

import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from firmware_export.board import Board
from firmware_export.compare import Comparison, Sides, choose_oracle, compare
from firmware_export.export import load_graph
from firmware_export.graph import Graph
from firmware_export.hostlib import HostNetwork
from firmware_export.inputs import ModelInputs, random_model_inputs, read_inputs
from firmware_export.model_file import read_model
from firmware_export.model_source import model_files
from firmware_export.progress import progress
from recipes.artifacts import Stage, read_manifest, sha256_file, write_json_atomic
from recipes.recipe import FirmwareExportSection

COMPARISON = "comparison.json"
EMULATED_INPUTS = 3
"""Inputs through the emulated board where the caller does not say how many."""


@dataclass(frozen=True)
class ModelRun:
    """What to run. model: .tflite or .onnx. export: folder of its generated C. inputs: an .npz file, None for random ones.

    count: at most so many inputs; None for all of a file, or a few random ones.
    """

    model: Path
    export: Path
    section: FirmwareExportSection
    inputs: Path | None
    count: int | None

    def check(self) -> None:
        """Reads model and inputs, so that what is wrong with them is told before anything is made.

        Raises:
            GraphError: the model is missing, damaged or not supported. DataError: the file of inputs does not fit it.
        """
        graph = read_model(self.model)
        if self.inputs is not None:
            self.load(graph)

    def load(self, graph: Graph) -> ModelInputs:
        """The inputs. Raises DataError when the file does not fit the model."""
        if self.inputs is None:
            return random_model_inputs(graph, self.count)
        return read_inputs(self.inputs, graph, self.count, onnx=not is_tflite(self.model))


def is_tflite(model: Path) -> bool:
    """Whether a model file is in TFLite's format; the content decides."""
    with model.open("rb") as stream:
        return stream.read(8)[4:] == b"TFL3"


def compare_stage(root: Path, run: ModelRun, source: str) -> None:
    """Runs the inputs through the generated C, the simulator and TFLite Micro; writes comparison.json.

    Args:
        root: build/<name>. source: hash of the code that decides the result.
    Raises:
        MismatchError: some byte differs; names the first layer.
        DataError: the inputs do not fit the model.
    """
    given = None if run.inputs is None or not run.inputs.is_file() else sha256_file(run.inputs)
    config = {"inputs": given, "count": run.count, "section": run.section.model_dump(), "source": source}
    files = [*model_files(run.model), *(run.export / name for name in read_manifest(run.export)["outputs"])]
    with Stage(root, "compare", config, files) as stage:
        if stage.unchanged:
            print(stage.again(), flush=True)
            return
        comparison, inputs, note = _compare(run)
        figures = {**comparison.to_json(), "source": inputs.source, "note": note}
        write_json_atomic(stage.work / COMPARISON, figures)
        stage.finish(figures, _summary(comparison, inputs, note, stage.folder))


def _compare(run: ModelRun) -> tuple[Comparison, ModelInputs, str]:
    graph = load_graph(run.model, run.section)
    inputs = run.load(graph)
    original = run.model.read_bytes() if is_tflite(run.model) else None
    oracle, note = choose_oracle(graph, original, (run.export / f"{run.section.name}.tflite").read_bytes(), inputs)
    sides = Sides(graph, HostNetwork(run.export, run.section.name), oracle)
    with progress("compare", len(inputs), "inputs") as advance:
        return compare(sides, inputs, advance), inputs, note


def _summary(comparison: Comparison, inputs: ModelInputs, note: str, folder: Path) -> str:
    told = f" ({note})" if note else ""
    return (
        f"compare: 0 of {comparison.bytes_compared:,} output bytes differ over {len(inputs):,} {inputs.source} between the "
        f"compiled C, the simulator and {comparison.oracle}{told}{comparison.accuracy_text}; {folder / COMPARISON}"
    )


def emulate(words: list[str], board: Board, run: ModelRun) -> int:
    """Streams inputs through the emulated board with the host tool, in a process of its own; returns its exit code.

    Args:
        words: the model and the settings as they were given on the command line.
    """
    count = run.count if run.inputs is not None and run.count is not None else EMULATED_INPUTS
    given = [] if run.inputs is None else ["--inputs", str(run.inputs)]
    command = [
        "-m",
        "host_tools",
        "model",
        *words,
        "--board",
        board.name,
        "--target",
        "unicorn",
        *given,
        "--images",
        str(count),
    ]
    print(f"running: python {shlex.join(command)}", flush=True)
    return subprocess.run([sys.executable, *command], check=False).returncode
