"""bench: rows for cores and the host against figures known otherwise; wrong answers, timing, tables, growth."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from built_recipe import copy_recipe
from pydantic import ValidationError
from qdq_file import digits_file

import host_tools.bench
from firmware_export.graph import Array, Graph
from firmware_export.simulate import simulate
from firmware_export.toolchain import arm_toolchain
from host_tools.__main__ import main
from host_tools.bench import (
    BenchModel,
    BenchOrder,
    Row,
    bench,
    core_row,
    grown,
    host_row,
    layer_table,
    random_inputs,
    read_rows,
    runnable,
    seconds_per_run,
    table,
    toolchains,
)
from host_tools.bench_image import CORES
from host_tools.bench_models import bench_models
from host_tools.bench_run import UNICORN_CPUS, has_qemu
from host_tools.compare import MismatchError
from recipes.artifacts import ArtifactError, UsageError
from recipes.recipe import DataSection
from train.data import load_dataset

KEYS = {"model", "core", "toolchain", "arithmetic", "optimize", "instructions", "per_layer", "cycles_estimate", "code_bytes"}
KEYS |= {"weights_bytes", "activation_bytes", "stack_bytes", "exact"}


@pytest.fixture
def recipe(built: Path, tmp_path: Path) -> Path:
    return copy_recipe(built, tmp_path)


@pytest.fixture(scope="module")
def model(built: Path) -> BenchModel:
    (found,) = bench_models([str(built)], built.parent / "build")
    return found


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_tools.bench, "SECONDS_PER_TRIAL", 0.01)


def row(**changes: object) -> Row:
    values: dict[str, object] = {
        "model": "m",
        "core": "cortex-m4",
        "toolchain": "gcc 1",
        "arithmetic": "double",
        "optimize": "balanced",
        "macs": 1000,
        "weights_bytes": 10,
        "activation_bytes": 20,
        "exact": True,
    }
    return Row.model_validate({**values, **changes})


class Clock:
    """Time that passes only in `run`, so much for each inference."""

    def __init__(self, seconds: list[float]) -> None:
        self.now, self.seconds, self.batches = 0.0, seconds, []

    def run(self, count: int) -> None:
        self.batches.append(count)
        self.now += (self.seconds.pop(0) if len(self.seconds) > 1 else self.seconds[0]) * count

    def __call__(self) -> float:
        return self.now


def test_time_per_inference_is_that_of_the_fastest_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_tools.bench, "SECONDS_PER_TRIAL", 1.0)
    clock = Clock([0.5, 0.25, 0.125, 0.5])
    # One inference takes 0.5 s: enough for a trial at once; the later trials take 0.25, 0.125, 0.5 and 0.5 s.
    assert seconds_per_run(clock.run, clock) == 0.125
    assert clock.batches == [1] * 5


def test_short_inferences_are_repeated_until_they_can_be_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_tools.bench, "SECONDS_PER_TRIAL", 1.0)
    clock = Clock([2.0**-12])
    assert seconds_per_run(clock.run, clock) == pytest.approx(2.0**-12)
    assert clock.batches[0] == 1 and clock.batches[-1] >= 2048
    assert len(set(clock.batches[-5:])) == 1


def test_a_clock_that_stands_still_at_first_does_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_tools.bench, "SECONDS_PER_TRIAL", 1.0)
    assert seconds_per_run((clock := Clock([0.0, 0.0, 2.0**-3])).run, clock) == 2.0**-3


def test_the_host_is_measured_and_checked(model: BenchModel) -> None:
    found = host_row(model, "balanced")
    assert (found.model, found.core, found.exact, found.macs, found.arithmetic) == ("tiny", "host", True, 1216, "double")
    assert found.macs_per_second is not None and 1e6 < found.macs_per_second < 1e12
    assert found.instructions is None and found.code_bytes is None


@pytest.mark.parametrize("core", sorted(UNICORN_CPUS))
def test_a_core_is_built_run_and_checked(model: BenchModel, core: str) -> None:
    found = core_row(model, core, "balanced", arm_toolchain())
    assert found.exact and found.core == core and found.macs == 1216
    assert found.instructions is not None and found.macs / 2 < found.instructions < 100 * found.macs
    assert [name for name, _ in found.per_layer] == [f"{i} {node.op}" for i, node in enumerate(model.graph.nodes)]
    inside = sum(count for _, count in found.per_layer)
    assert found.instructions * 0.9 < inside < found.instructions
    assert found.stack_bytes is not None and 0 < found.stack_bytes <= (found.stack_bound_bytes or 0) < 1024
    assert (found.cycles_estimate is not None) == (core == "cortex-m4")
    assert found.cycles_estimate is None or found.instructions < found.cycles_estimate < 3 * found.instructions


@pytest.mark.skipif(not has_qemu(), reason="qemu-system-arm is not installed")
@pytest.mark.parametrize("core", sorted({*CORES} - {*UNICORN_CPUS}))
def test_a_core_that_only_qemu_has(model: BenchModel, core: str) -> None:
    found = core_row(model, core, "balanced", arm_toolchain())
    assert found.exact and (found.instructions or 0) > 0 and found.cycles_estimate is None


def test_both_compilers_give_exact_programs(model: BenchModel) -> None:
    """zig comes from PyPI; where gcc is not installed it is all there is."""
    found = core_row(model, "cortex-m4", "balanced", arm_toolchain("zig"))
    assert found.toolchain.startswith("zig ") and found.exact and (found.stack_bound_bytes or 0) >= (found.stack_bytes or 0) > 0


def test_the_constants_are_those_of_the_plan(model: BenchModel) -> None:
    from firmware_export.plan import plan
    from firmware_export.target import Target

    codes = plan(model.graph, Target.of("cortex-m4", "balanced")).codes
    stored = sum(constant.data.nbytes for code in codes for constant in code.constants)
    found = core_row(model, "cortex-m4", "balanced", arm_toolchain())
    assert stored <= found.weights_bytes < stored + 8 * sum(len(code.constants) for code in codes)


def test_the_command_writes_table_file_and_picture(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build = recipe.parent / "build"
    words = ["bench", str(recipe), "--build", str(build), "--cores", "host,cortex-m3", "--layers"]
    assert main(words) == 0
    rows = json.loads((build / "bench" / "bench.json").read_text())
    assert [r["core"] for r in rows] == ["host", "cortex-m3"] and all(r.keys() >= KEYS for r in rows)
    assert read_rows(build / "bench" / "bench.json")[1].instructions == rows[1]["instructions"]
    picture = (build / "bench" / "bench.svg").read_text()
    assert picture.startswith("<svg xmlns=") and "tiny cortex-m3 balanced" in picture
    text = capsys.readouterr().out
    assert "every output byte checked" in text and "tiny on cortex-m3, " in text and "0 conv2d" in text


def test_model_files_and_folders_are_measured(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    content = digits_file(load_dataset(DataSection(), 1))
    for name in ("b.onnx", "a.onnx", "readme.txt"):
        (folder / name).write_bytes(content)
    assert [model.name for model in bench_models([str(folder)], tmp_path)] == ["a", "b"]
    (alone,) = bench_models([str(folder / "b.onnx"), "firmware_export.name=net"], tmp_path)
    assert (alone.name, alone.graph.name, alone.macs) == ("b", "net", 1216)


def test_a_folder_without_models_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"holds no model; expected files ending in \.tflite or \.onnx"):
        bench_models([str(tmp_path)], tmp_path)


def test_a_recipe_that_is_not_built_is_named(recipe: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"model_int8\.onnx not found; run `make pipeline"):
        bench_models([str(recipe)], tmp_path / "elsewhere")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train.epochs=3"], "at least one recipe"),
        ([], "MODEL"),
        (["digits", "--cores", "cortex-m5"], "unknown core 'cortex-m5'.*did you mean"),
        (["digits", "--optimize", "speed"], "unknown goal 'speed'"),
    ],
)
def test_wrong_words_are_named(words: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        main(["bench", *words])


def test_wrong_answers_are_written_then_refused(model: BenchModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(graph: Graph, *inputs: Array) -> list[Array]:
        return [value ^ np.int8(1) for value in simulate(graph, *inputs)]

    monkeypatch.setattr(host_tools.bench, "simulate", wrong)
    with pytest.raises(MismatchError, match="tiny on cortex-m0plus") as caught:
        bench(BenchOrder((model,), ("cortex-m0plus",), (arm_toolchain(),), ("balanced",)), tmp_path)
    assert caught.value.exit_code == 10
    assert json.loads((tmp_path / "bench" / "bench.json").read_text())[0]["exact"] is False


def test_a_core_without_emulator_is_left_out_and_named(
    model: BenchModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(host_tools.bench, "has_qemu", lambda: False)
    assert runnable("cortex-m4") and not runnable("cortex-m55")
    rows = bench(BenchOrder((model,), ("cortex-m3", "cortex-m55"), (arm_toolchain(),), ("balanced",)), tmp_path)
    assert [r.core for r in rows] == ["cortex-m3"]
    assert "cortex-m55 is left out: only qemu emulates it; install qemu-system-arm" in capsys.readouterr().out


def test_every_combination_is_measured_once(model: BenchModel) -> None:
    compilers = toolchains("auto")
    order = BenchOrder((model, model), ("host", "cortex-m4"), compilers * 2, ("ram", "time"))
    found = [(core, compiler, goal) for _, core, compiler, goal in order.combinations()]
    assert len(found) == 2 * 2 * (1 + 2)
    assert {compiler for core, compiler, _ in found if core == "host"} == {None}


def test_all_toolchains_are_those_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = [toolchain.kind for toolchain in toolchains("all")]
    assert kinds == (["gcc", "zig"] if shutil.which("arm-none-eabi-gcc") else ["zig"])
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert [toolchain.kind for toolchain in toolchains("all")] == ["zig"]


def test_random_inputs_are_always_the_same_and_use_every_value(model: BenchModel) -> None:
    (one,), (other,) = random_inputs(model.graph), random_inputs(model.graph)
    assert np.array_equal(one, other) and one.shape == (1, 8, 8, 1) and one.dtype == np.int8
    assert one.min() < -100 and one.max() > 100
    assert not np.array_equal(one, random_inputs(model.graph, 1)[0])


def test_the_table_shows_what_is_known() -> None:
    full = row(
        instructions=4500, code_bytes=20_000, tables_bytes=300, stack_bytes=500, stack_bound_bytes=504, cycles_estimate=9
    )
    lines = table([full, row(core="host", macs_per_second=61.26e6, exact=False)]).split("\n")
    assert lines[1].split() == [
        "m", "cortex-m4", "gcc", "1", "balanced", "4,500", "4.50", "9", "–", "20,000", "10", "300", "20", "500", "504", "yes",
    ]  # fmt: skip
    assert lines[2].split() == ["m", "host", "gcc", "1", "balanced", *"–––", "61", "–", "10", "–", "20", "–", "–", "NO"]


def test_layers_show_their_share() -> None:
    text = layer_table(row(instructions=400, per_layer=(("0 conv2d", 300), ("1 softmax", 90))))
    assert text.split("\n") == [
        "m on cortex-m4, gcc 1, balanced:",
        "0 conv2d            300   75.0 %",
        "1 softmax            90   22.5 %",
    ]


@pytest.mark.parametrize(
    ("figure", "was", "now", "told"),
    [
        ("instructions", 1000, 1010, False),
        ("instructions", 1000, 1011, True),
        ("instructions", 1000, 10, False),
        ("code_bytes", 200, 203, True),
        ("activation_bytes", 20, 21, True),
        ("stack_bound_bytes", 100, 101, False),
    ],
)
def test_growth_beyond_one_percent_is_told(figure: str, was: int, now: int, told: bool) -> None:
    found = grown([row(**{figure: now})], [row(**{figure: was})])
    assert found == ([f"m cortex-m4 gcc 1 double balanced: {figure} {was:,} -> {now:,}"] if told else [])


def test_rows_without_a_committed_figure_do_not_grow() -> None:
    assert grown([row(instructions=5)], [row(instructions=1, core="cortex-m3"), row(instructions=None)]) == []


def test_damaged_figures_are_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="not found; run make bench"):
        read_rows(tmp_path / "bench.json")
    for content in ("{", '[{"model": 1}]'):
        (tmp_path / "bench.json").write_text(content)
        with pytest.raises(ArtifactError, match="is damaged"):
            read_rows(tmp_path / "bench.json")


@pytest.mark.parametrize("changes", [{"macs": -1}, {"macs_per_second": float("inf")}, {"unknown": 1}])
def test_rows_that_cannot_be_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        row(**changes)
