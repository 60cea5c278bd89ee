"""Estimates of flash and RAM against images that are really built and linked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from golden_models import MODELS
from graph_builder import Build, small_net

from firmware_export.board import Board, board_names, load_board
from firmware_export.emit import emit
from firmware_export.export import export_model
from firmware_export.fit import Fit, estimate
from firmware_export.graph import Graph
from firmware_export.image import FitError, build_image, toolchain_for
from firmware_export.plan import plan
from firmware_export.target import Target
from firmware_export.write_tflite import write_tflite
from recipes.recipe import FirmwareExportSection

SECTION = FirmwareExportSection()
CORES = ("netduinoplus2", "nucleo_f103rb", "nucleo_g071rb", "nucleo_h743zi")
OVER, UNDER = 6_000, 1_500
"""Bytes of flash by which an estimate may lie above or below the image: a few per cent of the smallest board's."""


def fit_of(graph: Graph, board: Board) -> Fit:
    return estimate(graph, plan(graph, Target.of(board.core, SECTION.optimize)), board, SECTION.selftest_vectors)


NETS = {"small": small_net, "residual": MODELS["residual"], "two_ends": MODELS["two_ends"]}
QUICK = {("small", name) for name in CORES} | {("residual", "nucleo_f446re"), ("two_ends", "nucleo_g071rb")}
PAIRS = [
    pytest.param(net, name, marks=() if (net, name) in QUICK else pytest.mark.long)
    for net in NETS
    for name in (*CORES, "nucleo_f446re")
]


@pytest.mark.parametrize(("net", "name"), PAIRS)
def test_the_estimate_is_near_the_image(net: str, name: str, tmp_path: Path) -> None:
    board, graph = load_board(name), NETS[net]()
    model = tmp_path / "model.tflite"
    model.write_bytes(write_tflite(graph))
    (tmp_path / "export").mkdir()
    export_model(model, tmp_path / "export", SECTION, Target.of(board.core, SECTION.optimize))
    built = build_image(board, tmp_path / "export", tmp_path / "image", toolchain_for(board), SECTION.compiler_level)
    found = fit_of(graph, board)
    assert -UNDER <= found.flash.needed - built.flash_bytes <= OVER, (found.flash.needed, built.flash_bytes)
    used = {region.name: region.used for region in built.regions}
    for region in found.ram:
        assert abs(region.needed - used[region.name]) <= 256, (region, used)
    assert found.fits


def wide_net(size: int, channels: int) -> Graph:
    build = Build()
    x = build.activation((1, size, size, 4), name="x")
    return build.graph(x, build.conv(x, channels, 1, padding=(0, 0, 0, 0)))


def test_ram_that_is_short_is_told_as_the_linker_tells_it(tmp_path: Path) -> None:
    board, graph = load_board("nucleo_f103rb"), wide_net(64, 8)
    found = fit_of(graph, board)
    assert not found.fits and found.short_of == "SRAM"
    model = tmp_path / "model.tflite"
    model.write_bytes(write_tflite(graph))
    (tmp_path / "export").mkdir()
    export_model(model, tmp_path / "export", SECTION, Target.of(board.core, SECTION.optimize))
    with pytest.raises(FitError) as caught:
        build_image(board, tmp_path / "export", tmp_path / "image", toolchain_for(board))
    assert caught.value.region == "SRAM" and abs(caught.value.bytes_over - found.short_bytes) <= 256


def test_the_region_that_lacks_most_is_named() -> None:
    graph = wide_net(96, 48)
    found = fit_of(graph, load_board("nucleo_f103rb"))
    needed = {region.name: region.needed - region.size for region in (found.flash, *found.ram)}
    assert found.short_bytes == max(needed.values()) and needed[found.short_of] == found.short_bytes


def test_activations_and_stack_may_lie_in_two_regions() -> None:
    graph = small_net()
    found = fit_of(graph, load_board("nucleo_h743zi"))
    size = plan(graph, Target.of("cortex-m7", SECTION.optimize)).size
    assert [(region.name, region.needed == size) for region in found.ram] == [("DTCM", False), ("AXI_SRAM", True)]


def test_every_byte_of_constants_and_answers_counts() -> None:
    graph, board = small_net(), load_board("nucleo_f446re")
    layout = plan(graph, Target.of(board.core, SECTION.optimize))
    few, many = (estimate(graph, layout, board, vectors).flash.needed for vectors in (2, 12))
    assert many - few == 10 * 4, "known answers of four bytes"
    wide, narrow = wide_net(8, 64), wide_net(8, 32)
    assert fit_of(wide, board).flash.needed - fit_of(narrow, board).flash.needed >= 32 * (4 + 4)


def test_a_region_of_exactly_the_size_is_enough() -> None:
    graph, board = small_net(), load_board("nucleo_f446re")
    needed = fit_of(graph, board).ram[0].needed
    for size, fits in ((needed, True), (needed - 1, False)):
        memory = tuple(m.model_copy(update={"size": size}) if m.name == "SRAM" else m for m in board.memory)
        found = fit_of(graph, board.model_copy(update={"memory": memory}))
        assert found.fits == fits and found.short_bytes == int(not fits)


def test_as_json() -> None:
    found = fit_of(small_net(), load_board("nucleo_f446re")).to_json()
    assert found["fits"] is True and found["short_of"] == "" and found["flash"]["size"] == 512 * 1024
    assert [region["name"] for region in found["ram"]] == ["SRAM"]


@pytest.mark.parametrize("name", [name for name in board_names() if name != "host"])
def test_every_board_is_estimated(name: str) -> None:
    found = fit_of(small_net(), load_board(name))
    assert found.board == name and 8_000 < found.flash.needed < 60_000


def test_the_emitted_code_is_that_of_the_plan_that_was_estimated() -> None:
    graph = replace(small_net(), name="network")
    layout = plan(graph, Target.of("cortex-m4", "balanced"))
    text = emit(graph, layout, "network", selftest=False)["network.h"]
    assert f"NETWORK_ACTIVATIONS_SIZE {layout.size}u" in text
