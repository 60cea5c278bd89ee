"""Whole random models: simulator = tflite-micro wheel = plain loops = generated C under sanitizers = emulated Cortex-M."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from bundle import Bundle, Emulator, gcc_or_skip
from example_cases import Case, differences
from graph_failures import by_tflite_micro, shrink_and_keep
from oracles import tflite_micro
from random_elementwise import BINARY, REDUCTIONS, TABLES
from random_graphs import random_graph
from random_movement import MOVING
from random_products import PRODUCTS
from second_implementation import compute

from firmware_export.operators import registry
from firmware_export.simulate import simulate
from firmware_export.toolchain import Toolchain, arm_toolchain, host_toolchain
from firmware_export.write_tflite import write_tflite

SHORT, LONG = 150, 5000
CHUNK = 250
REGRESSION = Path(__file__).resolve().parents[1] / "regression"
SANITIZE = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
GROWN = {"conv2d", "depthwise_conv2d", "fully_connected", "average_pool2d", "max_pool2d", "reshape", "relu", "softmax"}
GROWN |= {*BINARY, *TABLES, *REDUCTIONS, *MOVING, *PRODUCTS}


def case_of(seed: int) -> Case:
    graph, rng = random_graph(seed), np.random.default_rng(seed)
    shapes = [graph.tensors[index].shape for index in graph.inputs]
    vectors = tuple(tuple(rng.integers(-128, 128, shape).astype(np.int8) for shape in shapes) for _ in range(2))
    return Case(f"random graph {seed}", graph, vectors, tuple(tuple(simulate(graph, *vector)) for vector in vectors))


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    return [case_of(seed) for seed in range(SHORT)]


@pytest.fixture(scope="module")
def bundle(cases: list[Case], tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle(tmp_path_factory.mktemp("random"), cases)


def test_the_graphs_are_varied(cases: list[Case]) -> None:
    operators = Counter(node.op for case in cases for node in case.graph.nodes)
    assert operators.keys() == GROWN <= registry().keys()
    assert min(operators.values()) >= 2
    assert any(len(case.graph.inputs) == 2 for case in cases) and any(len(case.graph.outputs) > 1 for case in cases)
    assert max(len(case.graph.nodes) for case in cases) >= 6
    answers = [outputs for case in cases for outputs in case.answers[0]]
    assert sum(len(np.unique(output)) > min(3, output.size // 2) for output in answers) > 0.65 * len(answers)


def test_tflite_micro(cases: list[Case]) -> None:
    for case in cases:
        twin = write_tflite(case.graph)
        found = [tuple(tflite_micro(twin, list(vector), len(case.graph.outputs))) for vector in case.vectors]
        assert differences(case, found) == ""


def test_plain_loops(cases: list[Case]) -> None:
    for case in cases:
        assert differences(case, [tuple(compute(case.graph, list(vector))) for vector in case.vectors]) == ""


def check_host(bundle: Bundle, program: Path) -> None:
    for case, found in zip(bundle.cases, bundle.run_host(program), strict=True):
        assert differences(case, found) == ""


def test_generated_c_under_sanitizers(bundle: Bundle) -> None:
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed; the sanitizers are tested with gcc")
    check_host(bundle, bundle.host_program(Toolchain("cc", ("gcc",), "any"), SANITIZE, optimize="1"))


def check_core(bundle: Bundle, toolchain: Toolchain, core: str) -> None:
    emulator = Emulator(bundle.arm_program(toolchain, core), core)
    for index, (case, layout) in enumerate(zip(bundle.cases, bundle.plans, strict=True)):
        assert differences(case, [emulator.run(index, case.graph, layout, vector) for vector in case.vectors]) == ""


def test_cortex_m4(bundle: Bundle) -> None:
    check_core(bundle, gcc_or_skip(), "cortex-m4")


def test_cortex_m7_zig(bundle: Bundle) -> None:
    check_core(bundle, arm_toolchain("zig"), "cortex-m7")


def check_or_keep(cases: list[Case], way: str, found: Iterable[list[tuple[np.ndarray, ...]]], regression: Path) -> list[str]:
    """What differs; the first difference is shrunk to a small graph and kept for test_regression.py."""
    wrong = [
        (case, found_text) for case, answers in zip(cases, found, strict=True) if (found_text := differences(case, answers))
    ]
    for case, text in wrong[:1]:
        name = f"{way}_{case.label.split()[-1]}"
        if not (regression / name).exists():
            shrink_and_keep(case.graph, case.vectors[int(text.split("vector ")[1].split(",")[0])], way, name, regression)
    return [f"{way}: {text}" for _, text in wrong]


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("start", range(0, LONG, CHUNK))
def test_many_graphs(start: int, tmp_path: Path) -> None:
    cases = [case_of(seed) for seed in range(1000 + start, 1000 + start + CHUNK)]
    wrong = check_or_keep(
        cases, "tflite-micro", (by_tflite_micro(case.graph, list(case.vectors)) for case in cases), REGRESSION
    )
    bundle = Bundle(tmp_path, cases)
    wrong += check_or_keep(cases, "host", bundle.run_host(bundle.host_program(host_toolchain())), REGRESSION)
    emulator = Emulator(bundle.arm_program(arm_toolchain(), "cortex-m4"), "cortex-m4")
    on_core = (
        [emulator.run(index, case.graph, layout, vector) for vector in case.vectors]
        for index, (case, layout) in enumerate(zip(cases, bundle.plans, strict=True))
    )
    wrong += check_or_keep(cases, "cortex-m4", on_core, REGRESSION)
    assert not wrong


def test_a_difference_is_kept_shrunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A simulator whose relu never answers 127 is found in a few graphs, and one small graph of it is kept."""
    right = type(registry()["relu"]).simulate
    monkeypatch.setattr(type(registry()["relu"]), "simulate", lambda *given: [np.minimum(right(*given)[0], 126)])
    cases = [case_of(seed) for seed in range(40)]
    found = [by_tflite_micro(case.graph, list(case.vectors)) for case in cases]
    wrong = check_or_keep(cases, "tflite-micro", found, tmp_path)
    assert wrong and all(text.startswith("tflite-micro: random graph ") for text in wrong)
    (folder,) = tmp_path.iterdir()
    assert (folder / "README.md").read_text().endswith("differed on relu.\n")
    assert check_or_keep(cases, "tflite-micro", found, tmp_path) == wrong, "what is kept is not shrunk again"
