"""The four MLPerf Tiny models in both arithmetics: simulator = generated C = outside oracle = emulated Cortex-M, and for the
keyword model = what real boards answered. 0 bytes."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from bundle import Bundle, Emulator, gcc_or_skip
from example_cases import Case
from mlperf_inputs import MODELS, board_answers, inputs_of

from firmware_export.emit import emit
from firmware_export.graph import Graph
from firmware_export.hostlib import HostNetwork
from firmware_export.oracle import oracle_name, run_oracle
from firmware_export.passes import simplify
from firmware_export.plan import plan
from firmware_export.read_tflite import read_tflite
from firmware_export.simulate import simulate
from firmware_export.target import Target

ARITHMETICS = ("double", "float32")
FEW, MANY, EMULATED = 20, 1000, 20
FPU = {"cortex-m4": "fpv4-sp-d16", "cortex-m3": "none"}
KEYWORD, RESNET = "kws_ref_model", "pretrainedResnet_quant"
each_model = pytest.mark.parametrize("name", sorted(MODELS))
each_arithmetic = pytest.mark.parametrize("arithmetic", ARITHMETICS)


@cache
def model_graph(path: Path, arithmetic: str) -> Graph:
    """The model as it is exported."""
    return simplify(read_tflite(path)).with_arithmetic(arithmetic)


def path_of(data: Path, name: str) -> Path:
    return data / "mlperf_tiny_models" / f"{name}.tflite"


def simulated(graph: Graph, images: np.ndarray) -> np.ndarray:
    """int8 [n, outputs]."""
    return np.stack([simulate(graph, image[np.newaxis])[0].reshape(-1) for image in images])


def compiled(graph: Graph, folder: Path, images: np.ndarray) -> np.ndarray:
    """The same from the C that the host and cores with the DSP extension run."""
    for name, text in emit(graph, plan(graph, Target.of("host", "balanced")), selftest=False).items():
        (folder / name).write_text(text)
    return HostNetwork(folder, optimize="s" if len(images) <= FEW else "3").run(images)[0].reshape(len(images), -1)


def compare(data: Path, name: str, arithmetic: str, folder: Path, count: int) -> None:
    graph, images = model_graph(path_of(data, name), arithmetic), inputs_of(data, name, count).images
    assert len(images) == count
    expected = simulated(graph, images)
    assert np.count_nonzero(compiled(graph, folder, images) != expected) == 0
    answers = run_oracle(graph, path_of(data, name).read_bytes(), tuple((image[np.newaxis],) for image in images))
    assert np.count_nonzero(np.stack([answer[0].reshape(-1) for answer in answers]) != expected) == 0
    assert len(np.unique(expected, axis=0)) > min(count // 3, 40)


@each_arithmetic
@each_model
def test_simulator_generated_c_and_oracle(name: str, arithmetic: str, shared_data: Path, tmp_path: Path) -> None:
    compare(shared_data, name, arithmetic, tmp_path, FEW)


@pytest.mark.long
@each_arithmetic
@each_model
def test_simulator_generated_c_and_oracle_long(name: str, arithmetic: str, shared_data: Path, tmp_path: Path) -> None:
    compare(shared_data, name, arithmetic, tmp_path, MANY)


def emulate(data: Path, name: str, arithmetic: str, core: str, folder: Path, count: int) -> None:
    """The core's own generated C, compiled with gcc, on an emulated core."""
    graph = model_graph(path_of(data, name), arithmetic)
    vectors = tuple((image[np.newaxis],) for image in inputs_of(data, name, count).images)
    case = Case(name, graph, vectors, tuple(tuple(simulate(graph, *vector)) for vector in vectors))
    bundle = Bundle(folder, [case], Target.of(core, "balanced"))
    emulator = Emulator(bundle.arm_program(gcc_or_skip(), core, fpu=FPU[core]), core)
    for vector, expected in zip(case.vectors, case.answers, strict=True):
        found = emulator.run(0, graph, bundle.plans[0], vector)
        assert [a.tobytes() for a in found] == [b.tobytes() for b in expected]


each_core = pytest.mark.parametrize("core", sorted(FPU))


@each_core
@each_arithmetic
@pytest.mark.parametrize("name", ["ad01_int8", KEYWORD])
def test_emulated_core(name: str, arithmetic: str, core: str, shared_data: Path, tmp_path: Path) -> None:
    emulate(shared_data, name, arithmetic, core, tmp_path, 1)


@pytest.mark.long
@each_core
@each_arithmetic
@each_model
def test_emulated_core_long(name: str, arithmetic: str, core: str, shared_data: Path, tmp_path: Path) -> None:
    emulate(shared_data, name, arithmetic, core, tmp_path, EMULATED)


@pytest.mark.parametrize(("arithmetic", "right"), [("double", 901), ("float32", 902)])
def test_a_real_board_answered_the_same_bytes(arithmetic: str, right: int, shared_data: Path) -> None:
    """A NUCLEO-L4R5ZI with TensorFlow Lite Micro, one with X-CUBE-AI 10.2: 12,000 bytes each."""
    graph, inputs = model_graph(path_of(shared_data, KEYWORD), arithmetic), inputs_of(shared_data, KEYWORD)
    board = board_answers(shared_data, arithmetic)
    found = simulated(graph, inputs.images)
    assert board.shape == found.shape == (1000, 12)
    assert np.count_nonzero(found != board) == 0
    assert int(np.count_nonzero(found.argmax(1) == inputs.labels)) == right


@pytest.mark.long
@each_arithmetic
def test_the_generated_c_answers_as_a_real_board(arithmetic: str, shared_data: Path, tmp_path: Path) -> None:
    graph, inputs = model_graph(path_of(shared_data, KEYWORD), arithmetic), inputs_of(shared_data, KEYWORD)
    assert np.array_equal(compiled(graph, tmp_path, inputs.images), board_answers(shared_data, arithmetic))


def test_the_two_boards_differ(shared_data: Path) -> None:
    """So the test above tells the arithmetics apart: in 908 bytes, by up to 22."""
    one, other = (board_answers(shared_data, arithmetic).astype(int) for arithmetic in ARITHMETICS)
    assert np.count_nonzero(one != other) == 908 and np.abs(one - other).max() == 22


@pytest.mark.long
@pytest.mark.parametrize(("arithmetic", "right"), [("double", 8708), ("float32", 8698)])
def test_resnet_on_all_test_images(arithmetic: str, right: int, shared_data: Path, tmp_path: Path) -> None:
    """10,000 images; 86.98 % is what LiteRT gives too."""
    inputs = inputs_of(shared_data, RESNET)
    found = compiled(model_graph(path_of(shared_data, RESNET), arithmetic), tmp_path, inputs.images)
    assert len(found) == 10_000
    assert int(np.count_nonzero(found.argmax(1) == inputs.labels)) == right


def test_who_the_oracle_is(shared_data: Path) -> None:
    names = {}
    for name in MODELS:
        graph = model_graph(path_of(shared_data, name), "float32")
        assert oracle_name(replace(graph, arithmetic="double")) == "TFLite Micro"
        names[name] = oracle_name(graph)
    assert names.pop("ad01_int8") == "LiteRT"
    assert set(names.values()) == {"LiteRT (softmax: TFLite Micro)"}
