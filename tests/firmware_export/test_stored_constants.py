"""Equal constants and equal parameters are stored once, different ones never mixed up."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from graph_builder import Build, inputs_of

from firmware_export.emit import emit
from firmware_export.graph import Graph
from firmware_export.hostlib import HostNetwork
from firmware_export.operators import Constant, LayerCode
from firmware_export.plan import plan
from firmware_export.report import network_info
from firmware_export.simulate import simulate_trace
from firmware_export.stored_constants import StoredConstants, stored_bytes


def code(*constants: Constant) -> LayerCode:
    return LayerCode("nn_x", "nn_x_params", {}, constants)


def array(values: list[int], dtype: str = "int8") -> np.ndarray:
    return np.array(values, dtype)


def test_equal_arrays_share_the_first_name() -> None:
    codes = [
        code(Constant("weights", array([1, 2])), Constant("bias", array([3], "int32"))),
        code(Constant("bias", array([3], "int32")), Constant("weights", array([1, 2, 3]))),
        code(Constant("table", array([1, 2]))),
    ]
    found = StoredConstants.of(codes)
    assert [name for name, _ in found.arrays("net")] == ["net_0_weights", "net_0_bias", "net_1_weights"]
    assert found.identifier("net", 1, "bias") == "net_0_bias"
    assert found.identifier("net", 2, "table") == "net_0_weights"
    assert [found.layer_bytes(place) for place in range(3)] == [6, 3, 0]
    assert stored_bytes(codes) == 9


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32"])
def test_equal_bytes_of_another_type_are_another_array(dtype: str) -> None:
    data = np.frombuffer(b"\1\2\3\4", np.int8)
    codes = [code(Constant("a", data)), code(Constant("a", data.view(dtype)))]
    assert len(StoredConstants.of(codes).stored) == 2


def test_one_layer_may_have_the_same_array_twice() -> None:
    found = StoredConstants.of([code(Constant("a", array([7])), Constant("b", array([7])))])
    assert found.identifier("net", 0, "b") == "net_0_a" and found.layer_bytes(0) == 1


def test_nothing_is_stored_of_nothing() -> None:
    assert stored_bytes([]) == 0 and list(StoredConstants.of([]).arrays("net")) == []


def twins() -> Graph:
    """Two convolutions with the same weights on different images, another one with others; sums of both."""
    build = Build(12)
    x = build.activation((1, 5, 5, 4), name="x")
    y = build.conv(x, 4, scale=0.05)
    node = build.nodes[-1]
    again = build.activation((1, 5, 5, 4), 0.05, -3)
    build.tensors[y] = build.tensors[x]
    build.node("conv2d", (y, *node.inputs[1:]), again, **node.attributes)
    build.tensors[again] = build.tensors[x]
    return build.graph(x, build.conv(again, 4, scale=0.05))


def test_layers_with_the_same_parameters_share_them(tmp_path: Path) -> None:
    graph = twins()
    layout = plan(graph)
    files = emit(graph, layout, "twins", selftest=False)
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    used = re.findall(r"nn_conv2d\(&(\w+),", files["twins.c"])
    assert used == ["twins_0_params", "twins_0_params", "twins_2_params"]
    assert files["twins.c"].count("_params = {") == 2
    stored = re.findall(r"^const \w+ (\w+)\[", files["twins_data.c"], re.MULTILINE)
    assert len(stored) == len(set(stored)) and not any(name.startswith("twins_1_") for name in stored)
    network = HostNetwork(tmp_path, "twins")
    inputs = inputs_of(graph)
    for ours, theirs in zip(simulate_trace(graph, *inputs), network.trace(*inputs), strict=True):
        assert [value.tobytes() for value in ours] == [value.tobytes() for value in theirs]


def test_the_report_counts_what_is_stored() -> None:
    graph = twins()
    layout = plan(graph)
    info = network_info(graph, layout, "twins")
    assert info["layers"][1]["constants_bytes"] == 0 < info["layers"][0]["constants_bytes"]
    assert info["constants_bytes"] == stored_bytes(layout.codes)
