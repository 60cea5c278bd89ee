"""Kernels that may be offered for a node: of which core classes, in which order, and what is left when none can take it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from graph_builder import Build
from packed_cases import trained_layer

import firmware_export.kernels
from firmware_export.graph import ABSENT, Graph, Node, Quantization
from firmware_export.hostlib import RUNTIME, runtime_files
from firmware_export.kernels import kernel_options, node_options
from firmware_export.operators import LayerCode, operator_of
from firmware_export.packing import Unpackable
from firmware_export.packing.plain_cores import OWN_DEPTHWISE
from firmware_export.packing.pools import fast_pool
from firmware_export.target import CORE_CLASSES, GOALS, PORTABLE, Target, export_stage
from firmware_export.toolchain import CORES

CLASSES = (PORTABLE, "dsp", "mve", "v7m", "v6m")
ONLY = {
    "r256": {"dsp"},
    "winograd": {"dsp"},
    "planes": {"dsp"},
    "mve": {"mve"},
    "trio": {"v7m", "v6m"},
    "octet": {"v7m", "v6m"},
    "linear": {"dsp", "v7m", "v6m"},
    "fast": {"dsp", "mve", "v7m"},
}
"""A part of a C file's name -> the core classes that have its inner steps, by the files' own first lines."""


def image(op: str, shape: tuple[int, ...], **attributes: object) -> Graph:
    build = Build()
    x = build.activation((1, 4, 4, 8), name="x")
    return build.graph(x, build.node(op, (x,), build.activation(shape), **attributes))


def pool(op: str) -> Graph:
    return image(op, (1, 2, 2, 8), kernel=(2, 2), stride=(2, 2), padding=(0, 0, 0, 0), clamp=(-128, 127))


def vector() -> Graph:
    build = Build()
    x = build.activation((1, 64), name="x")
    return build.graph(x, build.fully_connected(x, 16))


def total() -> Graph:
    build = Build()
    x, y = (build.activation((1, 4, 4, 8), name=name) for name in "xy")
    return build.graph((x, y), build.node("add", (x, y), build.activation((1, 4, 4, 8), 0.1), clamp=(-128, 127)))


LAYERS = {
    "conv2d": trained_layer(np.random.default_rng(0), "conv2d", (8, 8, 8), (8, 3, 3, 8)),
    "pointwise": trained_layer(np.random.default_rng(1), "conv2d", (6, 6, 8), (8, 1, 1, 8), zero_points=(-128, 5)),
    "depthwise_conv2d": trained_layer(np.random.default_rng(2), "depthwise_conv2d", (8, 8, 8), (1, 3, 3, 8)),
    "fully_connected": vector(),
    "add": total(),
    "max_pool2d": pool("max_pool2d"),
    "average_pool2d": pool("average_pool2d"),
    "mean": image("mean", (1, 8), axes=(1, 2), keep_dims=False),
    "relu": image("relu", (1, 4, 4, 8), clamp=(0, 127)),
}
FIRST = {
    "conv2d": {"dsp": "winograd", "mve": "conv2d_mve", "v7m": "conv2d_trio", "v6m": "conv2d_trio"},
    "pointwise": {"dsp": "conv2d_r256", "mve": "conv2d_mve", "v7m": "conv2d_trio", "v6m": "conv2d_trio"},
    "depthwise_conv2d": {"dsp": "planes", "mve": "depthwise_mve", "v7m": "depthwise_trio", "v6m": "depthwise_trio"},
    "fully_connected": {"dsp": "r256", "mve": "fully_connected_mve", "v7m": "octet", "v6m": "octet"},
    "add": {"dsp": "add_linear", "mve": "add_mve", "v7m": "add_linear", "v6m": "add_linear"},
    "max_pool2d": {"dsp": "max_pool2d_fast", "mve": "max_pool2d_fast", "v7m": "max_pool2d", "v6m": "max_pool2d"},
    "average_pool2d": {"dsp": "pool2d_fast", "mve": "pool2d_fast", "v7m": "pool2d_fast", "v6m": "average_pool2d"},
    "mean": {"dsp": "mean_fast", "mve": "mean_fast", "v7m": "mean_fast", "v6m": "mean"},
    "relu": {"dsp": "relu", "mve": "relu", "v7m": "relu", "v6m": "relu"},
}
"""What each class runs first under the goal "time"."""


def codes_of(layer: str, core_class: str, goal: str = "balanced") -> list[LayerCode]:
    graph = LAYERS[layer]
    return node_options(graph, graph.nodes[0], Target(core_class, goal))


@pytest.mark.parametrize("goal", GOALS)
@pytest.mark.parametrize("core_class", CLASSES)
def test_no_kernel_of_another_core_class_is_offered(core_class: str, goal: str) -> None:
    for layer in LAYERS:
        for code in codes_of(layer, core_class, goal):
            words = set(code.sources[0].removesuffix(".c").split("_"))
            assert all(core_class in ONLY[word] for word in words & ONLY.keys()), (layer, code.function)


@pytest.mark.parametrize("layer", LAYERS)
def test_each_class_has_its_own_kernel_first(layer: str) -> None:
    for core_class, part in FIRST[layer].items():
        codes = codes_of(layer, core_class, "time")
        assert part in codes[0].function, (core_class, codes[0].function)
    assert (
        codes_of(layer, PORTABLE)[0].function
        in operator_of(LAYERS[layer].nodes[0]).emit(LAYERS[layer], LAYERS[layer].nodes[0]).function
    )


@pytest.mark.parametrize("goal", GOALS)
def test_portable_code_is_the_operators_own_under_every_goal(goal: str) -> None:
    for layer, graph in LAYERS.items():
        (code,) = codes_of(layer, PORTABLE, goal)
        own = operator_of(graph.nodes[0]).emit(graph, graph.nodes[0])
        assert (code.function, code.sources, code.fields) == (own.function, own.sources, own.fields)


def test_flash_leaves_winograds_kernels_out_and_nothing_else() -> None:
    """Winograd's weights are 16 for 9."""
    names = {goal: {code.function for code in codes_of("conv2d", "dsp", goal)} for goal in GOALS}
    assert names["time"] == names["ram"] == names["balanced"] > names["flash"]
    assert all("winograd" in name for name in names["time"] - names["flash"])
    for layer in ("depthwise_conv2d", "fully_connected", "add", "mean"):
        assert len({tuple(code.function for code in codes_of(layer, "dsp", goal)) for goal in GOALS}) == 1


