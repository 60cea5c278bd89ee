"""What an exported network costs: figures against sums made here, the table against the figures."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from graph_builder import Build, small_net
from qdq_builder import resnet

from firmware_export.graph import Graph, Tensor
from firmware_export.operators import operator_of
from firmware_export.passes import simplify
from firmware_export.plan import plan
from firmware_export.read_onnx import read_onnx_bytes
from firmware_export.report import network_info, report_text


def info_of(graph: Graph, name: str = "net") -> dict[str, Any]:
    return network_info(graph, plan(graph), name)


@pytest.fixture(scope="module")
def graph() -> Graph:
    return small_net()


@pytest.fixture(scope="module")
def info(graph: Graph) -> dict[str, Any]:
    return info_of(graph)


def test_macs_are_outputs_times_taps(info: dict[str, Any]) -> None:
    """8x6x4 outputs of 3x3x3 taps, 4x3x6 of 3x3x4, 2x2x5 of 3x3x6, 4 of 20."""
    expected = [8 * 6 * 4 * 27, 4 * 3 * 6 * 36, 2 * 2 * 5 * 54, 0, 4 * 20]
    assert [layer["macs"] for layer in info["layers"]] == expected
    assert info["macs"] == sum(expected)


def test_weights_are_the_bytes_of_weights_and_biases(info: dict[str, Any]) -> None:
    expected = [4 * 27 + 4 * 4, 6 * 36 + 4 * 6, 5 * 54 + 4 * 5, 0, 4 * 20 + 4 * 4]
    assert [layer["weights_bytes"] for layer in info["layers"]] == expected
    assert info["weights_bytes"] == sum(expected)


def test_constants_are_what_the_generated_code_stores(graph: Graph, info: dict[str, Any]) -> None:
    stored = [sum(c.data.nbytes for c in operator_of(node).emit(graph, node).constants) for node in graph.nodes]
    assert [layer["constants_bytes"] for layer in info["layers"]] == stored
    assert info["constants_bytes"] == sum(stored) > info["weights_bytes"]


def test_edges_say_how_to_write_and_read_them(graph: Graph, info: dict[str, Any]) -> None:
    (edge,) = info["inputs"]
    assert edge["name"] == "image" and edge["type"] == "int8" and edge["shape"] == [1, 8, 6, 3] and edge["size"] == 144
    assert edge["scale"] == float(np.float32(1 / 255)) and edge["zero_point"] == -128
    (edge,) = info["outputs"]
    assert edge["shape"] == [1, 4] and edge["size"] == 4 and edge["zero_point"] == 7
    assert edge["offset"] == plan(graph).offsets[graph.outputs[0]]


def test_memory(graph: Graph, info: dict[str, Any]) -> None:
    """All activations without sharing: 144 + 192 + 72 + 20 + 20 + 4."""
    layout = plan(graph)
    bytes_of = {"activations_bytes": layout.size, "lower_bound_bytes": layout.lower_bound, "unshared_bytes": 452}
    assert info["memory"] == bytes_of | {"proven_smallest": True}


def test_layers_name_operator_offsets_and_scratch(graph: Graph, info: dict[str, Any]) -> None:
    layout = plan(graph)
    assert [layer["operator"] for layer in info["layers"]] == [node.op for node in graph.nodes]
    assert [layer["index"] for layer in info["layers"]] == list(range(5))
    for layer, node in zip(info["layers"], graph.nodes, strict=True):
        assert layer["output_offsets"] == [layout.offsets[node.outputs[0]]]
        assert layer["input_offsets"] == [layout.offsets[node.inputs[0]]]
        assert (layer["scratch_offset"] is None) == (layer["scratch_bytes"] == 0)
        assert layer["summary"]


def test_the_values_are_plain_json_and_the_same_each_time(graph: Graph, info: dict[str, Any]) -> None:
    assert json.loads(json.dumps(info, allow_nan=False)) == info
    assert info_of(small_net()) == info
    assert info["model_hash"] == graph.hash() and info["arithmetic"] == "double" and info["version"] == 1


def test_an_edge_without_quantization() -> None:
    build = Build()
    x = build.activation((1, 4, 4, 2), name="x")
    graph = build.graph(x, build.conv(x, 2))
    graph.tensors[x] = Tensor("x", (1, 4, 4, 2), "int8", None)
    from firmware_export.report import _edge, _edge_line

    edge = _edge(graph.tensors[x], 16)
    assert edge["scale"] is None and edge["zero_point"] is None
    assert _edge_line("input", 0, edge) == "input 0 'x': int8 1x4x4x2, 32 bytes at 16"


# The text


def test_the_table_has_a_line_for_each_layer_and_the_totals(info: dict[str, Any]) -> None:
    lines = report_text(info).splitlines()
    start = next(place for place, line in enumerate(lines) if line.startswith("layer"))
    rows = [line.split() for line in lines[start + 2 : start + 7]]
    assert [row[0] for row in rows] == ["0", "1", "2", "3", "4"]
    assert rows[0][1:5] == ["conv2d", "1x8x6x4", "5,184", "124"]
    assert rows[4][1:5] == ["fully_connected", "1x4", "80", "96"]
    total = lines[start + 8].split()
    assert total[0] == "total" and total[1] == f"{info['macs']:,}" and total[2] == f"{info['weights_bytes']:,}"


def test_columns_line_up(info: dict[str, Any]) -> None:
    lines = report_text(info).splitlines()
    rules = [line for line in lines if line.startswith("---")]
    assert len(rules) == 2 and rules[0] == rules[1]
    table = lines[lines.index(rules[0]) - 1 : len(lines) - lines[::-1].index(rules[0]) + 1]
    assert all(len(line) <= len(rules[0]) for line in table)
    heads = table[0]
    for word, key in (("MACs", "macs"), ("weights", "weights_bytes")):
        end = heads.index(word) + len(word)
        for layer, line in zip(info["layers"], table[2:], strict=False):
            assert line[:end].endswith(f"{layer[key]:,}")


def test_the_first_lines_say_what_it_is(info: dict[str, Any]) -> None:
    text = report_text(info)
    lines = text.splitlines()
    assert lines[0] == f"net: 5 layers, {info['macs']:,} MACs, {info['weights_bytes']:,} bytes of weights"
    assert lines[1] == f"model {info['model_hash']}" and lines[2] == "arithmetic double"
    assert "input 0 'image': int8 1x8x6x3, 144 bytes at" in text and "real = 0.00392156886 * (stored - -128)" in text
    assert f"activation buffer {info['memory']['activations_bytes']:,} bytes" in text
    assert text.endswith("\n") and not any(line != line.rstrip() for line in lines)


def test_hostile_names_stay_in_their_line() -> None:
    build = Build()
    x = build.activation((1, 4, 4, 2), name="x\n\x1b[31m" + "y" * 500)
    text = report_text(info_of(build.graph(x, build.conv(x, 2))))
    (line,) = [line for line in text.splitlines() if line.startswith("input 0")]
    assert "'x??[31myyy" in line and len(line) < 200 and all(line.isprintable() for line in text.splitlines())


def test_a_whole_net() -> None:
    graph = simplify(read_onnx_bytes(resnet().SerializeToString()))
    info = info_of(graph)
    text = report_text(info)
    assert info["macs"] == 114_492 and len(info["layers"]) == 11
    assert "total" in text and text.split("what lies where")[0].count("conv2d") == 6
