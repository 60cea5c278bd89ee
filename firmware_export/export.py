"""Everything the stage `export` makes of an int8 model: C files, the .tflite twin, known answers, reports."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from firmware_export.emit import emit
from firmware_export.graph import Graph
from firmware_export.model_file import read_model
from firmware_export.ordering import ordered
from firmware_export.passes import simplify
from firmware_export.plan import plan
from firmware_export.report import network_info, report_text
from firmware_export.selftest import known_answers, selftest_source, verify
from firmware_export.striping import striped
from firmware_export.target import Target
from firmware_export.write_tflite import write_tflite
from recipes.artifacts import write_bytes_atomic, write_json_atomic, write_text_atomic
from recipes.recipe import FirmwareExportSection


def load_graph(model: Path, section: FirmwareExportSection, *, stripes: bool = True) -> Graph:
    """The simplified graph of a .onnx or .tflite file, under the recipe's arithmetic and name.

    Args:
        stripes: whether operators are ordered, and run in stripes, for the goal, as in what is exported; without it is quick.
    Raises:
        GraphError: damaged, or not supported.
    """
    return _simplified(read_model(model), section, stripes=stripes)


def _simplified(original: Graph, section: FirmwareExportSection, *, stripes: bool = True) -> Graph:
    graph = replace(simplify(original.with_arithmetic(section.arithmetic)), name=section.name)
    return arranged(graph, section.optimize) if stripes else graph


def arranged(graph: Graph, goal: str) -> Graph:
    """A simplified graph in the order, and with the stripes, that suit a goal of target.GOALS; bit-identical answers."""
    return striped(ordered(graph, goal), goal)


def export_model(
    model: Path, folder: Path, section: FirmwareExportSection, target: Target, rooms: tuple[int, ...] = ()
) -> dict[str, Any]:
    """Writes every generated file into `folder`; the same model, section and target give the same bytes.

    Args:
        rooms: see plan.plan.
    Returns:
        The values of <name>_c_info.json (see report.network_info).
    Raises:
        GraphError: the model is damaged or not supported.
        MismatchError: the simulator and TFLite Micro answer differently; nothing is written.
        RegionsError: the activations do not fit the rooms.
    """
    original = read_model(model)
    graph = _simplified(original, section)
    layout = plan(graph, target, rooms=rooms)
    twin = write_tflite(graph)
    answers = known_answers(graph, twin, section.selftest_vectors)
    verify(graph, answers)
    verify(original.with_arithmetic(section.arithmetic), answers)  # what the passes removed changes no answer
    info = network_info(graph, layout, section.name)
    files = emit(graph, layout, section.name)
    files[f"{section.name}_selftest.c"] = selftest_source(graph, layout, section.name, answers)
    files[f"{section.name}_report.txt"] = report_text(info)
    for name, text in files.items():
        write_text_atomic(folder / name, text)
    write_json_atomic(folder / f"{section.name}_c_info.json", info)
    write_bytes_atomic(folder / f"{section.name}.tflite", twin)
    return info
