"""The generated C of models without their dead channels answers as TFLite Micro does with the models as they were."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundle import Bundle
from dead_channels import dead_net
from example_cases import Case, differences
from graph_builder import Build, inputs_of
from oracles import tflite_micro
from qdq_builder import resnet

from firmware_export import export
from firmware_export.export import export_model
from firmware_export.graph import Graph
from firmware_export.passes import simplify
from firmware_export.plan import plan
from firmware_export.report import network_info, pass_line, report_text
from firmware_export.selftest import MismatchError
from firmware_export.target import GOALS, Target
from firmware_export.toolchain import host_toolchain
from firmware_export.write_tflite import write_tflite
from recipes.recipe import FirmwareExportSection

NETS = 16


def case_of(seed: int) -> Case:
    """The simplified net; vectors with the answers of the net as it was."""
    net = dead_net(seed)
    vectors = [tuple(inputs_of(net, one)) for one in range(2)]
    vectors += [tuple(np.full_like(value, end) for value in vectors[0]) for end in (-128, 127)]
    twin = write_tflite(net)
    answers = tuple(tuple(tflite_micro(twin, list(vector), len(net.outputs))) for vector in vectors)
    return Case(f"net {seed}", simplify(net), tuple(vectors), answers)


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    return [case_of(seed) for seed in range(NETS)]


@pytest.mark.parametrize("core_class", ["portable", "dsp"])
def test_generated_c(cases: list[Case], core_class: str, tmp_path: Path) -> None:
    """Plain C, and the packed weights of the fast kernels, which meet channels without weights here."""
    bundle = Bundle(tmp_path, cases, Target(core_class))
    program = bundle.host_program(host_toolchain(), optimize="1")
    for case, found in zip(cases, bundle.run_host(program), strict=True):
        assert differences(case, found) == ""


@pytest.mark.parametrize("goal", GOALS)
def test_every_goal_plans_them(cases: list[Case], goal: str) -> None:
    for case in cases:
        assert plan(case.graph, Target("dsp", goal)).size > 0


# What is told about it


def dead_half() -> Graph:
    """Two 1x1 convolutions over 4x4 pixels; the second reads two of the first one's four channels."""
    build = Build(1)
    x = build.activation((1, 4, 4, 2), 0.05, 4, "image")
    graph = build.graph(x, build.conv(build.conv(x, 4, kernel=1), 3, kernel=1))
    weights = graph.tensors[graph.nodes[1].inputs[1]].data
    assert weights is not None
    weights[..., 1:3] = 0
    return graph


def test_info_and_report_tell_what_the_passes_made_smaller() -> None:
    """Products by hand: 16 pixels of 2x4 and 4x3, then 2x2 and 2x3."""
    simple = simplify(dead_half())
    info = network_info(simple, plan(simple), "net")
    figures = {"operators": [2, 2], "macs": [16 * 20, 16 * 10], "weights": [20, 10]}
    assert info["passes"] == [{"name": "remove_dead_channels", **figures}]
    line = "remove dead channels: MACs 320 -> 160, weights 20 -> 10"
    assert pass_line(info["passes"][0]) == line and line in report_text(info).splitlines()


def test_operators_that_went_are_told_too() -> None:
    change: dict[str, Any] = {"name": "fuse_relu", "operators": [1031, 1030], "macs": [5, 5], "weights": [6, 6]}
    assert pass_line(change) == "fuse relu: operators 1,031 -> 1,030"


def test_nothing_made_smaller_nothing_told() -> None:
    graph = Build(1)
    x = graph.activation((1, 4, 4, 2), 0.05, 4, "image")
    simple = simplify(graph.graph(x, graph.conv(x, 3)))
    info = network_info(simple, plan(simple), "net")
    assert info["passes"] == [] and "->" not in "".join(report_text(info).splitlines()[:4])


def test_a_pass_that_changes_answers_stops_the_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The twin is made of the changed model and agrees with it; the model as it was read does not."""

    def wrong(graph: Graph) -> Graph:
        result = simplify(graph)
        bias = next(t for _, t in result.constants() if t.dtype == "int32")
        assert bias.data is not None
        tensors = [replace(t, data=bias.data + 30_000) if t is bias else t for t in result.tensors]
        return replace(result, tensors=tensors)

    file = tmp_path / "net.onnx"
    file.write_bytes(resnet().SerializeToString())
    monkeypatch.setattr(export, "simplify", wrong)
    with pytest.raises(MismatchError):
        export_model(file, tmp_path / "out", FirmwareExportSection(), Target())
    monkeypatch.undo()
    assert export_model(file, tmp_path / "out", FirmwareExportSection(), Target())["passes"] == []
