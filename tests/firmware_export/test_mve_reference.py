"""The four MLPerf Tiny models, whole, as generated for a Cortex-M55 and a Cortex-M33: the tflite-micro wheel's very bytes."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from core_networks import Network, run_networks
from firmware_builder import COMPILER, compiler
from mve_checks import needs_qemu
from oracles import tflite_micro

from firmware_export.passes import simplify
from firmware_export.read_tflite import read_tflite
from firmware_export.target import Target

CORES = {"cortex-m55": "fpv5-d16", "cortex-m33": "fpv5-sp-d16"}
MODELS = ("ad01_int8", "kws_ref_model", "pretrainedResnet_quant", "vww_96_int8")
MOST = {
    "cortex-m55": dict(zip(MODELS, (48_000, 850_000, 2_360_000, 1_660_000), strict=True)),
    "cortex-m33": dict(zip(MODELS, (287_000, 3_600_000, 11_000_000, 11_300_000), strict=True)),
}
"""Instructions of one inference, passes and memory plan included; on the Cortex-M33 half of TFLite Micro's with CMSIS-NN."""


@cache
def network(path: Path, core: str) -> Network:
    """The simplified model, with inputs at random and what the wheel makes of them with the original file."""
    made = Network.of(simplify(read_tflite(path)), Target.of(core, "balanced"), seed=3)
    outputs = tflite_micro(path.read_bytes(), list(made.inputs), len(made.outputs))
    return Network(made.graph, made.layout, made.inputs, tuple(outputs))


def model_path(shared_data: Path, name: str) -> Path:
    return shared_data / "mlperf_tiny_models" / f"{name}.tflite"


@needs_qemu
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("core", sorted(CORES))
def test_the_wheels_bytes(name: str, core: str, shared_data: Path) -> None:
    run = run_networks([network(model_path(shared_data, name), core)], compiler(COMPILER), core, CORES[core])
    assert run.failures == [0]
    assert run.instructions[0] <= MOST[core][name]


@needs_qemu
def test_all_models_share_one_program(shared_data: Path) -> None:
    """One after the other in one buffer: none leaves anything behind that the next one trips over."""
    found = [network(model_path(shared_data, name), "cortex-m55") for name in MODELS]
    run = run_networks([*found, found[0]], compiler("zig"), "cortex-m55", CORES["cortex-m55"])
    assert run.failures == [0] * (len(MODELS) + 1)
    assert abs(run.instructions[0] - run.instructions[-1]) < 20


@pytest.mark.parametrize("name", MODELS)
def test_the_planners_estimate(name: str, shared_data: Path) -> None:
    """What plans are chosen by lies within a fifth of the budget that is measured."""
    found = network(model_path(shared_data, name), "cortex-m55")
    assert 0.7 * MOST["cortex-m55"][name] < found.layout.instructions < 1.2 * MOST["cortex-m55"][name]


@pytest.mark.parametrize("name", MODELS)
def test_memory(name: str, shared_data: Path) -> None:
    """Kernels for Helium need little beside what the network itself does."""
    found = network(model_path(shared_data, name), "cortex-m55")
    shapes = [found.graph.tensors[index].nbytes for index in found.layout.offsets]
    assert max(shapes) <= found.layout.size <= 2 * max(shapes) + 8_192
    for code in found.layout.codes:
        assert code.scratch_bytes <= 8_192, code.summary


@pytest.mark.parametrize("name", MODELS)
def test_inputs_and_answers_are_worth_comparing(name: str, shared_data: Path) -> None:
    """Random inputs that fill the range, answers as they are stored."""
    found = network(model_path(shared_data, name), "cortex-m55")
    assert all(np.ptp(x.astype(int)) > 200 for x in found.inputs)
    assert all(output.dtype == np.int8 for output in found.outputs)
