"""The report's picture and tables of plans that are written here number by number, not made by the planner."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from graph_builder import Build, small_net

from firmware_export.graph import Change, Graph
from firmware_export.operators import Constant, LayerCode
from firmware_export.plan import Place, Plan, plan
from firmware_export.plan_text import plan_text
from firmware_export.report import network_info, pass_line, report_text


def two_relus() -> Graph:
    """x (12 bytes) -> a (12) -> b (12)."""
    build = Build()
    x = build.activation((1, 12), name="x")
    a = build.relu(x, (0, 127))
    return build.graph(x, build.relu(a, (0, 100)))


CODES = (
    LayerCode("nn_relu", "nn_relu_params", {}, (Constant("t", np.zeros(5, np.int8)),), scratch_bytes=40, summary="first"),
    LayerCode("nn_relu", "nn_relu_params", {}, (Constant("t", np.zeros(7, np.int8)),), scratch_bytes=8, summary="second"),
)


def plan_of(*places: Place, size: int = 64, proven: bool = False) -> Plan:
    offsets = {place.owner: place.offset for place in places if place.owner is not None}
    scratch = {place.node: place.offset for place in places if place.node is not None}
    return Plan(offsets, scratch, size, 50, proven, 1234, CODES, places)


PLACES = (
    Place(0, None, 0, 12, 0, 0),
    Place(1, None, 16, 12, 0, 1),
    Place(2, None, 0, 12, 1, 1),
    Place(None, 0, 24, 40, 0, 0),
    Place(None, 1, 12, 8, 1, 1),
)
"""Scratch of node 0 lies over the end of its output; so does that of node 1; the output has the dead input's place."""


@pytest.fixture(scope="module")
def info() -> dict[str, Any]:
    return network_info(two_relus(), plan_of(*PLACES), "net")


def test_blocks_are_in_the_order_of_time_and_named_by_their_makers(info: dict[str, Any]) -> None:
    found = [(block["name"], block["offset"], block["size"], block["first"], block["last"]) for block in info["blocks"]]
    assert found == [
        ("input 0", 0, 12, 0, 0),
        ("scratch of 0", 24, 40, 0, 0),
        ("0: relu", 16, 12, 0, 1),
        ("1: relu", 0, 12, 1, 1),
        ("scratch of 1", 12, 8, 1, 1),
    ]


def test_only_what_shares_bytes_at_one_time_is_over_another(info: dict[str, Any]) -> None:
    """Bytes 24 to 28 and 16 to 20; the output lies over the input's bytes, but the input is dead by then."""
    assert [block["over"] for block in info["blocks"]] == [[], [], [1], [], [2]]


@pytest.mark.parametrize(
    ("one", "other", "meet"),
    [
        ((0, 8, 0, 0), (8, 8, 0, 0), False),
        ((8, 8, 0, 0), (0, 8, 0, 0), False),
        ((0, 9, 0, 0), (8, 8, 0, 0), True),
        ((8, 8, 0, 0), (0, 9, 0, 0), True),
        ((0, 8, 0, 0), (0, 8, 1, 1), False),
        ((0, 8, 0, 1), (0, 8, 1, 1), True),
        ((4, 2, 0, 1), (0, 16, 0, 1), True),
        ((0, 16, 0, 1), (4, 2, 1, 1), True),
    ],
)
def test_neighbours_in_bytes_or_time_do_not_meet(
    one: tuple[int, int, int, int], other: tuple[int, int, int, int], meet: bool
) -> None:
    """offset, size, first and last node of two tensors; against the sets of (byte, node) that they hold."""
    places = [Place(owner, None, *numbers) for owner, numbers in ((1, one), (2, other))]
    held = [{(b, t) for b in range(p.offset, p.offset + p.size) for t in range(p.first, p.last + 1)} for p in places]
    assert bool(held[0] & held[1]) == meet
    blocks = network_info(two_relus(), plan_of(Place(0, None, 56, 8, 0, 0), *places), "net")["blocks"]
    assert any(block["over"] for block in blocks) == meet


