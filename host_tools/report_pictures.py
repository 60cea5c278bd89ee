"""Pictures of the report: inline SVG whose colours are the page's CSS variables, so that it follows light and dark.

Every text that is put into a picture is escaped here.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
import numpy.typing as npt
from PIL import Image

FAR_BELOW = 0.1
"""A step whose accuracy is so much below the best does not stretch the axis."""
UNKNOWN = "–"
WIDTH = 520.0
"""Of the charts, in SVG units: still readable on a phone, where the page is about 330 CSS pixels wide."""
ROW = 30
"""Height of one row of a chart, in SVG units."""


@dataclass(frozen=True)
class MemoryUse:
    """One kind of memory: name, bytes of its parts in the order they are drawn, bytes the board has (None: no limit)."""

    name: str
    parts: tuple[tuple[str, int], ...]
    capacity: int | None


@dataclass(frozen=True)
class PlannedTensor:
    """One tensor or scratch in the activation buffer: bytes [offset, offset + size) from layer `first` to layer `last`.

    over: names of those on whose bytes it is written while its first layer reads them.
    """

    name: str
    offset: int
    size: int
    first: int
    last: int
    over: tuple[str, ...] = ()


def thousands(number: float) -> str:
    """An integer with thin groups of three: 18,432."""
    return f"{number:,.0f}"


def percent(fraction: float | None, digits: int = 1) -> str:
    """0.981 -> '98.1 %'; a dash for what is not known."""
    return UNKNOWN if fraction is None else f"{100 * fraction:.{digits}f} %"


def _svg(width: float, height: float, title: str, body: Sequence[str]) -> str:
    head = f'<svg viewBox="0 0 {width:g} {height:g}" width="{width:g}" role="img" aria-label="{escape(title)}">'
    return f"{head}<title>{escape(title)}</title>{''.join(body)}</svg>"


def _text(x: float, y: float, text: str, css: str = "", anchor: str = "start", extra: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{css}" text-anchor="{anchor}"{extra}>{escape(text)}</text>'


def _rect(x: float, y: float, width: float, height: float, css: str, extra: str = "", title: str = "") -> str:
    tip = f"<title>{escape(title)}</title>" if title else ""
    box = f'x="{x:.2f}" y="{y:.2f}" width="{max(width, 0):.2f}" height="{max(height, 0):.2f}"'
    return f'<rect {box} class="{css}"{extra}>{tip}</rect>'


def _line(x1: float, y1: float, x2: float, y2: float, css: str = "grid") -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{css}"/>'


def _shorten(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def tick_step(span: float, most: int = 5) -> float:
    """The smallest of 1, 2, 5 times a power of ten that divides the span into at most `most` parts."""
    power = 10.0 ** math.floor(math.log10(span / most))
    return next(m * power for m in (1, 2, 5, 10) if span / (m * power) <= most + 1e-9)


def accuracy_picture(steps: Sequence[tuple[str, float]]) -> str:
    """A dot per step on a common percentage axis (which need not start at zero: dots, not bars).

    A step that lies far below the best one, as pruning before fine-tuning does, would press the others together: it is a
    triangle at the axis' lower end instead.

    Args:
        steps: name and fraction of images classified right, in the order of the pipeline; at least one.
    """
    left, right = 150.0, 74.0
    best = max(value for _, value in steps)
    low = max(0.0, math.floor(100 * min(value for _, value in steps if value >= best - FAR_BELOW) - 1.0))
    step = tick_step(100.0 - low)
    scale = (WIDTH - left - right) / (100.0 - low)
    bottom = 14 + ROW * len(steps)
    body = []
    for tick in np.arange(math.ceil(low / step) * step, 100.0 + step / 2, step):
        x = left + (tick - low) * scale
        body += [_line(x, 8, x, bottom), _text(x, bottom + 18, f"{tick:g} %", "small", "middle")]
    for row, (name, value) in enumerate(steps):
        y, x = 14 + ROW * (row + 0.5), left + (100 * value - low) * scale
        body += [_text(left - 12, y + 5, _shorten(name, 20), "label", "end"), _line(left, y, max(x, left), y, "stem")]
        body.append(_dot(x, y, left, "dot last" if row == len(steps) - 1 else "dot"))
        body.append(_text(WIDTH - right + 14, y + 5, percent(value, 2), "value"))
    return _svg(WIDTH, bottom + 26, "accuracy after each step", body)


def _dot(x: float, y: float, left: float, css: str) -> str:
    if x >= left:
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="6" class="{css}"/>'
    return f'<path d="M{left:.1f} {y:.1f} l11 -6 v12 z" class="{css}"/>'


def confusion_picture(names: Sequence[str], matrix: Sequence[Sequence[int]]) -> str:
    """True classes in rows, answers in columns; the shade is the share of the row; errors have the colour of errors."""
    classes = len(names)
    longest = max(len(_shorten(name, 14)) for name in names)
    left, top, cell = 30.0 + 7.5 * longest, 40.0 + 5.5 * longest, 46.0 if classes <= 12 else 30.0
    body = [_text(left + cell * classes / 2, 14, "answer of the device", "small", "middle")]
    body.append(
        _text(12, top + cell * classes / 2, "true class", "small", "middle", _turned(12, top + cell * classes / 2, -90))
    )
    for i, name in enumerate(names):
        x, y = left + cell * (i + 0.5), top + cell * (i + 0.5)
        body.append(_text(x - 4, top - 8, _shorten(name, 14), "label", "start", _turned(x - 4, top - 8, -40)))
        body.append(_text(left - 8, y + 5, _shorten(name, 14), "label", "end"))
        for j in range(classes):
            body.append(_confusion_cell(matrix[i], i, j, left + cell * j, top + cell * i, cell, names))
    return _svg(left + cell * classes + 50, top + cell * classes + 6, "confusion matrix", body)


def _turned(x: float, y: float, degrees: float) -> str:
    return f' transform="rotate({degrees:g} {x:.1f} {y:.1f})"'


def _confusion_cell(row: Sequence[int], i: int, j: int, x: float, y: float, cell: float, names: Sequence[str]) -> str:
    count, total = row[j], max(sum(row), 1)
    share = count / total
    shade = 0.0 if count == 0 else (0.15 + 0.85 * share if i == j else min(0.25 + 3.0 * share, 1.0))
    css = "right" if i == j else "wrong"
    tip = f"{names[i]} answered as {names[j]}: {count} of {sum(row)}"
    parts = [
        _rect(x + 1, y + 1, cell - 2, cell - 2, "cell"),
        _rect(x + 1, y + 1, cell - 2, cell - 2, css, _opacity(shade), tip),
    ]
    if count:
        parts.append(_text(x + cell / 2, y + cell / 2 + 5, str(count), "count strong" if shade > 0.6 else "count", "middle"))
    return "".join(parts)


def _opacity(value: float) -> str:
    return f' fill-opacity="{value:.3f}"'


def memory_picture(uses: Sequence[MemoryUse]) -> str:
    """One bar per memory, as long as the board has of it, with its used parts from the left."""
    left, height, pitch = 56.0, 24.0, 82.0
    body = []
    for row, use in enumerate(uses):
        y = 8 + pitch * row
        used = sum(size for _, size in use.parts)
        full = max(use.capacity or used, used, 1)
        body += [_text(left - 12, y + 17, use.name, "label", "end"), _rect(left, y, WIDTH - left, height, "cell")]
        x = left
        for number, (name, size) in enumerate(use.parts):
            length = (WIDTH - left) * size / full
            body.append(_rect(x, y, length, height, f"part{number % 4}", title=f"{name}: {thousands(size)} bytes"))
            x += length
        of = f" of {thousands(use.capacity)} bytes ({percent(used / use.capacity)})" if use.capacity else " bytes"
        body.append(_text(left, y + height + 17, f"{thousands(used)}{of}", "small"))
        body.append(_memory_key(use, left, y + height + 34))
    return _svg(WIDTH, pitch * len(uses) + 4, "memory used against the board", body)


def _memory_key(use: MemoryUse, x: float, y: float) -> str:
    """Each part behind a square of its colour; escaped."""
    parts = [
        f'<tspan class="part{number % 4}">■</tspan> {escape(name)} {thousands(size)}'
        for number, (name, size) in enumerate(use.parts)
    ]
    return f'<text x="{x}" y="{y}" class="small">{"&#160;&#160; ".join(parts)}</text>'


def plan_picture(tensors: Sequence[PlannedTensor], total: int) -> str:
    """Tensor x time: which bytes of the activation buffer (upwards) belong to whom during which layers (rightwards).

    What is written over something that the same layer reads begins in the middle of that layer's column.
    """
    left, height = 64.0, 240.0
    layers = max((t.last for t in tensors), default=0) + 1
    column, scale = (WIDTH - left - 6) / layers, height / max(total, 1)
    body = []
    step = tick_step(max(total, 5), 4)
    for tick in np.arange(0, total + 1, step):
        y = 8 + height - tick * scale
        body += [_line(left, y, WIDTH - 6, y), _text(left - 8, y + 4, thousands(tick), "small", "end")]
    for number, tensor in enumerate(tensors):
        body.append(_planned_box(tensor, number, left, 8 + height, column, scale))
    every = max(1, math.ceil(layers / 18))
    for layer in range(0, layers, every):
        body.append(_text(left + column * (layer + 0.5), height + 26, str(layer), "small", "middle"))
    body.append(_text(left + (WIDTH - left) / 2, height + 44, "layer", "small", "middle"))
    return _svg(WIDTH, height + 50, "memory plan: bytes of the activation buffer over the layers", body)


def _planned_box(tensor: PlannedTensor, number: int, left: float, bottom: float, column: float, scale: float) -> str:
    begin = tensor.first + (0.5 if tensor.over and tensor.last > tensor.first else 0.0)
    x, width = left + column * begin, column * (tensor.last - begin + 1)
    y, height = bottom - (tensor.offset + tensor.size) * scale, tensor.size * scale
    span = (
        f"layers {tensor.first} to {tensor.last}, bytes {thousands(tensor.offset)} to {thousands(tensor.offset + tensor.size)}"
    )
    over = f", over {' and '.join(tensor.over)}" if tensor.over else ""
    box = _rect(x + 1, y + 0.5, width - 2, height - 1, f"part{number % 4}", title=f"{tensor.name}: {span}{over}")
    room = int((width - 6) / 6.2)
    if height < 14 or room < 3:
        return box
    return box + _text(x + width / 2, y + height / 2 + 4, _shorten(tensor.name, room), "inside", "middle")


def image_picture(image: npt.NDArray[np.uint8]) -> str:
    """A test image uint8 [h, w, 1 or 3] as a PNG in a data URL."""
    picture = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
