"""The pictures of the report as XML: well formed, every number finite, everything inside the frame, names escaped."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from host_tools.report_pictures import (
    MemoryUse,
    PlannedTensor,
    accuracy_picture,
    confusion_picture,
    memory_picture,
    plan_picture,
    tick_step,
)

NAMESPACE = re.compile(r"^\{[^}]*\}")
NUMBERS = {"x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "r", "width", "height"}
names = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=40)
fractions = st.floats(0, 1)
sizes = st.integers(0, 10**7)


def elements(svg: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Every element of a picture with its attributes; fails on anything that is not XML."""
    root = ElementTree.fromstring(svg.replace("&#160;", " "))
    for element in root.iter():
        yield NAMESPACE.sub("", element.tag), dict(element.attrib)


def check_picture(svg: str) -> None:
    """Numbers are finite, rectangles have sizes from 0 on and, like dots and lines, lie inside the frame."""
    parts = list(elements(svg))
    assert parts[0][0] == "svg"
    width, height = (float(v) for v in parts[0][1]["viewBox"].split()[2:])
    for tag, attributes in parts[1:]:
        values = {key: float(value) for key, value in attributes.items() if key in NUMBERS}
        assert all(math.isfinite(value) for value in values.values()), attributes
        if tag == "rect":
            assert values["width"] >= 0 and values["height"] >= 0
            assert values["x"] >= -0.01 and values["x"] + values["width"] <= width + 0.01
            assert values["y"] >= -0.01 and values["y"] + values["height"] <= height + 0.01
        if tag == "circle":
            assert 0 <= values["cx"] <= width and 0 <= values["cy"] <= height
        if tag == "line":
            assert min(values["x1"], values["x2"]) >= 0 and max(values["x1"], values["x2"]) <= width


@settings(deadline=None)
@given(st.lists(st.tuples(names, fractions), min_size=1, max_size=12))
def test_any_accuracies(steps: list[tuple[str, float]]) -> None:
    svg = accuracy_picture(steps)
    check_picture(svg)
    dots = [tag for tag, attributes in elements(svg) if attributes.get("class", "").startswith("dot")]
    assert len(dots) == len(steps)


@settings(deadline=None)
@given(st.lists(st.tuples(names, st.lists(st.tuples(names, sizes), max_size=6), st.none() | sizes), max_size=4))
def test_any_memories(uses: list[tuple[str, list[tuple[str, int]], int | None]]) -> None:
    check_picture(memory_picture([MemoryUse(name, tuple(parts), capacity) for name, parts, capacity in uses]))


@settings(deadline=None)
@given(st.lists(st.tuples(names, sizes, sizes, st.integers(0, 40), st.integers(0, 40)), max_size=12))
def test_any_plans(blocks: list[tuple[str, int, int, int, int]]) -> None:
    tensors = [PlannedTensor(name, offset, size, first, first + life) for name, offset, size, first, life in blocks]
    check_picture(plan_picture(tensors, max((t.offset + t.size for t in tensors), default=0)))


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_any_confusion(data: st.DataObject) -> None:
    classes = data.draw(st.integers(1, 20))
    row = st.lists(st.integers(0, 10**6), min_size=classes, max_size=classes)
    matrix = data.draw(st.lists(row, min_size=classes, max_size=classes))
    labels = data.draw(st.lists(names, min_size=classes, max_size=classes))
    svg = confusion_picture(labels, matrix)
    check_picture(svg)
    shades = [float(a["fill-opacity"]) for _, a in elements(svg) if "fill-opacity" in a]
    assert len(shades) == classes**2 and all(0 <= shade <= 1 for shade in shades)
    flat = [count for counts in matrix for count in counts]
    assert all((shade == 0) == (count == 0) for shade, count in zip(shades, flat, strict=True))


@given(st.floats(1e-6, 1e12), st.integers(1, 20))
def test_ticks_are_as_many_as_wanted_at_most(span: float, most: int) -> None:
    step = tick_step(span, most)
    assert span / step <= most * (1 + 1e-6)
    assert span / step > most / 2.6  # the steps 1, 2, 5 lie at most 2.5 apart
    mantissa = step / 10.0 ** math.floor(math.log10(step) + 1e-9)
    assert min(abs(mantissa - m) for m in (1, 2, 5)) < 1e-6


def test_axis_labels_do_not_run_into_each_other() -> None:
    for low in range(100):
        svg = accuracy_picture([("a", low / 100), ("b", min(low / 100 + 0.09, 1.0))])
        places = sorted(float(a["x"]) for tag, a in elements(svg) if tag == "text" and a.get("class") == "small")
        assert len(places) <= 7
        assert all(right - left >= 30 for left, right in pairwise(places)), low


@pytest.mark.parametrize("layers", [1, 18, 19, 400])
def test_layer_numbers_are_thinned_out(layers: int) -> None:
    svg = plan_picture([PlannedTensor("t", 0, 16, 0, layers - 1)], 16)
    numbers = [a for tag, a in elements(svg) if tag == "text" and a.get("text-anchor") == "middle"]
    assert 2 <= len(numbers) <= 21


def test_what_is_written_over_something_begins_in_the_middle_of_its_layer() -> None:
    """An output over its input: the input's box ends with the layer, the output's begins halfway through it."""
    tensors = [
        PlannedTensor("x", 0, 100, 0, 1),
        PlannedTensor("y", 0, 100, 1, 3, ("x",)),
        PlannedTensor("z", 0, 9, 2, 2, ("y",)),
    ]
    svg = plan_picture(tensors, 100)
    boxes = [a for tag, a in elements(svg) if tag == "rect" and a["class"].startswith("part")]
    ends = [(float(box["x"]) - 1, float(box["x"]) + float(box["width"]) + 1) for box in boxes]
    column = (ends[0][1] - ends[0][0]) / 2
    assert ends[1][0] - ends[0][0] == pytest.approx(1.5 * column, abs=0.05)
    assert ends[1][1] - ends[1][0] == pytest.approx(2.5 * column, abs=0.05)
    assert ends[2][0] - ends[0][0] == pytest.approx(2 * column, abs=0.05), "one layer alone stays whole"
    assert "over x" in svg and "over y" in svg


def test_a_hostile_name_is_only_text() -> None:
    hostile = '"/><script>x</script><g onload="y'
    for svg in (
        accuracy_picture([(hostile, 0.5)]),
        memory_picture([MemoryUse(hostile, ((hostile, 1), (hostile, 2)), 10)]),
        plan_picture([PlannedTensor(hostile, 0, 1000, 0, 0, (hostile,))], 1000),
        confusion_picture([hostile, hostile], [[1, 2], [3, 4]]),
    ):
        tags = {tag for tag, _ in elements(svg)}
        assert tags <= {"svg", "title", "text", "tspan", "rect", "line", "circle", "path"}
        assert not [key for _, attributes in elements(svg) for key in attributes if key.startswith("on")]