@pytest.mark.parametrize("core_class", CLASSES)
@pytest.mark.parametrize("layer", LAYERS)
def test_every_calls_files_exist_and_its_header_has_the_parameters(layer: str, core_class: str) -> None:
    for code in codes_of(layer, core_class):
        files = [RUNTIME / name for name in code.sources]
        assert all(path.is_file() for path in files) and len(set(code.sources)) == len(code.sources)
        header = RUNTIME / f"{Path(code.sources[0]).stem}.h"
        assert any(code.params_type in path.read_text() for path in (header, *runtime_files([header])))


def test_smaller_scratch_is_offered_where_it_costs_instructions() -> None:
    """Depthwise planes and copied borders: never two that differ in nothing but their names."""
    depthwise = {(code.scratch_bytes, code.instructions) for code in codes_of("depthwise_conv2d", "dsp")}
    assert len(depthwise) >= 5 and min(depthwise)[0] == 3 * 128, "three rows of one plane"
    assert max(depthwise)[0] == 4 * 10 * 128, "four planes of 8 rows with a border"
    by_scratch = sorted({code.scratch_bytes: code.instructions for code in codes_of("conv2d", "dsp")}.items())
    assert by_scratch[0][1] == max(instructions for _, instructions in by_scratch)
    vectors = codes_of("fully_connected", "dsp")
    assert [code.scratch_bytes for code in vectors] == [2 * 64, 0], "two lanes of 16 bits for each byte, or none"
    assert vectors[0].instructions < vectors[1].instructions


@pytest.mark.parametrize("core_class, each", [("v7m", 10), ("v6m", 24)])
def test_plain_cores_may_leave_depthwise_to_the_operators_own_kernel(core_class: str, each: int) -> None:
    fast, own = codes_of("depthwise_conv2d", core_class)
    assert own.function == "nn_depthwise_conv2d" and own.scratch_bytes == 9 * 8
    assert own.instructions == each * (8 * 8 * 8 * 9) == OWN_DEPTHWISE[core_class] * 4608
    assert fast.instructions < own.instructions and fast.scratch_bytes > own.scratch_bytes