def test_the_second_input_is_named_second() -> None:
    build = Build()
    x, y = (build.activation((1, 4), name=name) for name in "xy")
    graph = build.graph((y, x), build.node("add", (x, y), build.activation((1, 4)), clamp=(-128, 127)))
    places = (Place(x, None, 0, 4, 0, 0), Place(y, None, 8, 4, 0, 0), Place(2, None, 16, 4, 0, 0))
    blocks = network_info(graph, replace(plan_of(*places), codes=CODES[:1]), "net")["blocks"]
    assert [(block["name"], block["offset"]) for block in blocks] == [("input 1", 0), ("input 0", 8), ("0: add", 16)]


def test_layers_tell_their_scratch_and_constants(info: dict[str, Any]) -> None:
    scratch = [(layer["scratch_bytes"], layer["scratch_offset"]) for layer in info["layers"]]
    assert scratch == [(40, 24), (8, 12)]
    assert [layer["constants_bytes"] for layer in info["layers"]] == [5, 7] and info["constants_bytes"] == 12
    assert [layer["summary"] for layer in info["layers"]] == ["first", "second"]
    assert info["memory"]["unshared_bytes"] == 36 and info["memory"]["lower_bound_bytes"] == 50


def table_of(text: str) -> list[str]:
    lines = text.splitlines()
    start = next(place for place, line in enumerate(lines) if line.startswith("layer"))
    return lines[start : start + 6]


def test_the_table_number_by_number(info: dict[str, Any]) -> None:
    head, rule, *rows, last_rule, total = table_of(report_text(info))
    assert head.split() == ["layer", "operator", "output", "MACs", "weights", "constants", "offset", "bytes", "scratch"]
    assert [row.split() for row in rows] == [
        ["0", "relu", "1x12", "0", "0", "5", "16", "12", "40"],
        ["1", "relu", "1x12", "0", "0", "7", "0", "12", "8"],
    ]
    assert total.split() == ["total", "0", "0", "12", "40"], "the largest scratch: there is one at a time"
    assert rule == last_rule == "-" * len(head), "the last column's name is its widest"


def test_words_stand_left_and_numbers_right(info: dict[str, Any]) -> None:
    head, _, *rows, _, _ = table_of(report_text(info))
    for word in ("operator", "output"):
        assert all(row[head.index(word)] != " " and row[head.index(word) - 1] == " " for row in rows)
    for word in ("MACs", "weights", "constants", "offset", "bytes", "scratch"):
        end = head.index(word) + len(word)
        assert all(row[end - 1].isdigit() and row[end : end + 2].strip() == "" for row in rows)


@pytest.mark.parametrize("proven", [True, False])
def test_a_proof_is_told_only_where_there_is_one(proven: bool) -> None:
    text = report_text(network_info(two_relus(), plan_of(*PLACES, proven=proven), "net"))
    (line,) = [line for line in text.splitlines() if line.startswith("activation buffer")]
    expected = "activation buffer 64 bytes (at least 50 live at once; 36 without sharing)"
    assert line == expected + (", proven the smallest for these kernels" if proven else "")


