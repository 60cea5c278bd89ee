"""Clock and pin set-up of every board against the reference manuals: the fast clock, and what a failed start leaves."""

from __future__ import annotations

import pytest
from firmware_builder import BOARDS, COMPILER, COMPILERS, Description, echo_image
from stm32_registers import FAMILIES, ClockTree

from firmware_export.board import load_board
from host_tools.cortex_m import Machine

BOOT = 3_000_000
"""Instructions that a start with every wait running out may take."""
# What the boards' documents promise: core clock, clock of the UART.
SPEEDS = {
    "netduinoplus2": (168_000_000, 42_000_000),
    "nucleo_f446re": (168_000_000, 42_000_000),
    "nucleo_f103rb": (72_000_000, 36_000_000),
    "nucleo_g071rb": (64_000_000, 64_000_000),
    "nucleo_h743zi": (400_000_000, 100_000_000),
}
FAILURES = [(board, flag) for board in BOARDS for flag in FAMILIES[board].flags]
BRR = {"stm32_usart_v1": 0x08, "stm32_usart_v2": 0x0C}
TIM2 = 0x40000000


def started(name: str, *missing: str, kind: str = COMPILER) -> tuple[Machine, ClockTree]:
    """The echo firmware after its start on a board with a clock tree that works but for `missing`."""
    board = load_board(name)
    assert board.uart is not None
    machine = Machine(board, echo_image(name, kind).image)
    tree = FAMILIES[name](machine, board.crystal_hz, board.uart.base, missing)
    assert machine.run(BOOT), "asleep, waiting for its first byte"
    return machine, tree


def described(machine: Machine) -> Description:
    machine.received += b"h"
    assert machine.run(BOOT)
    return Description.parse(bytes(machine.sent))


def baud_of(tree: ClockTree, name: str) -> float:
    """Bits per second that the UART really makes: its clock over BRR (16 times oversampling)."""
    board = load_board(name)
    assert board.uart is not None
    divider = tree.values[board.uart.base + BRR[board.uart.driver]]
    assert 16 <= divider < 65536
    return tree.uart_hz() / divider


@pytest.mark.parametrize("kind", COMPILERS)
@pytest.mark.parametrize("name", BOARDS)
def test_fast_clock_pins_and_baud_rate(name: str, kind: str) -> None:
    machine, tree = started(name, kind=kind)
    assert (tree.core_hz(), tree.uart_hz()) == SPEEDS[name]
    assert described(machine).clock_hz == tree.core_hz() == load_board(name).clock_hz
    assert baud_of(tree, name) == pytest.approx(115200, rel=0.005)
    tree.check_pins()


@pytest.mark.parametrize(("name", "flag"), FAILURES)
def test_part_that_does_not_start_leaves_the_internal_oscillator(name: str, flag: str) -> None:
    machine, tree = started(name, flag)
    assert not tree.is_fast()
    assert described(machine).clock_hz == tree.core_hz() == tree.internal_hz
    assert tree.uart_hz() == tree.internal_hz, "every prescaler is back at 1"
    assert baud_of(tree, name) == pytest.approx(115200, rel=0.01)
    tree.check_pins()


@pytest.mark.parametrize("name", BOARDS)
def test_nothing_but_zeros_is_survived(name: str) -> None:
    """As in an emulator without a model of the clocks: registers read 0."""
    machine = Machine(load_board(name), echo_image(name).image)
    assert machine.run(BOOT)
    assert described(machine).clock_hz == FAMILIES[name].internal_hz


@pytest.mark.parametrize("name", BOARDS)
def test_timer_runs_freely_over_32_bits(name: str) -> None:
    _, tree = started(name)
    assert tree.values[TIM2] & 1 == 1
    assert (tree.values[TIM2 + 0x28], tree.values[TIM2 + 0x2C]) == (0, 0xFFFFFFFF)


def test_caches_of_the_m7_are_invalidated_and_then_enabled() -> None:
    board = load_board("nucleo_h743zi")
    machine = Machine(board, echo_image(board.name).image)
    written: list[tuple[str, int]] = []
    # CCSIDR of the H743: 16 KB data cache, 4 ways, 128 sets, lines of 32 bytes.
    machine.readers[0xE000ED80] = lambda: 127 << 13 | 3 << 3 | 1
    for name, address in (("CCR", 0xE000ED14), ("DCISW", 0xE000EF60), ("ICIALLU", 0xE000EF50)):
        machine.writers[address] = lambda value, name=name: written.append((name, value))  # type: ignore[misc]
    assert machine.run(BOOT)
    lines = {(value >> 30, value >> 5 & 0x1FF) for name, value in written if name == "DCISW"}
    assert lines == {(way, line) for way in range(4) for line in range(128)}
    assert [name for name, _ in written if name != "DCISW"] == ["ICIALLU", "CCR"] and written[-1] == ("CCR", 3 << 16)
