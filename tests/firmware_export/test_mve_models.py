"""The four MLPerf Tiny models layer by layer on a Cortex-M55 and a Cortex-M33: every byte, instructions, constants, code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from firmware_builder import compiler, needs_gcc
from kernel_harness.machine import Image, Run, run_host, run_qemu
from kernel_harness.program import Case, build_program, host
from mve_checks import CORE, FPU, needs_qemu

from firmware_export.graph import Graph, Node
from firmware_export.operators import LayerCode, operator_of
from firmware_export.packing import (
    Unpackable,
    add_linear,
    add_mve,
    conv2d_mve,
    conv2d_r256,
    depthwise_mve,
    depthwise_planes,
    fully_connected_mve,
    fully_connected_r256,
)
from firmware_export.packing.pools import fast_pool
from firmware_export.read_tflite import read_tflite
from firmware_export.simulate import simulate_trace

Packers = dict[str, Callable[[Graph, Node], LayerCode]]
PACKERS: dict[str, Packers] = {
    "cortex-m55": {
        "add": add_mve.add_layer,
        "conv2d": conv2d_mve.conv2d_layer,
        "depthwise_conv2d": depthwise_mve.depthwise_layer,
        "fully_connected": fully_connected_mve.fully_connected_layer,
    },
    "cortex-m33": {
        "add": add_linear.add_layer,
        "conv2d": conv2d_r256.conv2d_layer,
        "depthwise_conv2d": depthwise_planes.depthwise_layer,
        "fully_connected": fully_connected_r256.fully_connected_layer,
    },
}
FPUS = {"cortex-m55": FPU, "cortex-m33": "none"}


@dataclass(frozen=True)
class Budget:
    """Executed instructions on a Cortex-M55, bytes of kernels there, constants beyond the model's own in percent.

    reference: instructions of TFLite Micro with CMSIS-NN's Helium kernels, counted in the same emulator.
    m33: instructions on a Cortex-M33, without Winograd.
    """

    instructions: int
    code: int
    constants: float
    reference: int
    m33: int


BUDGETS = {
    "pretrainedResnet_quant": Budget(2_310_000, 8_000, 5, 4_800_000, 10_800_000),
    "kws_ref_model": Budget(770_000, 8_000, 16, 1_800_000, 2_500_000),
    "vww_96_int8": Budget(2_260_000, 8_000, 9, 6_400_000, 7_610_000),
    "ad01_int8": Budget(48_000, 3_000, 5, 290_000, 246_000),
}
each_model = pytest.mark.parametrize("name", sorted(BUDGETS))


def code_of(graph: Graph, node: Node, packers: Packers) -> LayerCode:
    """The fast kernel, else the operator's own."""
    try:
        return packers[node.op](graph, node)
    except (KeyError, Unpackable):
        return fast_pool(operator_of(node).emit(graph, node))


@cache
def model(path: Path, core: str) -> tuple[Graph, list[Case]]:
    """A model, and a case for each of its layers with what the layers before made of a random input."""
    graph = read_tflite(path)
    rng = np.random.default_rng(1)
    inputs = [rng.integers(-128, 128, graph.tensors[index].shape).astype(np.int8) for index in graph.inputs]
    values = dict(zip(graph.inputs, inputs, strict=True))
    cases = []
    for node, outputs in zip(graph.nodes, simulate_trace(graph, *inputs), strict=True):
        values |= dict(zip(node.outputs, outputs, strict=True))
        if node.op != "reshape":
            given = tuple(values[index] for index in graph.activation_inputs(node))
            cases.append(Case(code_of(graph, node, PACKERS[core]), given, outputs[0]))
    return graph, cases


@cache
def run(path: Path, core: str) -> tuple[Run, int]:
    """A model on a core; and the bytes of its kernels."""
    elf = build_program(model(path, core)[1], compiler("gcc"), core, FPUS[core])
    surroundings = ("case_", "run_cases", "finish", "print", "marker", "reset_handler", "start", "fault", "semihosting", "put")
    surroundings += ("wrong_bytes", "touched_bytes", "may_change", "pattern")
    functions = {(address, size) for name, (address, size) in Image(elf).symbols.items() if not name.startswith(surroundings)}
    begin, end = (0x11000000, 0x11200000) if core == CORE else (0x10000000, 0x10400000)
    return run_qemu(elf, core), sum(size for address, size in functions if begin <= address < end and address % 2)


def model_path(shared_data: Path, name: str) -> Path:
    return shared_data / "mlperf_tiny_models" / f"{name}.tflite"


@needs_qemu
@needs_gcc
@each_model
def test_cortex_m55(name: str, shared_data: Path) -> None:
    """Every byte, every instruction, and the bytes of all kernels together; less than half of the reference."""
    path, budget = model_path(shared_data, name), BUDGETS[name]
    found, code = run(path, "cortex-m55")
    assert found.failures == [0] * len(model(path, "cortex-m55")[1])
    assert sum(found.instructions) <= budget.instructions <= budget.reference / 1.9
    assert 500 < code <= budget.code


@needs_qemu
@needs_gcc
@each_model
def test_the_packers_know_about_how_much_they_cost(name: str, shared_data: Path) -> None:
    """What the planner weighs against memory: within a quarter for every layer of some size, within a tenth in all."""
    path = model_path(shared_data, name)
    cases, counts = model(path, "cortex-m55")[1], run(path, "cortex-m55")[0].instructions
    known = [(case.code, count) for case, count in zip(cases, counts, strict=True) if case.code.instructions]
    assert sum(count for _, count in known) > 0.9 * sum(counts)
    wrong = [code.summary for code, count in known if count > 5000 and not 0.75 < code.instructions / count < 1.25]
    assert wrong == []
    assert 0.9 < sum(code.instructions for code, _ in known) / sum(count for _, count in known) < 1.1


@needs_qemu
@needs_gcc
@pytest.mark.long
@each_model
def test_cortex_m33(name: str, shared_data: Path) -> None:
    """The kernels of the DSP extension as they are."""
    path = model_path(shared_data, name)
    found, _ = run(path, "cortex-m33")
    assert found.failures == [0] * len(model(path, "cortex-m33")[1])
    assert sum(found.instructions) <= BUDGETS[name].m33


@pytest.mark.long
@each_model
def test_the_host_runs_the_same_packed_layers(name: str, shared_data: Path) -> None:
    _, cases = model(model_path(shared_data, name), "cortex-m55")
    assert not run_host(build_program(cases, host(), "host")).failed


@each_model
def test_constants_are_little_more_than_the_models(name: str, shared_data: Path) -> None:
    """Weights at a byte each; start, multiplier and shift of each channel instead of its bias."""
    graph, cases = model(model_path(shared_data, name), "cortex-m55")
    ours = sum(c.data.nbytes for case in cases if case.code.function != "nn_softmax" for c in case.code.constants)
    assert ours <= graph.weights_bytes() * (1 + BUDGETS[name].constants / 100)


@each_model
def test_nearly_every_layer_has_a_fast_kernel(name: str, shared_data: Path) -> None:
    _, cases = model(model_path(shared_data, name), "cortex-m55")
    slow = [case.code.function for case in cases if not any(word in case.code.function for word in ("_mve_", "_fast"))]
    assert slow in ([], ["nn_softmax"])
