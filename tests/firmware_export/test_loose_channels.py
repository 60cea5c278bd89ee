"""Fast convolutions some of whose channels have no short output stage: those alone get the reference's, the bytes are right."""

from __future__ import annotations

import numpy as np
import pytest
from bundle import Bundle, Emulator, gcc_or_skip
from example_cases import Case, differences

from firmware_export.graph import Graph, Node, Quantization, Tensor
from firmware_export.operators._accumulator import OutputStage
from firmware_export.packing.conv2d_r256 import LOOSE_SHARE, MAX_LOOSE, conv2d_layer
from firmware_export.packing.r256 import pack
from firmware_export.simulate import simulate
from firmware_export.target import Target
from firmware_export.toolchain import host_toolchain

TIE = 2.0**-7
"""A factor whose halves lie on accumulators: rounded to even they lie on no straight line."""


def convolution(ties: tuple[int, ...], outputs: int, kernel: int = 3, seed: int = 1, arithmetic: str = "float32") -> Graph:
    """Input and output have the scale 1, so that the weights' scales are the factors; the named channels have TIE."""
    rng = np.random.default_rng(seed)
    scales = (0.004 * np.exp2(rng.uniform(-1, 1, outputs))).astype(np.float32)
    scales[list(ties)] = TIE
    shape = (outputs, kernel, kernel, 5)
    weights = rng.integers(-127, 128, shape).astype(np.int8)
    edge = kernel // 2
    tensors = [
        Tensor("x", (1, 7, 6, 5), "int8", Quantization.per_tensor(1.0, -3)),
        Tensor("w", shape, "int8", Quantization(scales, np.zeros(outputs, np.int64), 0), weights),
        Tensor("b", (outputs,), "int32", None, rng.integers(-3000, 3000, outputs).astype(np.int32)),
        Tensor("y", (1, 7, 6, outputs), "int8", Quantization.per_tensor(1.0, -128)),
    ]
    attributes = {"stride": (1, 1), "dilation": (1, 1), "padding": (edge,) * 4, "clamp": (-128, 120)}
    return Graph(tensors, [Node("conv2d", (0, 1, 2), (3,), attributes)], (0,), (3,), arithmetic)


def case_of(graph: Graph, label: str) -> Case:
    rng = np.random.default_rng(4)
    vectors = tuple((rng.integers(-128, 128, (1, 7, 6, 5)).astype(np.int8),) for _ in range(3))
    return Case(label, graph, vectors, tuple(tuple(simulate(graph, *vector)) for vector in vectors))


CASES = {
    "one": convolution((3,), 16),
    "the first and the last": convolution((0, 15), 16),
    "three of thirteen": convolution((1, 5, 12), 13),
    "a pair in one record": convolution((6, 7), 16),
    "pointwise": convolution((2, 9, 10), 17, kernel=1),
    "eight of sixty-four": convolution(tuple(range(0, 64, 8)), 64),
}


@pytest.mark.parametrize("label", sorted(CASES))
def test_only_they_are_loose(label: str) -> None:
    graph = CASES[label]
    scales = graph.tensors[1].quantization
    assert scales is not None
    wanted = np.flatnonzero(scales.scale == np.float32(TIE))
    code = conv2d_layer(graph, graph.nodes[0])
    constants = {constant.suffix: constant.data for constant in code.constants}
    assert "_linear_" in code.function
    assert set(wanted) <= set(constants["loose_channels"].tolist())
    assert int(code.fields["loose"]) == constants["loose_channels"].size <= MAX_LOOSE
    assert constants["loose_weights"].size == int(code.fields["loose_limit"]) + 1
    assert "scales" in constants, "the reference's tables"


def test_too_many_make_the_layer_general() -> None:
    outputs = 16
    graph = convolution(tuple(range(outputs // LOOSE_SHARE + 1)), outputs)
    code = conv2d_layer(graph, graph.nodes[0])
    assert code.function == "nn_conv2d_r256_general" and "loose" not in code.fields


def test_none_where_every_channel_has_a_form() -> None:
    graph = convolution((), 4, arithmetic="double")
    code = conv2d_layer(graph, graph.nodes[0])
    assert "loose" not in code.fields and {constant.suffix for constant in code.constants} == {"weights"}


def test_the_records_of_loose_channels_are_those_of_the_general_kernel() -> None:
    rng = np.random.default_rng(3)
    weights, bias = rng.integers(-100, 101, (8, 12)), rng.integers(-500, 500, 8)
    factors = np.array([0.01, TIE, 0.013, 0.017, 0.011, 0.012, TIE, 0.014], np.float32)
    stage = OutputStage.from_scales("float32", 1.0, factors, 1.0, 8, -128, (-128, 127))
    options = {"group": 2, "words": 3, "shifts": (10, 7)}
    mixed = pack(weights, bias, 4, stage, most_loose=8, **options)
    places = mixed.loose
    assert {1, 6} <= set(places.tolist()) < set(range(8)) and mixed.form is not None and mixed.needs_stage
    picked = OutputStage.from_scales("float32", 1.0, factors[places], 1.0, len(places), -128, (-128, 127))
    alone = pack(weights[places], bias[places], 4, picked, **options)
    assert alone.form is None and np.array_equal(mixed.loose_words, alone.words)
    assert pack(weights, bias, 4, stage, most_loose=len(places) - 1, **options).form is None


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    cases = [case_of(graph, label) for label, graph in CASES.items()]
    return Bundle(tmp_path_factory.mktemp("loose"), cases, Target("dsp", "flash"))


def test_host(bundle: Bundle) -> None:
    assert all("_linear_" in layout.codes[0].function for layout in bundle.plans)
    for case, found in zip(bundle.cases, bundle.run_host(bundle.host_program(host_toolchain())), strict=True):
        assert differences(case, found) == ""


@pytest.mark.parametrize("fpu", ["none", "fpv4-sp-d16"])
def test_cortex_m4(bundle: Bundle, fpu: str) -> None:
    emulator = Emulator(bundle.arm_program(gcc_or_skip(), "cortex-m4", fpu=fpu), "cortex-m4")
    for index, (case, layout) in enumerate(zip(bundle.cases, bundle.plans, strict=True)):
        found = [emulator.run(index, case.graph, layout, vector) for vector in case.vectors]
        assert differences(case, found) == ""


def test_scratch_grows_with_the_loose_channels() -> None:
    """24 bytes for each pair: the sums of three pixels."""
    codes = [conv2d_layer(CASES[label], CASES[label].nodes[0]) for label in ("one", "eight of sixty-four")]
    pairs = [(int(code.fields["loose"]) + 1) // 2 for code in codes]
    assert codes[1].scratch_bytes - codes[0].scratch_bytes == 24 * (pairs[1] - pairs[0]) > 0
