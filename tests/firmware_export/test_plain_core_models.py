"""The four MLPerf Tiny models layer by layer on Cortex-M3 and M0+: every byte right, instructions, constants, code."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from firmware_builder import compiler, needs_gcc
from kernel_harness.machine import Image, Run, run_host, run_unicorn
from kernel_harness.program import Case, build_program, host
from plain_core_cases import CORES

from firmware_export.graph import Graph
from firmware_export.kernels import node_options
from firmware_export.passes import simplify
from firmware_export.read_tflite import read_tflite
from firmware_export.simulate import simulate_trace
from firmware_export.target import Target


@dataclass(frozen=True)
class Budget:
    """What the whole model may take: executed instructions, bytes of kernels, constants beside the model's own in percent.

    tflm: instructions of TFLite Micro with CMSIS-NN, in its best build.
    """

    instructions: int
    tflm: int
    code: int
    constants: float


BUDGETS = {
    ("pretrainedResnet_quant", "v7m"): Budget(16_030_000, 41_800_000, 7_900, 5),
    ("pretrainedResnet_quant", "v6m"): Budget(30_560_000, 97_600_000, 7_300, 5),
    ("kws_ref_model", "v7m"): Budget(4_010_000, 10_500_000, 6_900, 11.5),
    ("kws_ref_model", "v6m"): Budget(8_440_000, 29_000_000, 6_600, 11.5),
    ("vww_96_int8", "v7m"): Budget(6_870_000, 32_100_000, 7_200, 17),
    ("vww_96_int8", "v6m"): Budget(15_560_000, 86_900_000, 7_100, 17),
    ("ad01_int8", "v7m"): Budget(337_000, 960_000, 1_500, 5),
    ("ad01_int8", "v6m"): Budget(942_000, 1_760_000, 1_800, 5),
}
SLOW = ("nn_softmax",)


@cache
def model(path: Path, core_class: str) -> tuple[Graph, list[Case]]:
    """A model without what is never needed, and a case for each of its layers with what the layers before made."""
    graph = simplify(read_tflite(path))
    rng = np.random.default_rng(1)
    inputs = [rng.integers(-128, 128, graph.tensors[index].shape).astype(np.int8) for index in graph.inputs]
    values = dict(zip(graph.inputs, inputs, strict=True))
    cases = []
    for node, outputs in zip(graph.nodes, simulate_trace(graph, *inputs), strict=True):
        values |= dict(zip(node.outputs, outputs, strict=True))
        if node.op != "reshape":
            given = tuple(values[index] for index in graph.activation_inputs(node))
            cases.append(Case(node_options(graph, node, Target(core_class, "time"))[0], given, outputs[0]))
    return graph, cases


@cache
def run(path: Path, core_class: str) -> tuple[Run, int]:
    """A model on a core of the class; and the bytes of its kernels."""
    elf = build_program(model(path, core_class)[1], compiler("gcc"), CORES[core_class])
    surroundings = ("case_", "run_cases", "finish", "marker", "reset_handler", "fault", "semihosting", "put")
    surroundings += ("wrong_bytes", "touched_bytes", "may_change", "pattern")
    functions = {(address, size) for name, (address, size) in Image(elf).symbols.items() if not name.startswith(surroundings)}
    code = sum(size for address, size in functions if 0 < address < 0x20000000 and address % 2)
    return run_unicorn(elf, CORES[core_class]), code


def model_path(shared_data: Path, name: str) -> Path:
    return shared_data / "mlperf_tiny_models" / f"{name}.tflite"


each_model = pytest.mark.parametrize("name, core_class", BUDGETS)


@needs_gcc
@each_model
def test_every_byte_and_every_instruction(name: str, core_class: str, shared_data: Path) -> None:
    path, budget = model_path(shared_data, name), BUDGETS[name, core_class]
    found, code = run(path, core_class)
    assert found.failures == [0] * len(found.failures)
    assert sum(found.instructions) <= budget.instructions
    assert code <= budget.code


@each_model
def test_at_most_half_of_tflite_micro(name: str, core_class: str) -> None:
    """But for the autoencoder on a Cortex-M0+: a load, a multiplication and an addition for each of its products."""
    budget = BUDGETS[name, core_class]
    most = 0.54 if (name, core_class) == ("ad01_int8", "v6m") else 0.5
    assert budget.instructions <= most * budget.tflm


@each_model
def test_constants_are_little_more_than_the_models(name: str, core_class: str, shared_data: Path) -> None:
    """Weights at a byte each; start and factor of each channel instead of its bias. Tables of a softmax do not count."""
    graph, cases = model(model_path(shared_data, name), core_class)
    ours = sum(c.data.nbytes for case in cases if case.code.function not in SLOW for c in case.code.constants)
    assert ours <= graph.weights_bytes() * (1 + BUDGETS[name, core_class].constants / 100)


@each_model
def test_every_layer_with_weights_has_a_fast_kernel(name: str, core_class: str, shared_data: Path) -> None:
    graph, cases = model(model_path(shared_data, name), core_class)
    slow = {case.code.function for case in cases if not any(word in case.code.function for word in ("trio", "octet", "linear"))}
    assert slow <= {"nn_softmax", "nn_average_pool2d", "nn_average_pool2d_fast"}
    assert graph.nodes


@pytest.mark.parametrize("name", ["kws_ref_model", "ad01_int8"])
def test_the_host_runs_the_same_packed_layers(name: str, shared_data: Path) -> None:
    for core_class in CORES:
        assert not run_host(build_program(model(model_path(shared_data, name), core_class)[1], host(), "host")).failed
