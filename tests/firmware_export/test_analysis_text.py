"""What `--analyze` says of figures that are written here; estimates of fit on plans and boards made by hand."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graph_builder import Build

from firmware_export.analyze import _operators, analysis_text, analyze, tables_text
from firmware_export.board import BOARDS, Board, load_board
from firmware_export.fit import Fit, RegionNeed, estimate
from firmware_export.graph import Graph
from firmware_export.hostlib import RUNTIME
from firmware_export.operators import Constant, LayerCode
from firmware_export.plan import Plan
from firmware_export.write_tflite import write_tflite
from recipes.recipe import FirmwareExportSection


def layer(operator: str, macs: int, weights: int) -> dict[str, Any]:
    return {"operator": operator, "macs": macs, "weights_bytes": weights}


def region(name: str, needed: int, size: int) -> dict[str, Any]:
    return {"name": name, "needed": needed, "size": size}


def board(name: str, core: str, flash: dict[str, Any], ram: list[dict[str, Any]], short: tuple[str, int]) -> dict[str, Any]:
    found = {"board": name, "core": core, "flash": flash, "ram": ram, "short_of": short[0], "short_bytes": short[1]}
    return found | {"fits": not short[0]}


LAYERS = [layer("conv2d", 1000, 40), layer("relu", 0, 0), layer("conv2d", 2_000_000, 5), layer("add", 0, 0)]
BOARDS_HERE = [
    board("big", "cortex-m7", region("FLASH", 99, 2_097_152), [region("DTCM", 5, 9), region("AXI", 12_345, 99_999)], ("", 0)),
    board("no_flash", "cortex-m3", region("FLASH", 70_000, 65_536), [region("SRAM", 1, 2)], ("FLASH", 4464)),
    board("no_ram", "cortex-m0plus", region("FLASH", 1, 2), [region("SRAM", 40_000, 36_864)], ("SRAM", 3136)),
]
ANALYSIS: dict[str, Any] = {
    "layers": LAYERS,
    "operators": _operators(LAYERS),
    "macs": 2_001_000,
    "weights_bytes": 45,
    "boards": BOARDS_HERE,
    "memory": {"activations_bytes": 23_456},
}


def test_operators_in_the_order_of_their_first_layer() -> None:
    assert ANALYSIS["operators"] == [
        {"operator": "conv2d", "layers": 2, "macs": 2_001_000, "weights_bytes": 45},
        {"operator": "relu", "layers": 1, "macs": 0, "weights_bytes": 0},
        {"operator": "add", "layers": 1, "macs": 0, "weights_bytes": 0},
    ]
    assert _operators([]) == []


def test_both_tables_letter_by_letter() -> None:
    assert tables_text(ANALYSIS).splitlines() == [
        "operator  layers       MACs  weights",
        "conv2d         2  2,001,000       45",
        "relu           1          0        0",
        "add            1          0        0",
        "total          4  2,001,000       45",
        "",
        "board     core           fits                                           flash, about      "
        "RAM with stack, before stripes",
        "big       cortex-m7      yes                                            99 of 2,097,152   "
        "DTCM 5 of 9; AXI 12,345 of 99,999",
        "no_flash  cortex-m3      no: 4,464 bytes short of FLASH                 70,000 of 65,536  SRAM 1 of 2",
        "no_ram    cortex-m0plus  no: 3,136 bytes short of SRAM without stripes  1 of 2            SRAM 40,000 of 36,864",
    ]


@pytest.mark.parametrize("fitting", [3, 1, 0])
def test_the_closing_line_counts_and_names_the_boards_that_fit(fitting: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("firmware_export.analyze.report_text", lambda analysis: "the report\n")
    boards = [{**one, "fits": place < fitting} for place, one in enumerate(BOARDS_HERE)]
    text = analysis_text({**ANALYSIS, "boards": boards})
    names = {3: "big, no_flash, no_ram", 1: "big", 0: "none"}[fitting]
    assert text.startswith("the report\n\noperator") and text.splitlines()[-1] == (
        "analyze: 4 layers of 3 operators, 2,001,000 MACs, 45 bytes of weights, 23,456 bytes of activations; "
        f"fits {fitting} of 3 boards: {names}; nothing was built"
    )


CODE = LayerCode("nn_relu", "nn_relu_params", {}, (Constant("a", np.zeros(10, np.int32)),), ("relu.c",))


def one_layer() -> Graph:
    build = Build()
    x = build.activation((1, 100), name="x")
    return build.graph(x, build.relu(x, (0, 127)))


def plan_of(size: int, *codes: LayerCode) -> Plan:
    return Plan({}, {}, size, size, True, 0, codes)


def fit_on(name: str, plan: Plan, vectors: int = 2) -> Fit:
    return estimate(one_layer(), plan, load_board(name), vectors)


def test_each_byte_of_the_buffer_is_a_byte_of_ram() -> None:
    small, large = (fit_on("nucleo_f446re", plan_of(size, CODE)) for size in (1000, 3456))
    assert large.ram[0].needed - small.ram[0].needed == 2456 and large.flash == small.flash
    one, other = (fit_on("nucleo_h743zi", plan_of(size, CODE)) for size in (1000, 3456))
    assert one.ram[1].needed == 1000 and other.ram[1].needed == 3456 and one.ram[0] == other.ram[0]


def test_stack_and_ring_are_the_boards() -> None:
    """Beside the variables of server and board, about a kilobyte, which every board has alike."""
    needed = {}
    for name in ("nucleo_f446re", "nucleo_g071rb", "nucleo_h743zi", "nucleo_f103rb"):
        found = load_board(name)
        assert found.uart is not None
        own = 0 if found.data != found.activations else 1000
        needed[name] = fit_on(name, plan_of(1000, CODE)).ram[0].needed - own - found.stack_bytes - found.uart.ring
    assert len(set(needed.values())) == 1 and 1000 < needed["nucleo_f446re"] < 1300
    without = load_board("nucleo_f446re").model_copy(update={"uart": None})
    ring = load_board("nucleo_f446re").uart
    assert ring is not None
    found = estimate(one_layer(), plan_of(1000, CODE), without, 2)
    assert fit_on("nucleo_f446re", plan_of(1000, CODE)).ram[0].needed - found.ram[0].needed == ring.ring


def test_known_answers_and_constants_are_counted_once() -> None:
    """100 bytes for each vector; equal arrays are stored once."""
    base = fit_on("nucleo_f446re", plan_of(8, CODE), 1).flash.needed
    assert fit_on("nucleo_f446re", plan_of(8, CODE), 16).flash.needed - base == 15 * 100
    larger = replace(CODE, constants=(Constant("a", np.zeros(1010, np.int32)),))
    assert fit_on("nucleo_f446re", plan_of(8, larger), 1).flash.needed - base == 4000
    twice = fit_on("nucleo_f446re", plan_of(8, CODE, CODE), 1).flash.needed - base
    other = replace(CODE, constants=(Constant("a", np.ones(10, np.int32)),))
    assert fit_on("nucleo_f446re", plan_of(8, CODE, other), 1).flash.needed - base == twice + 40
    assert 60 <= twice <= 130, "parameters and call of one layer"


def test_each_layer_costs_the_same_whatever_their_number() -> None:
    needed = [fit_on("nucleo_f446re", plan_of(8, *[CODE] * count)).flash.needed for count in range(1, 6)]
    assert len({after - before for before, after in pairwise(needed)}) == 1


def test_files_are_counted_once_and_only_where_they_are_called() -> None:
    """A kernel's code is in the image once, however many layers call it, with the files that it calls in turn."""
    relu = fit_on("nucleo_f446re", plan_of(8, CODE)).flash.needed
    conv = replace(CODE, sources=("conv2d.c", "dense.c", "window.c"))
    convolution = fit_on("nucleo_f446re", plan_of(8, conv)).flash.needed
    assert convolution > relu
    both = fit_on("nucleo_f446re", plan_of(8, conv, CODE)).flash.needed
    twice = fit_on("nucleo_f446re", plan_of(8, conv, conv, CODE)).flash.needed
    none = fit_on("nucleo_f446re", plan_of(8, replace(CODE, sources=()))).flash.needed
    assert relu - none == both - convolution - (twice - both), "relu.c alone"
    assert (RUNTIME / "relu.c").stat().st_size / 20 < relu - none < (RUNTIME / "relu.c").stat().st_size


