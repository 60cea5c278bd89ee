"""Firmware of a network whose activations lie in two regions of a board's RAM: built, measured, run on the emulated board."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from firmware_builder import COMPILERS, compiler
from test_board import VALID, written
from two_regions import wide_middle

import firmware_export.__main__ as program
from firmware_export.board import Board, load_board, read_board
from firmware_export.board_export import generated_for
from firmware_export.export import export_model, load_graph
from firmware_export.fit import activation_rooms, estimate
from firmware_export.graph import Graph
from firmware_export.image import FitError, build_image, linker_script
from firmware_export.plan import RegionsError, plan
from firmware_export.simulate import simulate
from firmware_export.target import Target
from firmware_export.write_tflite import write_tflite
from host_tools.emulator import UnicornTransport
from host_tools.link import ExpectedModel, Link
from recipes.artifacts import UsageError
from recipes.recipe import FirmwareExportSection

SECTION = FirmwareExportSection()
TARGET = Target("dsp", SECTION.optimize)
SEED = 2


def small_board(first: int, second: int | None = None) -> Board:
    """nucleo_h743zi with so many bytes in the region for activations, and in the second one."""
    board = load_board("nucleo_h743zi")
    sizes = {"AXI_SRAM": first, "DTCM": second or board.region("DTCM").size}
    memory = tuple(m.model_copy(update={"size": sizes.get(m.name, m.size)}) for m in board.memory)
    return board.model_copy(update={"memory": memory})


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Graph]:
    """The model file, its ordinary export, and the graph that is exported."""
    folder = tmp_path_factory.mktemp("exported")
    model = folder / "model.tflite"
    model.write_bytes(write_tflite(wide_middle(SEED)))
    (folder / "export").mkdir()
    export_model(model, folder / "export", SECTION, TARGET)
    return model, folder / "export", load_graph(model, SECTION)


@pytest.fixture(scope="module")
def half(exported: tuple[Path, Path, Graph]) -> int:
    """Two thirds of the bytes of the activations, a multiple of 16."""
    return plan(exported[2], TARGET).size * 2 // 3 // 16 * 16


@pytest.mark.parametrize("kind", COMPILERS)
def test_the_emulated_board_answers_as_the_simulator(
    kind: str, exported: tuple[Path, Path, Graph], half: int, tmp_path: Path
) -> None:
    model, export, graph = exported
    board = small_board(half)
    generated = generated_for(board, export, tmp_path, SECTION, model)
    assert generated == tmp_path / "export"
    report = build_image(board, generated, tmp_path / "image", compiler(kind))
    first, second = json.loads((generated / "network_c_info.json").read_text())["memory"]["regions_bytes"]
    regions = {region.name: region for region in report.regions}
    assert regions["AXI_SRAM"].largest == (("activations", first),) and first <= half
    assert ("network_region_1", second) in regions["DTCM"].largest
    x, y = graph.tensors[graph.inputs[0]], graph.tensors[graph.outputs[0]]
    rng = np.random.default_rng(1)
    expected = ExpectedModel(graph.hash(), graph.arithmetic, x.nbytes, y.nbytes)
    with Link(UnicornTransport(load_board(board.name), report.image), expected) as link:
        for _ in range(3):
            image = rng.integers(-128, 128, x.shape, np.int8)
            assert link.run(image.tobytes()).outputs == simulate(graph, image)[0].tobytes()
        assert link.selftest()


def test_the_export_of_two_regions_differs_in_places_only(
    exported: tuple[Path, Path, Graph], half: int, tmp_path: Path
) -> None:
    """The same files, constants, model hash and known answers."""
    model, export, _ = exported
    generated = generated_for(small_board(half), export, tmp_path, SECTION, model)
    assert sorted(path.name for path in generated.iterdir()) == sorted(path.name for path in export.iterdir())
    for name in ("network_data.c", "network.tflite"):
        assert (generated / name).read_bytes() == (export / name).read_bytes()
    one, two = (json.loads((folder / "network_c_info.json").read_text()) for folder in (export, generated))
    assert one["model_hash"] == two["model_hash"] and "regions_bytes" not in one["memory"]


def test_what_fits_the_first_region_is_built_from_the_ordinary_export(
    exported: tuple[Path, Path, Graph], tmp_path: Path
) -> None:
    model, export, graph = exported
    enough = -(-plan(graph, TARGET).size // 16) * 16
    assert generated_for(small_board(enough), export, tmp_path, SECTION, model) == export
    assert generated_for(load_board("nucleo_f446re"), export, tmp_path, SECTION, model) == export
    assert not (tmp_path / "export").exists()


def test_without_a_second_region_the_linker_tells_what_is_over(
    exported: tuple[Path, Path, Graph], half: int, tmp_path: Path
) -> None:
    model, export, _ = exported
    board = small_board(half).model_copy(update={"activations_overflow": ""})
    generated = generated_for(board, export, tmp_path, SECTION, model)
    with pytest.raises(FitError, match="AXI_SRAM needs"):
        build_image(board, generated, tmp_path / "image", compiler("zig"))


def test_what_fits_neither_is_told_with_both_regions(exported: tuple[Path, Path, Graph], tmp_path: Path) -> None:
    model, export, _ = exported
    with pytest.raises(RegionsError) as caught:
        generated_for(small_board(256, 4096 + 1024 + 1128 + 256 + 128), export, tmp_path, SECTION, model)
    text = str(caught.value)
    assert "nucleo_h743zi's AXI_SRAM has room for 256 and nucleo_h743zi's DTCM has room for 128" in text
    assert "\n" not in text and caught.value.exit_code == 7


def test_the_program_builds_it(
    exported: tuple[Path, Path, Graph], half: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    board = small_board(half)
    still = board.model_copy(update={"emulator": board.emulator.model_copy(update={"unicorn": False})})
    monkeypatch.setattr(program, "load_board", lambda name: still)
    arguments = [str(exported[0]), "--board", board.name, "--build", str(tmp_path), "--images", "1"]
    assert program.main(arguments) == 0
    firmware = tmp_path / "model" / "firmware" / board.name
    assert (firmware / "firmware.elf").is_file() and (firmware / "export" / "network.c").is_file()
    assert "network_region_1" in (firmware / "firmware.map").read_text()
    assert "region_1" not in (tmp_path / "model" / "export" / "network.c").read_text()
    assert program.main(arguments) == 0, "unchanged the second time"


def test_rooms_are_what_stack_and_variables_leave() -> None:
    """AXI_SRAM holds nothing else; of DTCM's 128 KB stack, ring and variables take a little more than 6 KB."""
    axi, dtcm = activation_rooms(load_board("nucleo_h743zi"))
    assert axi == 512 << 10 and 124_000 < dtcm < (128 << 10) - 4096 - 1024 and dtcm % 16 == 0
    (sram,) = activation_rooms(load_board("nucleo_f446re"))
    assert sram < 128 << 10


