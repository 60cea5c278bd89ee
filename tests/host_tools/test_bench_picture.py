"""The picture of bench: bars to scale, references where they are known, text that cannot break out."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import pytest

from host_tools.bench_picture import REFERENCE, WIDTH, millions, picture, write_picture


@dataclass(frozen=True)
class Figures:
    model: str = "kws_ref_model"
    core: str = "cortex-m4"
    optimize: str = "balanced"
    toolchain: str = "gcc 12"
    instructions: int | None = 2_400_000


def widths(text: str, css: str) -> list[float]:
    return [float(found) for found in re.findall(rf'width="([0-9.]+)" height="[0-9.]+" class="{css}"', text)]


def test_a_bar_is_as_long_as_its_share_of_the_reference() -> None:
    text = picture([Figures()])
    assert widths(text, "part0") == pytest.approx([WIDTH * 2_400_000 / 7_228_338], abs=0.01)
    assert widths(text, "cell") == [WIDTH]
    assert "2.40 M, 33 % of 7.23 M" in text


def test_a_bar_longer_than_the_reference_is_the_full_one() -> None:
    text = picture([Figures(instructions=10_000_000), Figures(instructions=5_000_000, optimize="ram")])
    assert widths(text, "part0") == [WIDTH, WIDTH / 2]
    assert widths(text, "cell") == pytest.approx([WIDTH * 0.7228338] * 2, abs=0.01)


def test_models_without_reference_share_one_scale_for_each_core() -> None:
    rows = [Figures("net", instructions=100), Figures("net", instructions=50, optimize="time"), Figures("net", "cortex-m3")]
    text = picture(rows)
    assert sorted(widths(text, "part0")) == [WIDTH / 2, WIDTH, WIDTH]
    assert widths(text, "cell") == [] and "–" in text


def test_rows_that_were_not_counted_are_left_out() -> None:
    assert widths(picture([Figures(core="host", instructions=None)]), "part0") == []


def test_rows_stand_in_order_and_apart() -> None:
    rows = [Figures("b"), Figures("a", "cortex-m7"), Figures("a", "cortex-m3")]
    text = picture(rows)
    places = [text.index(name) for name in ("a cortex-m3", "a cortex-m7", "b cortex-m4")]
    assert places == sorted(places)
    heights = [float(y) for y in re.findall(r'y="([0-9.]+)" width="[0-9.]+" height="[0-9.]+" class="part0"', text)]
    assert all(after - before > 18 for before, after in itertools.pairwise(heights))


def test_names_are_escaped_and_the_file_is_xml(tmp_path: Path) -> None:
    write_picture(tmp_path / "b.svg", [Figures('<script>"&', toolchain="<x>")])
    text = (tmp_path / "b.svg").read_text()
    root = ElementTree.fromstring(text)
    assert root.tag == "{http://www.w3.org/2000/svg}svg" and "<script>" not in text and "&lt;script&gt;" in text


def test_references_are_those_of_the_four_models_on_five_cores() -> None:
    assert len(REFERENCE) == 20 and len({model for model, _ in REFERENCE}) == 4
    assert REFERENCE["ad01_int8", "cortex-m4"] == 573_204
    for model, core in REFERENCE:
        if core in ("cortex-m3", "cortex-m0plus"):
            assert REFERENCE[model, core] > REFERENCE[model, "cortex-m4"]


def test_millions() -> None:
    assert millions(10_550_495) == "10.55 M" and millions(4_999) == "0.00 M"