def test_comments_and_blanks_are_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = "int f(int x) { return x + 1; }\n"
    noisy = "/* many\n * words */\n\n\nint  f(int x) {   // more words, and /* these\n    return x + 1;\n}\n\n"
    sizes = []
    for name, text in (("plain.c", plain), ("noisy.c", noisy), ("double.c", plain + plain.replace("f(", "g("))):
        (tmp_path / name).write_text(text)
        monkeypatch.setattr("firmware_export.fit.RUNTIME", tmp_path)
        monkeypatch.setattr("firmware_export.fit.runtime_files", lambda files: [])
        sizes.append(fit_on("nucleo_f446re", plan_of(8, replace(CODE, sources=(name,)))).flash.needed)
    nothing = fit_on("nucleo_f446re", plan_of(8, replace(CODE, sources=()))).flash.needed
    assert abs(sizes[0] - sizes[1]) <= 1 and nothing < sizes[0] < sizes[2], "but for a blank at either end"
    assert sizes[2] - nothing == pytest.approx(2 * (sizes[0] - nothing), abs=1)


def test_a_core_without_division_and_long_products_needs_more_of_the_library() -> None:
    """Cortex-M0+: __aeabi_uidiv, __aeabi_lmul and their like."""
    code = {name: load_board(name) for name in ("nucleo_g071rb", "nucleo_f103rb")}
    same = {name: one.model_copy(update={"folder": BOARDS / "host"}) for name, one in code.items()}
    needed = {name: estimate(one_layer(), plan_of(8, CODE), one, 2).flash.needed for name, one in same.items()}
    assert 100 < needed["nucleo_g071rb"] - needed["nucleo_f103rb"] < 2000