def test_a_room_can_be_filled_to_its_last_byte(exported: tuple[Path, Path, Graph], half: int, tmp_path: Path) -> None:
    """What activation_rooms promises beside stack and variables is really free."""
    model, export, _ = exported
    generated = generated_for(small_board(half), export, tmp_path, SECTION, model)
    second = json.loads((generated / "network_c_info.json").read_text())["memory"]["regions_bytes"][1]
    room = activation_rooms(load_board("nucleo_h743zi"))[1]
    tight = small_board(half, load_board("nucleo_h743zi").region("DTCM").size - (room - -(-second // 16) * 16))
    assert activation_rooms(tight)[1] - second in range(16)
    assert build_image(tight, generated, tmp_path / "image", compiler("zig")).ram_bytes > second


def test_the_estimate_spreads_what_is_too_much(exported: tuple[Path, Path, Graph], half: int) -> None:
    layout = plan(exported[2], TARGET)
    free = {need.name: need.needed for need in estimate(exported[2], layout, small_board(1 << 19), 2).ram}
    found = estimate(exported[2], layout, small_board(half), 2)
    needed = {need.name: need.needed for need in found.ram}
    assert found.fits and needed["AXI_SRAM"] == half and free["AXI_SRAM"] == layout.size
    assert needed["DTCM"] - free["DTCM"] == layout.size - half


def test_the_linker_script_names_the_second_region_where_there_is_one() -> None:
    assert "*(.bss.*_region_1)\n    } > DTCM" in linker_script(load_board("nucleo_h743zi"))
    assert "region_1" not in linker_script(load_board("nucleo_f446re"))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("RAM", "activations_overflow is 'RAM'; expected a RAM region beside 'RAM', or none: there is no other"),
        ("FLASH", "activations_overflow is 'FLASH'; expected a RAM region beside 'RAM'"),
        ("CCM", "activations_overflow is 'CCM'; expected a RAM region beside 'RAM'"),
    ],
)
def test_a_wrong_second_region_is_told(value: str, message: str, tmp_path: Path) -> None:
    text = VALID.replace('activations = "RAM"', f'activations = "RAM"\nactivations_overflow = "{value}"')
    with pytest.raises(UsageError, match=message):
        read_board(written(tmp_path, text))
