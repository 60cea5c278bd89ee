"""The memory plan as letters: bytes of the activation buffer downwards, layers to the right."""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import Any

LETTERS = string.ascii_letters + string.digits
ROWS = 24
COLUMNS = 100
"""Rows and columns at most; one of them then stands for several bytes or layers."""
EMPTY, SHARED = ".", "*"


def plan_text(blocks: Sequence[dict[str, Any]], size: int, layers: int) -> list[str]:
    """The lines of the picture and its key; nothing for an empty buffer.

    Args:
        blocks: report.network_info's "blocks". A cell where one is written over another while that is read shows SHARED.
        size: bytes of the buffer.
    """
    if size == 0 or layers == 0:
        return []
    rows, columns = min(ROWS, size), min(COLUMNS, layers)
    lines = []
    for row in range(rows):
        low, high = row * size // rows, (row + 1) * size // rows
        cells = "".join(_cell(blocks, low, high, *_span(column, columns, layers)) for column in range(columns))
        lines.append(f"{low:>9,} {cells}")
    numbers = "".join(str(_span(column, columns, layers)[0] // 10 % 10) for column in range(columns))
    ones = "".join(str(_span(column, columns, layers)[0] % 10) for column in range(columns))
    key = [f"  {_letter(number)} {_words(block)}" for number, block in enumerate(blocks)]
    return [*lines, f"{'layer':>9} {numbers}", f"{'':>9} {ones}", "", *key]


def _span(column: int, columns: int, layers: int) -> tuple[int, int]:
    """First and last layer of a column."""
    return column * layers // columns, (column + 1) * layers // columns - 1


def _cell(blocks: Sequence[dict[str, Any]], low: int, high: int, first: int, last: int) -> str:
    """The letter of what has most of the bytes low..high - 1 during these layers."""
    found: dict[int, int] = {}
    for number, block in enumerate(blocks):
        if block["first"] <= last and first <= block["last"]:
            common = min(high, block["offset"] + block["size"]) - max(low, block["offset"])
            if common > 0:
                found[number] = common
    if not found:
        return EMPTY
    if first == last and any(set(blocks[number]["over"]) & found.keys() for number in found):
        return SHARED
    return _letter(max(found, key=lambda number: (found[number], number)))


def _letter(number: int) -> str:
    return LETTERS[number % len(LETTERS)]


def _words(block: dict[str, Any]) -> str:
    end = block["offset"] + block["size"]
    over = ", over " + " ".join(_letter(number) for number in block["over"]) if block["over"] else ""
    return f"{block['name']}: bytes {block['offset']:,} to {end:,}, layers {block['first']} to {block['last']}{over}"