def test_the_picture_of_this_plan(info: dict[str, Any]) -> None:
    """A row is 64 / 24 bytes; d stands for the output, e for the scratch of node 1."""
    rows = [row * 64 // 24 for row in range(24)]
    lines = report_text(info).split("read)\n")[1].splitlines()
    assert [int(line.split()[0]) for line in lines[:24]] == rows
    cells = {int(line.split()[0]): line.split()[1] for line in lines[:24]}
    assert cells[0] == "ad" and cells[8] == "ad" and cells[13] == ".e" and cells[21] == "cc" and cells[61] == "b."
    assert cells[16] == "c*" and cells[24] == "*c" and cells[26] == "*c" and cells[29] == "b."
    assert lines[24].split() == ["layer", "00"] and lines[25].split() == ["01"]
    assert lines[27:] == [
        "  a input 0: bytes 0 to 12, layers 0 to 0",
        "  b scratch of 0: bytes 24 to 64, layers 0 to 0",
        "  c 0: relu: bytes 16 to 28, layers 0 to 1, over b",
        "  d 1: relu: bytes 0 to 12, layers 1 to 1",
        "  e scratch of 1: bytes 12 to 20, layers 1 to 1, over c",
    ]


@pytest.mark.parametrize("layers, every", [(12, 1), (100, 1), (250, 2.5), (1000, 10)])
def test_layer_numbers_below_the_picture(layers: int, every: float) -> None:
    """Tens above ones, of the first layer of each column; 100 columns at most."""
    block = {"name": "t", "offset": 0, "size": 1, "first": 0, "last": layers - 1, "over": []}
    lines = plan_text([block], 1, layers)
    first = [int(column * every) for column in range(min(100, layers))]
    assert lines[1].split()[1] == "".join(f"{number:02}"[-2] for number in first)
    assert lines[2].split()[0] == "".join(str(number)[-1] for number in first)
    assert lines[0].split()[1] == "a" * len(first)


@pytest.mark.parametrize("size, rows", [(1, 1), (23, 23), (24, 24), (25, 24), (4800, 24)])
def test_at_most_24_rows(size: int, rows: int) -> None:
    block = {"name": "t", "offset": 0, "size": size, "first": 0, "last": 0, "over": []}
    lines = plan_text([block], size, 1)
    assert [line.split()[1] for line in lines[:rows]] == ["a"] * rows and lines[rows].split()[0] == "layer"


def test_a_column_of_several_layers_shows_no_overlap() -> None:
    """What is over what there is not told by one letter; the larger one stands for both."""
    blocks = [
        {"name": "t", "offset": 0, "size": 1, "first": 0, "last": 199, "over": []},
        {"name": "u", "offset": 0, "size": 1, "first": 100, "last": 199, "over": [0]},
    ]
    assert plan_text(blocks, 1, 200)[0].split()[1] == "a" * 50 + "b" * 50
    assert plan_text([blocks[0] | {"last": 1}, blocks[1] | {"first": 1, "last": 1}], 1, 2)[0].split()[1] == "a*"


def test_what_passes_have_changed() -> None:
    """Only what is another number is told; names are read as words."""
    graph = replace(small_net(), changes=(Change("remove_dead_channels", (9, 5), (7_489_664, 3_727_313), (20_000, 20_000)),))
    info = network_info(graph, plan(graph), "net")
    assert info["passes"] == [
        {"name": "remove_dead_channels", "operators": [9, 5], "macs": [7_489_664, 3_727_313], "weights": [20_000, 20_000]}
    ]
    line = "remove dead channels: operators 9 -> 5, MACs 7,489,664 -> 3,727,313"
    assert pass_line(info["passes"][0]) == line and report_text(info).splitlines()[3] == line


def test_values_in_thousands_have_commas() -> None:
    build = Build()
    x = build.activation((1, 40, 50, 3), name="x")
    graph = build.graph(x, build.conv(x, 8))
    text = report_text(network_info(graph, plan(graph), "net"))
    assert "MACs, 248 bytes of weights" in text and f"{40 * 50 * 8 * 27:,} MACs" in text
    assert "input 0 'x': int8 1x40x50x3, 6,000 bytes at" in text and "22,000 without sharing" in text


def test_a_network_without_quantized_ends() -> None:
    """Bytes that stand for no real number have no formula."""
    graph = two_relus()
    graph.tensors[0] = replace(graph.tensors[0], quantization=None)
    info = network_info(graph, plan_of(*PLACES), "net")
    assert info["inputs"][0]["scale"] is None and info["inputs"][0]["zero_point"] is None
    assert info["outputs"][0]["scale"] == pytest.approx(0.05) and info["outputs"][0]["zero_point"] == 0
    lines = report_text(info).splitlines()
    assert "input 0 'x': int8 1x12, 12 bytes at 0" in lines
    assert any(line.startswith("output 0") and line.endswith("real = 0.0500000007 * (stored - 0)") for line in lines)
