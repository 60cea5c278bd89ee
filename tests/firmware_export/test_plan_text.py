"""The plan as letters: every cell against the blocks that lie there."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from graph_builder import small_net
from test_striping import wide_middle

from firmware_export.plan import plan
from firmware_export.plan_text import COLUMNS, EMPTY, LETTERS, ROWS, SHARED, plan_text
from firmware_export.report import network_info, report_text
from firmware_export.striping import striped
from firmware_export.target import Target


def block(offset: int, size: int, first: int, last: int, over: tuple[int, ...] = ()) -> dict[str, Any]:
    return {"name": "t", "offset": offset, "size": size, "first": first, "last": last, "over": list(over)}


def cells(lines: list[str], rows: int) -> list[str]:
    return [line.split()[1] for line in lines[:rows]]


def test_a_small_plan() -> None:
    """Two tensors side by side, then a third over the second."""
    blocks = [block(0, 2, 0, 2), block(2, 2, 0, 1), block(2, 2, 1, 2, (1,))]
    lines = plan_text(blocks, 4, 3)
    assert cells(lines, 4) == ["aaa", "aaa", "b*c", "b*c"]
    assert lines[4].split() == ["layer", "000"] and lines[5].split() == ["012"]
    assert lines[-1].strip() == "c t: bytes 2 to 4, layers 1 to 2, over b"


def test_empty_places_are_dots() -> None:
    lines = plan_text([block(1, 1, 1, 1)], 3, 3)
    assert cells(lines, 3) == ["...", ".a.", "..."]


@pytest.mark.parametrize("seed", range(15))
def test_each_cell_shows_who_has_most_of_it(seed: int) -> None:
    rng = random.Random(seed)
    size, layers = rng.randint(5, 400), rng.randint(1, 60)
    blocks = []
    for _ in range(rng.randint(1, 9)):
        first = rng.randrange(layers)
        offset = rng.randrange(size)
        blocks.append(block(offset, rng.randint(1, size - offset), first, rng.randint(first, layers - 1)))
    rows = min(ROWS, size)
    picture = cells(plan_text(blocks, size, layers), rows)
    assert all(len(row) == layers for row in picture)
    for row, text in enumerate(picture):
        held = np.zeros((len(blocks), layers), int)
        for byte in range(row * size // rows, (row + 1) * size // rows):
            for number, one in enumerate(blocks):
                if one["offset"] <= byte < one["offset"] + one["size"]:
                    held[number, one["first"] : one["last"] + 1] += 1
        for layer, letter in enumerate(text):
            if letter == EMPTY:
                assert not held[:, layer].any()
            else:
                assert held[LETTERS.index(letter), layer] == held[:, layer].max() > 0


def test_long_networks_are_drawn_narrower() -> None:
    lines = plan_text([block(0, 8, 0, 999)], 8, 1000)
    assert len(cells(lines, 8)[0]) == COLUMNS
    assert all(len(line) <= COLUMNS + 10 for line in lines)


def test_nothing_to_draw() -> None:
    assert plan_text([], 0, 3) == [] and plan_text([], 8, 0) == []


def test_letters_come_again() -> None:
    blocks = [block(0, 1, number, number) for number in range(70)]
    assert cells(plan_text(blocks, 1, 70), 1) == [(LETTERS + LETTERS)[:70]]


@pytest.mark.parametrize("graph", [small_net(), striped(wide_middle(), "ram")], ids=["small", "striped"])
def test_pictures_of_real_plans(graph: Any) -> None:
    """In the report; every block's letter is in the picture unless it is thinner than a row, scratch and overlaps too."""
    layout = plan(graph, Target("dsp", "ram"))
    info = network_info(graph, layout, "net")
    text = report_text(info).split("what lies where")[1].splitlines()
    rows = min(ROWS, layout.size)
    picture = "".join(cells(text[1:], rows))
    shown = [number for number, one in enumerate(info["blocks"]) if one["size"] > 2 * layout.size / ROWS and not one["over"]]
    for number in shown:
        held_alone = not any(number in other["over"] for other in info["blocks"])
        assert LETTERS[number % len(LETTERS)] in picture or not held_alone
    assert (SHARED in picture) == any(
        one["over"] and one["size"] * rows >= layout.size for one in info["blocks"]
    ) or SHARED not in picture
    assert len(info["blocks"]) == len(layout.places)
    for one in info["blocks"]:
        for number in one["over"]:
            under = info["blocks"][number]
            assert one["first"] <= under["last"] and under["offset"] < one["offset"] + one["size"]
