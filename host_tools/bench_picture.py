"""The picture of `bench`: bars of executed instructions beside those of TensorFlow Lite Micro with CMSIS-NN."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from host_tools.report_pictures import UNKNOWN, _rect, _svg, _text
from host_tools.report_style import STYLE
from recipes.artifacts import write_text_atomic

REFERENCE: dict[tuple[str, str], int] = {
    ("pretrainedResnet_quant", "cortex-m4"): 28_505_063,
    ("kws_ref_model", "cortex-m4"): 7_228_338,
    ("vww_96_int8", "cortex-m4"): 22_609_004,
    ("ad01_int8", "cortex-m4"): 573_204,
    ("pretrainedResnet_quant", "cortex-m7"): 28_505_063,
    ("kws_ref_model", "cortex-m7"): 7_228_338,
    ("vww_96_int8", "cortex-m7"): 22_609_004,
    ("ad01_int8", "cortex-m7"): 573_204,
    ("pretrainedResnet_quant", "cortex-m3"): 41_800_000,
    ("kws_ref_model", "cortex-m3"): 10_500_000,
    ("vww_96_int8", "cortex-m3"): 32_100_000,
    ("ad01_int8", "cortex-m3"): 960_000,
    ("pretrainedResnet_quant", "cortex-m0plus"): 97_600_000,
    ("kws_ref_model", "cortex-m0plus"): 29_000_000,
    ("vww_96_int8", "cortex-m0plus"): 86_900_000,
    ("ad01_int8", "cortex-m0plus"): 1_760_000,
    ("pretrainedResnet_quant", "cortex-m55"): 4_800_000,
    ("kws_ref_model", "cortex-m55"): 1_800_000,
    ("vww_96_int8", "cortex-m55"): 6_400_000,
    ("ad01_int8", "cortex-m55"): 290_000,
}
"""Executed instructions of one inference of the MLPerf Tiny models: TensorFlow Lite Micro with CMSIS-NN, its best build with
arm-none-eabi-gcc, counted in qemu. From cortex-m3 on rounded to 0.1 M (the autoencoder to 0.01 M)."""
LEFT, WIDTH, ROW, RIGHT = 310.0, 520.0, 26, 190.0


class Figures(Protocol):
    """What the picture needs of a row."""

    @property
    def model(self) -> str:
        """Name of the model's file, without its suffix."""

    @property
    def core(self) -> str:
        """Name of the core."""

    @property
    def optimize(self) -> str:
        """The goal of the kernels' choice."""

    @property
    def toolchain(self) -> str:
        """Name and version of the compiler."""

    @property
    def instructions(self) -> int | None:
        """Executed in one inference."""


def write_picture(path: Path, rows: Sequence[Figures]) -> None:
    """Writes an SVG picture: one bar for every counted row, as long as its share of the reference where there is one, else
    of the largest row of its model."""
    write_text_atomic(path, picture(rows))


def picture(rows: Sequence[Figures]) -> str:
    """The SVG text."""
    counted = [row for row in rows if row.instructions is not None]
    body = [_text(LEFT, 16, "executed instructions; grey: TensorFlow Lite Micro with CMSIS-NN", "small")]
    for number, row in enumerate(sorted(counted, key=lambda row: (row.model, row.core, row.toolchain, row.optimize))):
        body += _bar(row, 30.0 + ROW * number, _full(row, counted))
    svg = _svg(LEFT + WIDTH + RIGHT, 36.0 + ROW * len(counted), "instructions of one inference", body)
    head = '<svg xmlns="http://www.w3.org/2000/svg" '
    return svg.replace("<svg ", head, 1).replace("<title>", f"<style>{STYLE}</style><title>", 1) + "\n"


def _full(row: Figures, rows: Sequence[Figures]) -> int:
    """What a bar of full length stands for."""
    reference = REFERENCE.get((row.model, row.core), 0)
    return max(reference, *(r.instructions or 0 for r in rows if (r.model, r.core) == (row.model, row.core)), 1)


def _bar(row: Figures, y: float, full: int) -> list[str]:
    reference, found = REFERENCE.get((row.model, row.core)), row.instructions or 0
    length = WIDTH * found / full
    parts = [_text(LEFT - 10, y + 15, f"{row.model} {row.core} {row.optimize}", "small", "end")]
    if reference is not None:
        parts.append(_rect(LEFT, y + 3, WIDTH * reference / full, ROW - 8, "cell"))
    parts.append(_rect(LEFT, y + 3, length, ROW - 8, "part0", title=row.toolchain))
    share = UNKNOWN if reference is None else f"{100 * found / reference:.0f} % of {millions(reference)}"
    parts.append(_text(LEFT + WIDTH + 8, y + 15, f"{millions(found)}, {share}", "small"))
    return parts


def millions(number: int) -> str:
    """10,550,495 -> '10.55 M'."""
    return f"{number / 1e6:.2f} M"
