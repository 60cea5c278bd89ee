"""What every board's firmware does besides computing: start-up, UART with its ring, stack, faults; run in unicorn."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest
from firmware_builder import BOARDS, COMPILERS, Description, echo_image
from unicorn import arm_const

from firmware_export.board import load_board
from firmware_export.memory_usage import read_memory
from host_tools.cortex_m import Machine
from host_tools.errors import LinkError

BUDGET = 20_000_000
AIRCR = 0xE000ED0C
STATUS = {"stm32_usart_v1": 0x00, "stm32_usart_v2": 0x1C}
TRANSMIT = {"stm32_usart_v1": 0x04, "stm32_usart_v2": 0x28}
CR1 = {"stm32_usart_v1": 0x0C, "stm32_usart_v2": 0x00}
PAINT = struct.pack("<I", 0xA5C35A3C)


def everywhere(test: Callable[..., None]) -> Callable[..., None]:
    """Runs a test on every board with every compiler."""
    return pytest.mark.parametrize("name", BOARDS)(pytest.mark.parametrize("kind", COMPILERS)(test))


def machine_of(name: str, kind: str) -> Machine:
    """The echo firmware, started and asleep."""
    machine = Machine(load_board(name), echo_image(name, kind).image)
    assert machine.run(BUDGET)
    return machine


def ask(machine: Machine, request: bytes) -> bytes:
    """The answer to a request, after which the firmware sleeps again."""
    machine.received += request
    while not machine.run(BUDGET) or machine.received:
        pass
    answer = bytes(machine.sent)
    machine.sent.clear()
    return answer


def register(name: str, offsets: dict[str, int]) -> int:
    uart = load_board(name).uart
    assert uart is not None
    return uart.base + offsets[uart.driver]


@everywhere
def test_bytes_come_back(name: str, kind: str) -> None:
    machine = machine_of(name, kind)
    data = bytes(value for value in range(256) if not ord("a") <= value <= ord("z"))
    assert ask(machine, data) == data
    assert ask(machine, data[::-1]) == data[::-1]


@everywhere
def test_description(name: str, kind: str) -> None:
    found = Description.parse(ask(machine_of(name, kind), b"h"))
    board, report = load_board(name), echo_image(name, kind)
    assert found.texts == (name, board.core, report.build_id, "cycles")
    assert (found.stack_size, found.overruns) == (board.stack_bytes, 0)
    assert 64 <= found.stack_used <= 512


@everywhere
def test_variables_start_anew_after_every_reset(name: str, kind: str) -> None:
    machine = machine_of(name, kind)
    fresh = struct.pack("<3I", 0x12345678, 0, 0)
    assert ask(machine, b"d") == fresh
    assert ask(machine, b"d") == struct.pack("<3I", 0, 136, 0), "they have been changed: 1 + 2 + ... + 16"
    machine.reset()
    assert ask(machine, b"d") == fresh


@everywhere
def test_division_and_float_of_the_compilers_library(name: str, kind: str) -> None:
    large, divisor = 0x123456789ABCDEF0, 1000003
    expected = struct.pack("<3I", large // divisor & 0xFFFFFFFF, large % divisor, 10)
    assert ask(machine_of(name, kind), b"a") == expected


@everywhere
def test_stack_is_painted_and_measured(name: str, kind: str) -> None:
    machine = machine_of(name, kind)
    stack = next(s for s in read_memory(echo_image(name, kind).image).sections if s.name == ".stack")
    assert stack.address == load_board(name).region(load_board(name).data).origin, "lowest, so that an overflow faults"
    content = bytes(machine.engine.mem_read(stack.address, stack.size))
    untouched = 0
    while content[untouched : untouched + 4] == PAINT:
        untouched += 4
    used = Description.parse(ask(machine, b"h")).stack_used
    assert stack.size - untouched <= used <= stack.size - untouched + 64, "describing itself may take a little more"
    content = bytes(machine.engine.mem_read(stack.address, stack.size))
    assert content.startswith(PAINT * ((stack.size - used) // 4)) and content[stack.size - used :][:4] != PAINT


@everywhere
def test_stack_overflow_leaves_the_ram_instead_of_overwriting_variables(name: str, kind: str) -> None:
    machine = machine_of(name, kind)
    machine.received += b"o"
    origin = load_board(name).region(load_board(name).data).origin
    with pytest.raises(LinkError, match=rf"wrote to address {origin - 4096:#010x}"[:-3]):
        machine.run(BUDGET)


@pytest.mark.parametrize("name", BOARDS)
def test_fault_handler_resets_the_board(name: str) -> None:
    """unicorn has no exceptions: the handlers are called as the core would, from the vector table."""
    machine = machine_of(name, "zig")
    origin = load_board(name).code.origin
    uart = load_board(name).uart
    assert uart is not None
    count = 16 + uart.irq + 1
    vectors = struct.unpack(f"<{count}I", machine.engine.mem_read(origin, 4 * count))
    start, handlers, interrupt = vectors[1], set(vectors[2:-1]), vectors[-1]
    assert len(handlers) == 1 and all(vector & 1 for vector in vectors[1:]), "one handler for every fault, all Thumb"
    assert len({start, interrupt, *handlers}) == 3
    machine._pc = handlers.pop() & ~1
    assert machine.run(BUDGET), "asleep again, after a new start"
    assert machine.resets == 1
    assert ask(machine, b"ABC") == b"ABC"


@pytest.mark.parametrize("name", BOARDS)
def test_interrupt_handler_fills_the_ring(name: str) -> None:
    machine = machine_of(name, "zig")
    symbols = {s.name: s.address for s in read_memory(echo_image(name, "zig").image).symbols}
    asleep, engine = machine._pc, machine.engine
    before = engine.context_save()  # what the core itself would stack
    machine.received += b"KEPT"
    engine.reg_write(arm_const.UC_ARM_REG_LR, (asleep - 2) | 1)  # the handler returns to the WFI
    machine._pc = symbols["uart_interrupt"]
    assert machine.run(BUDGET) and machine._pc == asleep
    assert not machine.received and not machine.sent, "the bytes are in the ring now"
    engine.context_restore(before)
    assert machine.run(BUDGET)
    assert bytes(machine.sent) == b"KEPT"


@everywhere
def test_more_than_the_ring_holds_waits_in_the_line(name: str, kind: str) -> None:
    """The receive interrupt is off while the ring is full and on again when there is room."""
    machine = machine_of(name, kind)
    switched: list[bool] = []
    machine.writers[register(name, CR1)] = lambda value: switched.append(bool(value & 0x20))
    data = bytes(range(65)) * 80
    assert ask(machine, data) == data
    assert False in switched and switched[-1] is True
    assert Description.parse(ask(machine, b"h")).overruns == 0


@everywhere
def test_lost_bytes_are_counted(name: str, kind: str) -> None:
    machine = machine_of(name, kind)
    status = register(name, STATUS)
    plain, lost = machine.readers[status], [True, False, True]
    machine.readers[status] = lambda: plain() | (0x08 if machine.received and lost and lost.pop() else 0)
    assert ask(machine, b"ABC") == b"ABC"
    assert Description.parse(ask(machine, b"h")).overruns == 2


@pytest.mark.parametrize("name", [name for name in BOARDS if name != "nucleo_g071rb" and name != "nucleo_h743zi"])
def test_overrun_without_a_byte_gives_no_byte(name: str) -> None:
    """ORE alone (version 1): DR must be read to clear it, and holds nothing new."""
    machine = machine_of(name, "zig")
    status, data = register(name, STATUS), register(name, TRANSMIT)
    plain_status, plain_data, alone = machine.readers[status], machine.readers[data], [True]
    machine.readers[status] = lambda: 0xC8 if alone else plain_status()
    machine.readers[data] = lambda: ord("!") if alone and alone.pop() else plain_data()
    assert ask(machine, b"A") == b"A"
    assert Description.parse(ask(machine, b"h")).overruns == 1


@pytest.mark.parametrize("name", ["nucleo_g071rb", "nucleo_h743zi"])
def test_overrun_flag_is_cleared(name: str) -> None:
    """ORE of version 2 stays, and with it the interrupt, until it is cleared through ICR."""
    machine = machine_of(name, "zig")
    status = register(name, STATUS)
    plain, flag = machine.readers[status], [0x08]
    machine.readers[status] = lambda: plain() | flag[0]

    def clear(value: int) -> None:
        flag[0] &= ~value

    machine.writers[status + 4] = clear
    assert ask(machine, b"A") == b"A"
    assert flag == [0] and Description.parse(ask(machine, b"h")).overruns == 1


@everywhere
def test_transmitter_that_never_gets_ready_does_not_hang_the_board(name: str, kind: str) -> None:
    machine = machine_of(name, kind)
    status = register(name, STATUS)
    plain = machine.readers[status]
    machine.readers[status] = lambda: plain() & ~0xC0
    assert ask(machine, b"AB") == b""
    machine.readers[status] = plain
    assert ask(machine, b"AB") == b"AB"


@everywhere
def test_read_that_does_not_wait(name: str, kind: str) -> None:
    machine = machine_of(name, kind)
    assert ask(machine, b"l") == b"quiet\0"


@everywhere
def test_counter_counts_the_same_work_the_same(name: str, kind: str) -> None:
    machine = machine_of(name, kind)
    first, twice = struct.unpack("<2I", ask(machine, b"c"))
    assert struct.unpack("<2I", ask(machine, b"c")) == (first, twice)
    assert 1000 * 4 <= twice - first <= 1000 * 9, "load, add, store, compare, branch, in some form, a thousand times"


def test_counter_without_dwt_is_the_timer() -> None:
    """As in qemu: DWT_CYCCNT reads 0, TIM2 counts."""
    machine = Machine(load_board("nucleo_f446re"), echo_image("nucleo_f446re").image)
    machine.readers[0xE0001004] = lambda: 0
    assert machine.run(BUDGET)
    assert Description.parse(ask(machine, b"h")).texts[3] == "cycles"
    first, twice = struct.unpack("<2I", ask(machine, b"c"))
    assert 0 < first < twice


def test_board_that_cannot_count_says_so() -> None:
    machine = Machine(load_board("nucleo_f446re"), echo_image("nucleo_f446re").image)
    machine.readers[0xE0001004] = machine.readers[0x40000024] = lambda: 0
    assert machine.run(BUDGET)
    assert Description.parse(ask(machine, b"h")).texts[3] == "none"


@pytest.mark.parametrize("name", [name for name in BOARDS if name != "nucleo_g071rb"])
def test_cycle_counter_is_unlocked_and_started(name: str) -> None:
    machine = Machine(load_board(name), echo_image(name).image)
    written: dict[int, int] = {}
    for address in (0xE000EDFC, 0xE0001000, 0xE0001FB0):
        machine.writers[address] = lambda value, address=address: written.__setitem__(address, value)  # type: ignore[misc]
    assert machine.run(BUDGET)
    assert written == {0xE000EDFC: 1 << 24, 0xE0001FB0: 0xC5ACCE55, 0xE0001000: 1}


@pytest.mark.parametrize("name", BOARDS)
def test_interrupt_of_the_uart_is_enabled_and_vectors_are_set(name: str) -> None:
    machine = Machine(load_board(name), echo_image(name).image)
    uart, written = load_board(name).uart, {}
    assert uart is not None
    enable = 0xE000E100 + 4 * (uart.irq // 32)
    for address in (enable, 0xE000ED08, 0xE000ED88):
        machine.writers[address] = lambda value, address=address: written.__setitem__(address, value)  # type: ignore[misc]
    assert machine.run(BUDGET)
    expected = {enable: 1 << uart.irq % 32, 0xE000ED08: 0x08000000}
    if load_board(name).fpu != "none":
        expected[0xE000ED88] = 0xF << 20
    assert written == expected