def test_portable_instructions_are_products_outputs_and_bytes_that_move() -> None:
    """8 for a product, 20 for an output, 2 for a byte that only moves; at least 20."""
    assert codes_of("conv2d", PORTABLE)[0].instructions == 8 * (8 * 8 * 8 * 72) + 20 * (8 * 8 * 8)
    assert codes_of("fully_connected", PORTABLE)[0].instructions == 8 * 64 * 16 + 20 * 16
    assert codes_of("relu", PORTABLE)[0].instructions == 20 * 128
    assert codes_of("max_pool2d", PORTABLE)[0].instructions == 20 * 32
    build = Build()
    x = build.activation((1, 4, 4, 8), name="x")
    moved = build.graph(x, build.reshape(x, (1, 128)))
    assert node_options(moved, moved.nodes[0], Target())[0].instructions == 2 * 128
    build = Build()
    x = build.activation((1, 4), name="x")
    few = build.graph(x, build.node("reshape", (x,), build.activation((4,)), shape=(4,)))
    assert node_options(few, few.nodes[0], Target())[0].instructions == 20


def refusing(graph: Graph, node: Node) -> LayerCode:
    raise Unpackable(f"{node.op} of {len(graph.nodes)} nodes")


def unrated(graph: Graph, node: Node, *, function: str) -> LayerCode:
    return LayerCode(function, "", {}, summary="made for a test")


def with_packers(monkeypatch: pytest.MonkeyPatch, core_class: str, op: str, *packers: object) -> None:
    table = {(core_class, "balanced"): {op: packers}}
    monkeypatch.setattr(firmware_export.kernels, "_PACKERS", table)


