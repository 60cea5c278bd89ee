"""Boards: a folder each in boards/, described by board.toml. `load_board` reads and checks one."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from firmware_export.toolchain import CORES, FPUS
from recipes.artifacts import UsageError, did_you_mean
from recipes.recipe import Section, parse

BOARDS = Path(__file__).parent / "boards"


class Memory(Section):
    """One memory region: bytes from `origin` on. Regions are named as linkers and messages name them."""

    name: str = Field(pattern=r"^[A-Z][A-Z0-9_]{0,15}$")
    kind: Literal["flash", "ram"]
    origin: int = Field(ge=0, lt=2**32)
    size: int = Field(gt=0, le=2**30)


class Uart(Section):
    """The serial port that carries the frames. driver: a header of boards/; irq: its interrupt number."""

    driver: Literal["stm32_usart_v1", "stm32_usart_v2"]
    base: int = Field(ge=0, lt=2**32)
    irq: int = Field(ge=0, lt=240)
    pins: str
    baud: int = Field(115200, ge=9600, le=4_000_000)
    ring: int = Field(1024, ge=64, le=65536, description="bytes of the receive ring, a power of two")


class Emulator(Section):
    """What can run the image instead of the board."""

    unicorn: bool = False
    qemu_machine: str | None = None
    qemu_serial: int = Field(0, ge=0, le=7, description="index of -serial that is this board's UART")


class Board(Section):
    """A board as its board.toml describes it.

    data, activations: names of the RAM regions that hold stack and variables, and the activation buffer.
    activations_overflow: the RAM region for tensors that do not fit `activations`; empty for none.
    stack_bytes: reserved for the stack. crystal_hz: external clock, 0 for none. clock_hz: what the PLL is set to.
    """

    name: str
    title: str
    core: str
    fpu: str = "none"
    clock_hz: int = Field(0, ge=0)
    crystal_hz: int = Field(0, ge=0)
    stack_bytes: int = Field(0, ge=0, multiple_of=8)
    data: str = ""
    activations: str = ""
    activations_overflow: str = ""
    memory: tuple[Memory, ...] = ()
    uart: Uart | None = None
    emulator: Emulator = Emulator()
    flash_hint: str = ""

    @property
    def is_host(self) -> bool:
        """Whether the "board" is a process on this machine."""
        return self.core == "host"

    @property
    def folder(self) -> Path:
        """Where board.toml and board.c lie."""
        return BOARDS / self.name

    def region(self, name: str) -> Memory:
        """The memory region of that name; KeyError when there is none."""
        return {memory.name: memory for memory in self.memory}[name]

    @property
    def code(self) -> Memory:
        """The flash that holds code and constants."""
        return next(memory for memory in self.memory if memory.kind == "flash")


def _problems(board: Board) -> Iterator[str]:
    """What does not hang together although every value is right by itself."""
    if board.is_host:
        return
    if board.core not in CORES:
        yield f"core is '{board.core}'; known: host, {', '.join(CORES)}{did_you_mean(board.core, CORES)}"
    if board.fpu not in FPUS:
        yield f"fpu is '{board.fpu}'; known: {', '.join(FPUS)}{did_you_mean(board.fpu, FPUS)}"
    ram = [memory.name for memory in board.memory if memory.kind == "ram"]
    if not any(memory.kind == "flash" for memory in board.memory):
        yield "no memory region of kind 'flash'; expected one that holds the code"
    for key, value in (("data", board.data), ("activations", board.activations)):
        if value not in ram:
            yield f"{key} is '{value}'; expected one of the RAM regions: {', '.join(ram)}{did_you_mean(value, ram)}"
    overflow = board.activations_overflow
    if overflow and (overflow not in ram or overflow == board.activations):
        others = [name for name in ram if name != board.activations]
        yield (
            f"activations_overflow is '{overflow}'; expected a RAM region beside '{board.activations}', or none: "
            f"{', '.join(others) or 'there is no other'}{did_you_mean(overflow, others)}"
        )
    if board.uart is None or board.clock_hz == 0 or board.stack_bytes == 0:
        yield "uart, clock_hz and stack_bytes are needed for every board but 'host'"
    elif board.uart.ring & (board.uart.ring - 1):
        yield f"uart.ring is {board.uart.ring}; expected a power of two"


def board_names() -> list[str]:
    """Every board of boards/."""
    return sorted(path.parent.name for path in BOARDS.glob("*/board.toml"))


def load_board(name: str) -> Board:
    """Reads boards/<name>/board.toml.

    Raises:
        UsageError: no such board ("did you mean ..."), or a wrong key or value in its file.
    """
    if name not in board_names():
        raise UsageError(f"unknown board '{name}'{did_you_mean(name, board_names())}; known: {', '.join(board_names())}")
    return read_board(BOARDS / name / "board.toml")


def read_board(path: Path) -> Board:
    """Reads and checks a board.toml; the board is named after its folder. Raises UsageError as load_board."""
    try:
        content = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"cannot read {path}: {error}") from None
    content["name"] = path.parent.name
    board = parse(Board, _parse_tables(content, str(path)), str(path))
    for problem in _problems(board):
        raise UsageError(f"{path}: {problem}")
    return board


def _parse_tables(content: dict[str, Any], where: str) -> dict[str, Any]:
    """Checks the tables inside first, so that a wrong key is named with the known keys of its own table."""
    for key, section in (("uart", Uart), ("emulator", Emulator)):
        if key in content:
            content[key] = parse(section, _table(content[key], where, key), f"{where}: {key}")
    regions = content.get("memory", [])
    if not isinstance(regions, list):
        raise UsageError(f"{where}: memory is {regions!r}; expected one [[memory]] table for each region")
    content["memory"] = [parse(Memory, _table(r, where, "memory"), f"{where}: memory {n}") for n, r in enumerate(regions)]
    return content


def _table(value: Any, where: str, key: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise UsageError(f"{where}: {key} is {value!r}; expected a table")
    return value
