"""The page of the report: one HTML text without a reference to anything outside itself.

Everything that comes from a file, a model or the line goes through `escape` before it is put into the page.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
import numpy.typing as npt

from host_tools.report_pictures import (
    UNKNOWN,
    MemoryUse,
    PlannedTensor,
    accuracy_picture,
    confusion_picture,
    image_picture,
    memory_picture,
    percent,
    plan_picture,
    thousands,
)
from host_tools.report_style import STYLE
from host_tools.results import Answers, LayerVerdict, Results


@dataclass(frozen=True)
class Step:
    """One row of the accuracy table; macs and weights are None for the rows that do not change the network."""

    name: str
    accuracy: float
    macs: int | None = None
    weights: int | None = None


@dataclass(frozen=True)
class LayerRow:
    """One row of the layers table. weights: bytes of its constants; output: bytes of its output."""

    index: int
    operator: str
    shape: str
    macs: int
    weights: int
    output: int


@dataclass(frozen=True)
class Report:
    """Everything the page shows. images: uint8 [n, h, w, c], the test images in the order of `answers`."""

    results: Results
    answers: Answers
    images: npt.NDArray[np.uint8]
    steps: tuple[Step, ...]
    memory: tuple[MemoryUse, ...]
    plan: tuple[PlannedTensor, ...]
    layers: tuple[LayerRow, ...]


def page(report: Report) -> str:
    """The whole report as one HTML text."""
    results = report.results
    run, build = results.command, _without(results.command, "--target", "--images")
    title = escape(f"{results.recipe} on {results.target} ({results.board})")
    sections = [
        _headline(results),
        _tiles(results),
        _section("accuracy", "Accuracy after each step", _accuracy(report), f"python -m host_tools {run}"),
        _section("confusion", "Confusion matrix", _confusion(results), f"python -m host_tools {run}"),
        _section("memory", "Memory", _memory(report), f"python -m firmware_export {build}"),
        _section("layers", "Layers", _layers(report), f"python -m host_tools layers {run}"),
        _section("link", "The link", _link(results), f"python -m host_tools info {run}"),
        _section("images", "Test images", _images(report), f"python -m host_tools {run}"),
        _section("tolerance", "Other runtimes", _tolerance(results), f"python -m host_tools exact {build}"),
        _section("versions", "Versions", _versions(results), "pip list"),
    ]
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    head = (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">'
        f"<title>{title}</title><style>{STYLE}</style></head>"
    )
    return f"{head}<body><main><h1>{title}</h1>{''.join(sections)}</main></body></html>\n"


def _without(command: str, *options: str) -> str:
    """A command line without some options and their values."""
    words = shlex.split(command)
    for option in options:
        if option in words:
            at = words.index(option)
            del words[at : at + 2]
    return shlex.join(words)


def _section(identifier: str, heading: str, body: str, command: str) -> str:
    source = f'<p class="command">printed by <code>{escape(command)}</code></p>'
    return f'<section id="{identifier}"><h2>{escape(heading)}</h2>{body}{source}</section>'


def table(head: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[int] = (), wide: bool = False) -> str:
    """An HTML table; cells are texts and are escaped; the columns in `numbers` are set to the right.

    A wide table does not break its cells; it is moved sideways on a narrow screen.
    """
    css = ["number" if i in numbers else "" for i in range(len(head))]
    top = "".join(f'<th class="{c}">{escape(cell)}</th>' for c, cell in zip(css, head, strict=True))
    body = "".join(
        "<tr>" + "".join(f'<td class="{c}">{escape(cell)}</td>' for c, cell in zip(css, row, strict=True)) + "</tr>"
        for row in rows
    )
    kind = ' class="wide"' if wide else ""
    return f'<div class="scroll"><table{kind}><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _figure(svg: str) -> str:
    return f'<div class="scroll figure">{svg}</div>'


def _headline(results: Results) -> str:
    good = not results.faults
    same = f"All {thousands(results.images)} answers are bit-identical to the exact simulator"
    verdict = same if good else "; ".join(results.faults)
    verdict = verdict[0].upper() + verdict[1:] + "."
    detail = (
        f"Arithmetic “{results.arithmetic}”, model {results.model_hash[:16]}…, "
        f"{_core(results)}, "
        f"self-test {results.device.selftest}."
    )
    css = "good" if good else "bad"
    return f'<p id="verdict" class="verdict {css}"><strong>{escape(verdict)}</strong><br>{escape(detail)}</p>'


def _core(results: Results) -> str:
    device = results.device
    return f"{device.core} at {device.clock_hz / 1e6:g} MHz" if device.clock_hz else device.core


def _tiles(results: Results) -> str:
    link = results.link
    tiles = [
        (percent(results.accuracy.device, 2), f"on the device (float {percent(results.accuracy.float_, 2)})"),
        (_short(results.macs), "multiply-accumulates"),
        (_bytes(results.weights_bytes), "weights"),
        (_bytes(results.flash_bytes), "flash"),
        (_bytes(results.ram_bytes), f"RAM, and {_bytes(results.stack_bytes)} of stack reserved"),
        (_short(results.instructions_per_inference), "instructions per inference"),
        (thousands(link.crc_errors + link.retries + link.resets), "faults on the line, all mended"),
    ]
    known = [tile for tile in tiles if tile[0] != UNKNOWN]
    cells = "".join(f"<li><b>{escape(value)}</b><span>{escape(name)}</span></li>" for value, name in known)
    return f'<ul class="tiles">{cells}</ul>'


def _short(number: int | None) -> str:
    if number is None:
        return UNKNOWN
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= limit:
            return f"{number / limit:.3g} {unit}"
    return str(number)


def _bytes(number: int | None) -> str:
    if number is None:
        return UNKNOWN
    return f"{number / 1024:.1f} KB" if number >= 1024 else f"{number} B"


def _accuracy(report: Report) -> str:
    picture = accuracy_picture([(step.name, step.accuracy) for step in report.steps])
    rows = [
        (s.name, percent(s.accuracy, 2), "" if s.macs is None else thousands(s.macs), _count(s.weights)) for s in report.steps
    ]
    return _figure(picture) + table(("step", "test images right", "MACs", "weights"), rows, (1, 2, 3))


def _count(number: int | None) -> str:
    return "" if number is None else thousands(number)


def _confusion(results: Results) -> str:
    picture = confusion_picture(results.class_names, results.confusion)
    rows = [
        (name, str(sum(row)), str(row[i]), percent(results.per_class_accuracy[i]))
        for i, (name, row) in enumerate(zip(results.class_names, results.confusion, strict=True))
    ]
    return _figure(picture) + table(("class", "images", "right", "share"), rows, (1, 2, 3))


def _memory(report: Report) -> str:
    parts = [_figure(memory_picture(report.memory))] if report.memory else ["<p>A process of this computer: no limits.</p>"]
    parts.append("<h3>The activation buffer over time</h3>")
    parts.append(_figure(plan_picture(report.plan, report.results.activations_bytes)))
    rows = [
        (t.name, f"{t.first} – {t.last}", thousands(t.offset), thousands(t.size), ", ".join(t.over))
        for t in sorted(report.plan, key=lambda t: (t.first, t.offset))
    ]
    columns = ("tensor", "layers", "offset", "bytes", "written over")
    parts.append(f"<details><summary>as a table</summary>{table(columns, rows, (2, 3))}</details>")
    return "".join(parts)


def _layers(report: Report) -> str:
    verdicts = {verdict.index: verdict for verdict in report.results.layers}
    rows = [
        (
            str(row.index),
            row.operator,
            row.shape,
            thousands(row.macs),
            thousands(row.weights),
            thousands(row.output),
            _crc(verdicts.get(row.index)),
        )
        for row in report.layers
    ]
    note = "<p>The CRC-32 of every layer's output of the first test image, device against simulator.</p>"
    head = ("layer", "operator", "shape", "MACs", "weight bytes", "output bytes", "CRC-32")
    return note + table(head, rows, (0, 3, 4, 5), wide=True)


def _crc(verdict: LayerVerdict | None) -> str:
    if verdict is None:
        return "not compared"
    return f"{verdict.device:08x} ✓" if verdict.identical else f"{verdict.device:08x} ✗, expected {verdict.expected:08x}"


def _link(results: Results) -> str:
    link, device = results.link, results.device
    rows = [
        ("frames", thousands(link.frames)),
        ("damaged frames (CRC-32)", thousands(link.crc_errors)),
        ("requests repeated", thousands(link.retries)),
        ("resets of the board, survived", thousands(link.resets)),
        ("silences ended by a new handshake", thousands(link.reconnections)),
        ("bytes lost by the board's receiver", thousands(link.overruns)),
        ("seconds for the images", f"{results.stream_seconds:.1f}"),
        ("images per second", _rate(results)),
        ("board", f"{device.board} ({_core(results)}, build {device.build_id})"),
        ("protocol", str(device.protocol)),
    ]
    if results.cycles is not None:
        spread = results.cycles
        counts = f"{thousands(spread.minimum)} / {thousands(spread.mean)} / {thousands(spread.maximum)}"
        rows.append((f"{spread.unit} per inference, least / mean / most", counts))
    if results.stack_used_bytes is not None:
        reserved = "" if results.stack_bytes is None else f" of {thousands(results.stack_bytes)}"
        rows.append(("stack used at most", f"{thousands(results.stack_used_bytes)}{reserved} bytes"))
    return table(("what", "how much"), rows, (1,))


def _rate(results: Results) -> str:
    measured = results.images - results.resumed_images
    return f"{measured / results.stream_seconds:,.1f}" if measured and results.stream_seconds else UNKNOWN


def chosen_images(answers: Answers, limit: int = 24) -> list[int]:
    """Which images the page shows: those that differ from the simulator, wrong answers, then right ones for the rest."""
    wrong = answers.classes != answers.labels
    rank = np.where(~answers.identical, 0, np.where(wrong, 1, 2))
    order = np.argsort(rank, kind="stable")
    worth = order[rank[order] < 2][: limit - limit // 3]
    fill = order[rank[order] == 2]
    return [int(i) for i in (*worth, *fill[: limit - len(worth)])]


def _images(report: Report) -> str:
    cells = [_image(report, index) for index in chosen_images(report.answers)]
    wrong = int((report.answers.classes != report.answers.labels).sum())
    note = f"<p>{thousands(wrong)} of {thousands(report.results.images)} answers are wrong; these come first.</p>"
    return f'{note}<ul class="images">{"".join(cells)}</ul>'


def _image(report: Report, index: int) -> str:
    answers, names = report.answers, report.results.class_names
    answer, label = int(answers.classes[index]), int(answers.labels[index])
    css = "differs" if not answers.identical[index] else "right" if answer == label else "wrong"
    said = names[answer] if answer == label else f"{names[answer]}, not {names[label]}"
    if css == "differs":
        said += " (differs from the simulator)"
    picture = image_picture(report.images[index])
    alternative = f"test image {index}, {names[label]}"
    return (
        f'<li class="{css}"><img src="{picture}" alt="{escape(alternative)}">'
        f"<span>{escape(said)}</span><small>image {index}</small></li>"
    )


def _tolerance(results: Results) -> str:
    note = (
        "<p>These runtimes round differently, so they agree only within a tolerance. "
        "None of these figures is part of the verdict of exactness.</p>"
    )
    rows = [
        (
            t.runtime,
            thousands(t.images),
            f"{thousands(t.bytes_different)} of {thousands(t.bytes_compared)}",
            str(t.largest_difference),
            thousands(t.classes_different),
            t.note,
        )
        for t in results.tolerance
    ]
    head = ("runtime", "images", "output bytes that differ", "largest difference", "classes that differ", "")
    return note + table(head, rows, (1, 2, 3, 4)) if rows else note + "<p>None was run.</p>"


def _versions(results: Results) -> str:
    rows = [(name, version) for name, version in sorted(results.versions.items())]
    return table(("package", "version"), [*rows, ("model", results.model_hash)])
