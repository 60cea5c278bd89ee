"""board.toml: the real parts' figures, and every mistake a new board's author can make."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from firmware_export.board import BOARDS, board_names, load_board, read_board
from firmware_export.toolchain import CORES
from recipes.artifacts import UsageError

KB = 1024
# From the data sheets: core, FPU, flash, RAM regions (origin, bytes), UART base and interrupt (reference manuals).
PARTS = {
    "netduinoplus2": ("cortex-m4", "fpv4-sp-d16", 1024 * KB, {0x20000000: 128 * KB, 0x10000000: 64 * KB}, 0x40004400, 38),
    "nucleo_f446re": ("cortex-m4", "fpv4-sp-d16", 512 * KB, {0x20000000: 128 * KB}, 0x40004400, 38),
    "nucleo_f103rb": ("cortex-m3", "none", 128 * KB, {0x20000000: 20 * KB}, 0x40004400, 38),
    "nucleo_g071rb": ("cortex-m0plus", "none", 128 * KB, {0x20000000: 36 * KB}, 0x40004400, 28),
    "nucleo_h743zi": ("cortex-m7", "fpv5-d16", 2048 * KB, {0x20000000: 128 * KB, 0x24000000: 512 * KB}, 0x40004800, 39),
}
VALID = """
title = "a board"
core = "cortex-m3"
clock_hz = 72_000_000
stack_bytes = 1024
data = "RAM"
activations = "RAM"

[[memory]]
name = "FLASH"
kind = "flash"
origin = 0x08000000
size = 65536

[[memory]]
name = "RAM"
kind = "ram"
origin = 0x20000000
size = 16384

