"""The four MLPerf Tiny models layer by layer at their real shapes: every byte right, instructions, constants, code."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
from firmware_builder import compiler, needs_gcc
from kernel_harness.machine import Image, Run, run_host, run_unicorn
from kernel_harness.program import Case, build_program, host

from firmware_export.graph import Graph, Node
from firmware_export.operators import LayerCode, operator_of
from firmware_export.packing import Unpackable
from firmware_export.packing.add_linear import add_layer
from firmware_export.packing.conv2d_r256 import conv2d_layer
from firmware_export.packing.conv2d_winograd import winograd_layer
from firmware_export.packing.depthwise_planes import depthwise_layer
from firmware_export.packing.fully_connected_r256 import fully_connected_layer
from firmware_export.packing.pools import fast_pool
from firmware_export.read_tflite import read_tflite
from firmware_export.simulate import simulate_trace

WINOGRAD_SCRATCH = 26_000
PACKERS = {
    "conv2d": (partial(winograd_layer, scratch_limit=WINOGRAD_SCRATCH), conv2d_layer),
    "depthwise_conv2d": (depthwise_layer,),
    "fully_connected": (fully_connected_layer,),
    "add": (add_layer,),
}


@dataclass(frozen=True)
class Budget:
    """What the whole model may take: executed instructions, bytes of kernels, constants beside the model's own in percent.

    direct: instructions without Winograd's scratch.
    """

    instructions: int
    direct: int
    code: int
    constants: float


BUDGETS = {
    "pretrainedResnet_quant": Budget(7_800_000, 10_800_000, 11_200, 5),
    "kws_ref_model": Budget(2_500_000, 2_500_000, 8_500, 10),
    "vww_96_int8": Budget(7_610_000, 7_610_000, 8_700, 7),
    "ad01_int8": Budget(246_000, 246_000, 1_800, 5),
}


def code_of(graph: Graph, node: Node, *, direct: bool) -> LayerCode:
    """The fastest kernel that can be packed."""
    for packer in PACKERS.get(node.op, ())[1 if direct and node.op == "conv2d" else 0 :]:
        try:
            return packer(graph, node)
        except Unpackable:
            continue
    return fast_pool(operator_of(node).emit(graph, node))


@cache
def model(path: Path, direct: bool) -> tuple[Graph, list[Case]]:
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
            cases.append(Case(code_of(graph, node, direct=direct), given, outputs[0]))
    return graph, cases


@cache
def run(path: Path, direct: bool) -> tuple[Run, int]:
    """A model on a Cortex-M4; and the bytes of its kernels."""
    elf = build_program(model(path, direct)[1], compiler("gcc"))
    surroundings = ("case_", "run_cases", "finish", "marker", "reset_handler", "fault", "semihosting", "put")
    surroundings += ("wrong_bytes", "touched_bytes", "may_change", "pattern", "start", "print", "mem", "copy_up")
    functions = {(address, size) for name, (address, size) in Image(elf).symbols.items() if not name.startswith(surroundings)}
    return run_unicorn(elf), sum(size for address, size in functions if 0 < address < 0x20000000 and address % 2)


def model_path(shared_data: Path, name: str) -> Path:
    return shared_data / "mlperf_tiny_models" / f"{name}.tflite"


each_model = pytest.mark.parametrize("name", sorted(BUDGETS))


@needs_gcc
@each_model
def test_every_byte_and_every_instruction(name: str, shared_data: Path) -> None:
    path, budget = model_path(shared_data, name), BUDGETS[name]
    found, code = run(path, False)
    assert found.failures == [0] * len(found.failures)
    assert sum(found.instructions) <= budget.instructions
    assert code <= budget.code


@needs_gcc
def test_without_scratch_for_winograd(shared_data: Path) -> None:
    path = model_path(shared_data, "pretrainedResnet_quant")
    found, _ = run(path, True)
    assert not found.failed
    assert sum(found.instructions) <= BUDGETS["pretrainedResnet_quant"].direct


@each_model
def test_the_host_runs_the_same_packed_layers(name: str, shared_data: Path) -> None:
    _, cases = model(model_path(shared_data, name), False)
    assert not run_host(build_program(cases, host(), "host")).failed


@each_model
def test_constants_are_little_more_than_the_models(name: str, shared_data: Path) -> None:
    """Weights at a byte each; start and factor of each channel instead of its bias. Tables of a softmax do not count."""
    graph, cases = model(model_path(shared_data, name), False)
    ours = sum(c.data.nbytes for case in cases if case.code.function != "nn_softmax" for c in case.code.constants)
    assert ours <= graph.weights_bytes() * (1 + BUDGETS[name].constants / 100)


@each_model
def test_nearly_every_layer_has_a_fast_kernel(name: str, shared_data: Path) -> None:
    _, cases = model(model_path(shared_data, name), False)
    slow = [case.code.function for case in cases if not any(word in case.code.function for word in FAST_WORDS)]
    assert slow in ([], ["nn_softmax"])


FAST_WORDS = ("r256", "planes", "winograd", "linear", "fast")


@needs_gcc
@pytest.mark.parametrize(
    "name, op, most", [("kws_ref_model", "depthwise", 1.75), ("kws_ref_model", "conv2d", 0.95), ("ad01_int8", "fully", 0.94)]
)
def test_instructions_for_each_product(name: str, op: str, most: float, shared_data: Path) -> None:
    """Over all layers of a kind, everything included."""
    path = model_path(shared_data, name)
    graph, cases = model(path, False)
    macs = sum(operator_of(node).macs(graph, node) for node in graph.nodes if node.op.startswith(op))
    counts = [count for case, count in zip(cases, run(path, False)[0].instructions, strict=True) if op in case.code.function]
    assert counts and sum(counts) / macs <= most