def sized(found: Board, **sizes: int) -> Board:
    memory = tuple(m.model_copy(update={"size": sizes.get(m.name, m.size)}) for m in found.memory)
    return found.model_copy(update={"memory": memory})


def test_the_worst_region_is_named_even_if_two_are_short() -> None:
    whole = load_board("nucleo_f446re")
    graph, layout = one_layer(), plan_of(5000, CODE)
    found = estimate(graph, layout, whole, 2)
    flash, ram = found.flash.needed, found.ram[0].needed
    cases: list[tuple[int, int, tuple[str, int]]] = [
        (flash - 10, ram - 20, ("SRAM", 20)),
        (flash - 30, ram - 20, (found.flash.name, 30)),
        (flash, ram, ("", 0)),
        (flash - 1, ram + 100, (found.flash.name, 1)),
    ]
    for flash_size, ram_size, expected in cases:
        tried = estimate(graph, layout, sized(whole, **{found.flash.name: flash_size, "SRAM": ram_size}), 2)
        assert (tried.short_of, tried.short_bytes) == expected and tried.fits == (expected[1] == 0)


def test_a_fit_as_json_is_whole() -> None:
    found = Fit("b", "cortex-m3", RegionNeed("FLASH", 5, 4), (RegionNeed("RAM", 1, 2),), "FLASH", 1)
    assert found.to_json() == {
        "board": "b",
        "core": "cortex-m3",
        "flash": {"name": "FLASH", "needed": 5, "size": 4},
        "ram": ({"name": "RAM", "needed": 1, "size": 2},),
        "short_of": "FLASH",
        "short_bytes": 1,
        "fits": False,
    }


def test_known_answers_of_the_section_count_on_every_board(tmp_path: Path) -> None:
    model = tmp_path / "m.tflite"
    model.write_bytes(write_tflite(one_layer()))
    needed = []
    for vectors in (1, 11):
        found = analyze(model, FirmwareExportSection(selftest_vectors=vectors))
        needed.append({one["board"]: one["flash"]["needed"] for one in found["boards"]})
        assert "host" not in needed[-1] and found["file_bytes"] == model.stat().st_size and found["name"] == "m.tflite"
    assert {needed[1][name] - needed[0][name] for name in needed[0]} == {10 * 100}