@pytest.mark.parametrize("core_class, function", [("dsp", "nn_mean_fast"), ("mve", "nn_mean_fast"), ("v7m", "nn_mean")])
def test_when_every_packer_refuses_the_operators_own_kernel_runs(
    core_class: str, function: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pools of cores with vectors of bytes have a fast form that takes everything."""
    with_packers(monkeypatch, core_class, "mean", refusing, refusing)
    (code,) = codes_of("mean", core_class)
    assert code.function == function
    with_packers(monkeypatch, core_class, "conv2d", refusing)
    (code,) = codes_of("conv2d", core_class)
    own = operator_of(LAYERS["conv2d"].nodes[0]).emit(LAYERS["conv2d"], LAYERS["conv2d"].nodes[0])
    assert code.function == own.function and [c.suffix for c in code.constants] == [c.suffix for c in own.constants]


def test_refusals_leave_the_order_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    packers = [
        refusing,
        partial(unrated, function="a"),
        refusing,
        partial(unrated, function="b"),
        partial(unrated, function="c"),
    ]
    with_packers(monkeypatch, "dsp", "relu", *packers)
    codes = codes_of("relu", "dsp")
    assert [code.function for code in codes] == ["a", "b", "c"]
    base = 20 * 128
    assert [code.instructions for code in codes] == [base, base * 21 // 20, base * 22 // 20], "a twentieth for each before it"


def test_other_failures_of_a_packer_are_not_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(graph: Graph, node: Node) -> LayerCode:
        raise ValueError("a packer is wrong")

    with_packers(monkeypatch, "dsp", "relu", broken)
    with pytest.raises(ValueError, match="a packer is wrong"):
        codes_of("relu", "dsp")


def test_a_goal_or_class_without_packers_runs_the_operators_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(firmware_export.kernels, "_PACKERS", {})
    for layer, graph in LAYERS.items():
        (code,) = codes_of(layer, "v7m", "flash")
        assert code.function == operator_of(graph.nodes[0]).emit(graph, graph.nodes[0]).function


@pytest.mark.parametrize("core_class", ["dsp", "mve", "v7m", "v6m"])
def test_what_leaves_int32_is_left_to_the_reference(core_class: str) -> None:
    """With a bias at the end of int32 the reference wraps around; fast kernels do not."""
    graph = LAYERS["fully_connected"]
    bias = graph.tensors[graph.nodes[0].inputs[2]]
    huge = replace(bias, data=np.full(16, 2**31 - 1, np.int32))
    tensors = [huge if tensor is bias else tensor for tensor in graph.tensors]
    wide = replace(graph, tensors=tensors)
    (code,) = node_options(wide, wide.nodes[0], Target(core_class))
    assert code.function == "nn_fully_connected"


def test_pools_change_their_name_and_their_first_file_only() -> None:
    code = LayerCode("nn_max_pool2d", "nn_max_pool2d_params", {"min": "1"}, sources=("window.c", "max_pool2d.c"), summary="s")
    fast = fast_pool(code)
    assert fast == replace(code, function="nn_max_pool2d_fast", sources=("max_pool2d_fast.c", "window.c"))
    for other in ("nn_relu", "nn_max_pool2d_fast", "nn_add", "max", "nn_means"):
        assert fast_pool(replace(code, function=other)) == replace(code, function=other)


def sum_of(build: Build, *slots: int) -> Node:
    node = Node("add", slots, (build.activation((1, 4, 4, 8), 0.1),), {"clamp": (-128, 127)})
    build.nodes.append(node)
    return node


def test_what_a_nodes_kernels_depend_on() -> None:
    """The same tensor twice is another call than two equal ones; other scales, clamps and missing biases too."""
    build = Build()
    x, y = (build.activation((1, 4, 4, 8), name=name) for name in "xy")
    for slots in ((x, y), (y, x), (x, x)):
        sum_of(build, *slots)
    clamped = sum_of(build, x, y)
    build.nodes[-1] = replace(clamped, attributes={"clamp": (0, 127)})
    outputs = tuple(node.outputs[0] for node in build.nodes)
    known: dict[tuple[object, ...], list[LayerCode]] = {}
    found = kernel_options(build.graph((x, y), outputs), Target("dsp"), known)
    assert len(known) == 3, "x + y and y + x are alike"
    assert found[0] is found[1] and found[0] is not found[2] and found[0] is not found[3]
    assert found[3][0].fields != found[0][0].fields


@pytest.mark.parametrize("change", ["scale", "zero point", "constant", "bias", "shape"])
def test_equal_keys_mean_equal_layers(change: str) -> None:
    build = Build()
    x = build.activation((1, 6, 6, 4), name="x")
    first = build.conv(x, 4, scale=0.05)
    node = build.nodes[0]
    weights = build.tensors[node.inputs[1]]
    output = build.tensors[first]
    assert weights.data is not None and output.quantization is not None
    inputs = list(node.inputs)
    if change == "scale":
        output = replace(output, quantization=Quantization.per_tensor(0.051, output.zero_point))
    elif change == "zero point":
        output = replace(output, quantization=Quantization.per_tensor(output.scale, output.zero_point + 1))
    elif change == "constant":
        inputs[1] = build.tensor(replace(weights, data=weights.data + np.int8(weights.data.max() < 127)))
    elif change == "bias":
        inputs[2] = ABSENT
    attributes = dict(node.attributes)
    if change == "shape":
        attributes["padding"] = (0, 0, 0, 0)
        output = replace(output, shape=(1, 4, 4, 4))
    second = build.tensor(replace(output, name="z"))
    build.nodes.append(Node("conv2d", tuple(inputs), (second,), attributes))
    known: dict[tuple[object, ...], list[LayerCode]] = {}
    kernel_options(build.graph(x, (first, second)), Target(), known)
    assert len(known) == 2


def test_known_options_of_another_graph_with_the_same_constants_are_used() -> None:
    graph = LAYERS["conv2d"]
    known: dict[tuple[object, ...], list[LayerCode]] = {}
    (first,) = kernel_options(graph, Target("v7m"), known)
    (second,) = kernel_options(replace(graph, nodes=[replace(graph.nodes[0])]), Target("v7m"), known)
    assert first is second and len(known) == 1


ARCHITECTURES = {
    "cortex-m0plus": "v6m",
    "cortex-m3": "v7m",
    "cortex-m4": "dsp",
    "cortex-m7": "dsp",
    "cortex-m33": "dsp",
    "cortex-m55": "mve",
}
"""Arm's names: Armv6-M; Armv7-M; Armv7E-M and Armv8-M Mainline with DSP; Armv8.1-M with Helium."""


@pytest.mark.parametrize("core", ARCHITECTURES)
def test_every_core_has_the_class_of_its_architecture(core: str) -> None:
    for goal in GOALS:
        assert Target.of(core, goal) == Target(ARCHITECTURES[core], goal)
    assert core in CORES


def test_the_host_runs_what_cores_with_dsp_instructions_run() -> None:
    assert Target.of("host", "ram") == Target("dsp", "ram") == Target.of("cortex-m4", "ram")
    assert Target() == Target(PORTABLE, "balanced")
    with pytest.raises(KeyError):
        Target.of("cortex-m1", "ram")


def test_cores_of_one_class_share_an_export_and_others_do_not() -> None:
    stages = {core: export_stage(core) for core in CORE_CLASSES}
    assert stages["host"] == stages["cortex-m4"] == stages["cortex-m7"] == stages["cortex-m33"] == "export"
    assert stages["cortex-m0plus"] == "export-v6m" and stages["cortex-m3"] == "export-v7m"
    assert stages["cortex-m55"] == "export-mve"
    assert all((stages[a] == stages[b]) == (CORE_CLASSES[a] == CORE_CLASSES[b]) for a in stages for b in stages)