[uart]
driver = "stm32_usart_v1"
base = 0x40004400
irq = 38
pins = "PA2, PA3"
"""


def written(folder: Path, text: str) -> Path:
    """A board.toml in a folder of its own."""
    path = folder / "new_board" / "board.toml"
    path.parent.mkdir()
    path.write_text(text)
    return path


def test_the_boards_are_those_of_the_table() -> None:
    assert board_names() == sorted([*PARTS, "host"])


@pytest.mark.parametrize("name", PARTS)
def test_board_has_the_figures_of_its_part(name: str) -> None:
    board = load_board(name)
    core, fpu, flash, ram, base, irq = PARTS[name]
    assert (board.core, board.fpu, board.name) == (core, fpu, name)
    assert (board.code.origin, board.code.size) == (0x08000000, flash)
    assert {memory.origin: memory.size for memory in board.memory if memory.kind == "ram"} == ram
    assert board.uart is not None and (board.uart.base, board.uart.irq) == (base, irq)
    assert board.emulator.unicorn and board.title and board.flash_hint and not board.is_host


@pytest.mark.parametrize("name", [*PARTS, "host"])
def test_board_is_a_folder_of_two_files(name: str) -> None:
    assert sorted(path.name for path in load_board(name).folder.iterdir()) == ["board.c", "board.toml"]


@pytest.mark.parametrize("name", PARTS)
def test_regions_do_not_overlap(name: str) -> None:
    regions = sorted(load_board(name).memory, key=lambda memory: memory.origin)
    for before, after in itertools.pairwise(regions):
        assert before.origin + before.size <= after.origin


def test_stack_and_variables_share_the_region_called_data() -> None:
    board = load_board("nucleo_h743zi")
    assert (board.region(board.data).origin, board.region(board.activations).origin) == (0x20000000, 0x24000000)
    with pytest.raises(KeyError):
        board.region("CCM")


def test_qemu_runs_what_has_its_machine() -> None:
    machines = {name: load_board(name).emulator.qemu_machine for name in PARTS}
    assert {name for name, machine in machines.items() if machine} == {"netduinoplus2", "nucleo_f446re"}
    assert all(load_board(name).emulator.qemu_serial == 1 for name, machine in machines.items() if machine)


def test_host_needs_no_hardware() -> None:
    board = load_board("host")
    assert board.is_host and board.memory == () and board.uart is None and board.stack_bytes == 0


def test_unknown_board_names_the_nearest() -> None:
    with pytest.raises(
        UsageError, match=r"unknown board 'nucleo_f446'; did you mean 'nucleo_f446re'\?; known: host, netduinoplus2"
    ):
        load_board("nucleo_f446")


@pytest.mark.parametrize("name", ["../boards/host", "", "host/", "."])
def test_board_name_is_never_a_path(name: str) -> None:
    with pytest.raises(UsageError, match="unknown board"):
        load_board(name)


def test_new_board_is_named_after_its_folder(tmp_path: Path) -> None:
    board = read_board(written(tmp_path, VALID))
    assert (board.name, board.fpu, board.crystal_hz) == ("new_board", "none", 0)
    assert board.uart is not None and (board.uart.baud, board.uart.ring) == (115200, 1024)
    assert not board.emulator.unicorn and board.emulator.qemu_machine is None
    assert board.core in CORES


@pytest.mark.parametrize(
    ("change", "to", "message"),
    [
        (
            'core = "cortex-m3"',
            'core = "cortex-m3x"',
            "core is 'cortex-m3x'; known: host, cortex-m0plus.*did you mean 'cortex-m3'",
        ),
        ('core = "cortex-m3"', 'core = "cortex-m3"\nfpu = "fpv4"', "fpu is 'fpv4'; known: none, fpv4-sp-d16"),
        ('core = "cortex-m3"', 'kore = "cortex-m3"', "'core' is .*field required|unknown key 'kore'; did you mean 'core'"),
        ("clock_hz = 72_000_000", "", "uart, clock_hz and stack_bytes are needed"),
        ("stack_bytes = 1024", "stack_bytes = 1020", "'stack_bytes' is 1020"),
        ('data = "RAM"', 'data = "RAMM"', "data is 'RAMM'; expected one of the RAM regions: RAM; did you mean 'RAM'"),
        ('data = "RAM"', 'data = "FLASH"', "data is 'FLASH'; expected one of the RAM regions: RAM"),
        ('activations = "RAM"', 'activations = ""', "activations is ''; expected one of"),
        ('kind = "flash"', 'kind = "ram"', "no memory region of kind 'flash'"),
        ('kind = "flash"', 'kind = "rom"', "memory 0: 'kind' is 'rom'"),
        ("size = 65536", "sise = 65536", "memory 0: .*(unknown key 'sise'; did you mean 'size'|'size' is)"),
        ("size = 65536", "size = -1", "memory 0: 'size' is -1"),
        ('name = "RAM"', 'name = "my ram"', "memory 1: 'name' is 'my ram'"),
        ("irq = 38", "irq = 300", "uart: 'irq' is 300"),
        ("irq = 38", "irq = 38\nring = 1000", "uart.ring is 1000; expected a power of two"),
        ("irq = 38", "irq = 38\nbawd = 9600", "uart: unknown key 'bawd'; did you mean 'baud'"),
        ("irq = 38", "irq = 38\nbaud = 300", "uart: 'baud' is 300"),
        ('driver = "stm32_usart_v1"', 'driver = "stm32_usart_v3"', "uart: 'driver' is 'stm32_usart_v3'"),
        (
            'pins = "PA2, PA3"',
            'pins = "PA2"\n[emulator]\nunicorm = true',
            "emulator: unknown key 'unicorm'; did you mean 'unicorn'",
        ),
        ('pins = "PA2, PA3"', 'pins = "PA2"\n[emulator]\nqemu_serial = 9', "emulator: 'qemu_serial' is 9"),
        ("[uart]", "[uart", "cannot read"),
        ('title = "a board"', "title = 7", "'title' is 7"),
        ('title = "a board"', 'title = "a board"\nemulator = true', "emulator is True; expected a table"),
    ],
)
def test_mistake_is_one_line_that_names_it(tmp_path: Path, change: str, to: str, message: str) -> None:
    assert change in VALID
    path = written(tmp_path, VALID.replace(change, to, 1))
    with pytest.raises(UsageError, match=message) as error:
        read_board(path)
    assert "\n" not in str(error.value) and str(path) in str(error.value)
    assert error.value.exit_code == 2


def test_memory_must_be_tables(tmp_path: Path) -> None:
    start, end = VALID.index("[[memory]]"), VALID.index("[uart]")
    with pytest.raises(UsageError, match=r"memory is 5; expected one \[\[memory\]\] table for each region"):
        read_board(written(tmp_path, "memory = 5\n" + VALID[:start] + VALID[end:]))


def test_file_that_is_not_text(tmp_path: Path) -> None:
    path = written(tmp_path, "")
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="cannot read"):
        read_board(path)
    with pytest.raises(UsageError, match="cannot read"):
        read_board(tmp_path / "nowhere" / "board.toml")


def test_every_board_c_names_its_board() -> None:
    for name in PARTS:
        first = (BOARDS / name / "board.c").read_text().split("\n", 1)[0].replace(" ", "").replace("-", "").lower()
        assert name.replace("_", "") in first, first
