"""Emulated boards as transports: bytes, resets, faults, exact instruction counts, and what is said when one is missing."""

from __future__ import annotations

import builtins
import contextlib
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "firmware_export"))

from firmware_builder import BOARDS, COMPILER, COMPILERS, Description, compiler, echo_image

from firmware_export.board import Board, load_board
from firmware_export.image import link_image
from firmware_export.memory_usage import read_memory
from firmware_export.toolchain import ToolchainError
from host_tools import emulator
from host_tools.board import Transport
from host_tools.emulator import QemuTransport, UnicornTransport
from host_tools.errors import LinkError

QEMU_BOARDS = [name for name in BOARDS if load_board(name).emulator.qemu_machine]
needs_qemu = pytest.mark.skipif(shutil.which("qemu-system-arm") is None, reason="qemu-system-arm is not installed")
KINDS = ["unicorn", pytest.param("qemu", marks=needs_qemu)]
PATIENCE = 10.0


def transport_of(kind: str, name: str = "nucleo_f446re", compiler_name: str = COMPILER) -> Any:
    image = echo_image(name, compiler_name).image
    return UnicornTransport(load_board(name), image) if kind == "unicorn" else QemuTransport(load_board(name), image)


@contextlib.contextmanager
def opened(kind: str, name: str = "nucleo_f446re", compiler_name: str = COMPILER) -> Iterator[Any]:
    transport = transport_of(kind, name, compiler_name)
    transport.open()
    try:
        yield transport
    finally:
        transport.close()


def receive(transport: Transport, size: int) -> bytes:
    """That many bytes, or what came within PATIENCE."""
    data, deadline = b"", time.monotonic() + PATIENCE
    while len(data) < size and time.monotonic() < deadline:
        data += transport.read(0.2)
    return data


def ask(transport: Transport, request: bytes, size: int) -> bytes:
    transport.write(request)
    return receive(transport, size)


def description(transport: Transport) -> Description:
    """The answer to 'h', which ends with its fourth text."""
    transport.write(b"h")
    data = receive(transport, 17)
    deadline = time.monotonic() + PATIENCE
    while data[16:].count(0) < 4 and time.monotonic() < deadline:
        data += transport.read(0.2)
    return Description.parse(data)


# ---- Both ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_bytes_come_back(kind: str) -> None:
    with opened(kind) as transport:
        assert (transport.baud, transport.description) == (None, f"{kind} (nucleo_f446re)")
        data = bytes(value for value in range(256) if not ord("a") <= value <= ord("z"))
        assert ask(transport, data, len(data)) == data
        assert transport.read(0.0) == b""


@pytest.mark.parametrize("kind", KINDS)
def test_thousands_of_bytes_at_once_are_not_lost(kind: str) -> None:
    with opened(kind) as transport:
        data = bytes(range(65)) * 200
        assert ask(transport, data, len(data)) == data
        assert description(transport).overruns == 0


@pytest.mark.parametrize("kind", KINDS)
def test_first_byte_after_open_is_not_lost(kind: str) -> None:
    for _ in range(3):
        with opened(kind) as transport:
            assert ask(transport, b"A", 1) == b"A"


@pytest.mark.parametrize("kind", KINDS)
def test_clock_that_really_runs_is_told(kind: str) -> None:
    """Neither emulator has a model of the clocks: the firmware stays on the internal 16 MHz and says so."""
    with opened(kind) as transport:
        assert description(transport).clock_hz == 16_000_000


@pytest.mark.parametrize("kind", KINDS)
def test_reset_starts_anew_and_forgets_the_line(kind: str) -> None:
    with opened(kind) as transport:
        assert ask(transport, b"d", 12) == struct.pack("<3I", 0x12345678, 0, 0)
        assert ask(transport, b"d", 12)[:8] == struct.pack("<2I", 0, 136)
        transport.reset()
        assert ask(transport, b"d", 12) == struct.pack("<3I", 0x12345678, 0, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_reading_waits_no_longer_than_told(kind: str) -> None:
    with opened(kind) as transport:
        started = time.monotonic()
        assert transport.read(0.05) == b""
        assert time.monotonic() - started < 2.0
        transport.write(b"b")
        assert transport.read(0.001) == b"", "some 100 million instructions take longer"
        assert len(receive(transport, 4)) == 4


@pytest.mark.parametrize("kind", KINDS)
def test_transport_that_is_not_open(kind: str) -> None:
    transport = transport_of(kind)
    for act in (lambda: transport.write(b"A"), lambda: transport.read(0.1), transport.reset):
        with pytest.raises(LinkError, match="is not open"):
            act()
    transport.close()


@pytest.mark.parametrize("kind", KINDS)
def test_opening_twice_and_closing_twice(kind: str) -> None:
    transport = transport_of(kind)
    transport.open()
    transport.open()
    assert ask(transport, b"A", 1) == b"A"
    transport.close()
    transport.close()


@pytest.mark.parametrize("kind", KINDS)
def test_missing_image_says_what_to_do(kind: str, tmp_path: Path) -> None:
    transport = (UnicornTransport if kind == "unicorn" else QemuTransport)(
        load_board("nucleo_f446re"), tmp_path / "firmware.elf"
    )
    with pytest.raises(LinkError, match=r"firmware.elf not found: build the firmware first") as error:
        transport.open()
    assert error.value.exit_code == 5


@needs_qemu
@pytest.mark.parametrize("compiler_name", COMPILERS)
@pytest.mark.parametrize("name", QEMU_BOARDS)
def test_both_emulators_count_the_same_instructions(name: str, compiler_name: str) -> None:
    counts = []
    for kind in ("unicorn", "qemu"):
        with opened(kind, name, compiler_name) as transport:
            counts.append([struct.unpack("<2I", ask(transport, b"c", 8)) for _ in range(2)])
    assert counts[0] == counts[1]


# ---- unicorn ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BOARDS)
def test_access_outside_memory_is_an_error_that_names_it(name: str) -> None:
    with opened("unicorn", name) as transport:
        transport.write(b"f")
        with pytest.raises(
            LinkError, match=rf"emulated {name} wrote to address 0xfffffff0, .* in \w+ \(address 0x0800\w+\)"
        ) as error:
            transport.read(1.0)
        assert "\n" not in str(error.value)
        transport.reset()
        assert ask(transport, b"A", 1) == b"A", "goes on after a reset"


def test_board_that_unicorn_does_not_emulate() -> None:
    board = load_board("nucleo_f446re")
    board = board.model_copy(update={"emulator": board.emulator.model_copy(update={"unicorn": False})})
    with pytest.raises(LinkError, match="board nucleo_f446re is not emulated by unicorn; use another target"):
        UnicornTransport(board, Path("firmware.elf"))


def test_unicorn_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = builtins.__import__

    def without(name: str, *arguments: Any, **options: Any) -> Any:
        if name.startswith("unicorn") or name == "host_tools.cortex_m":
            raise ImportError(name)
        return plain(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ToolchainError, match="the Python package unicorn is not installed; run `pip install") as error:
        transport_of("unicorn").open()
    assert error.value.exit_code == 8


# ---- qemu ------------------------------------------------------------------------------------------------------------


@needs_qemu
@pytest.mark.parametrize("name", QEMU_BOARDS)
def test_interrupt_receives_while_the_firmware_is_busy(name: str) -> None:
    """The ring fills although nothing asks the UART: only the interrupt can do that."""
    ring = next(s for s in read_memory(echo_image(name).image).symbols if s.name == "ring")
    board = load_board(name)
    assert board.uart is not None
    with opened("qemu", name) as transport:
        transport.write(b"b" + b"A" * 100)
        deadline, taken = time.monotonic() + PATIENCE, 0
        while taken < 50 and time.monotonic() < deadline:
            taken = transport._monitor.word(ring.address + board.uart.ring)  # ring.head
            if transport.read(0.001):
                break
        assert taken >= 50, "the busy firmware had not yet sent its answer"
        assert receive(transport, 104)[-100:] == b"A" * 100


@needs_qemu
@pytest.mark.parametrize("compiler_name", COMPILERS)
@pytest.mark.parametrize("request_", [b"f", b"o"], ids=["wild write", "stack overflow"])
def test_fault_becomes_a_reset_that_the_host_can_see(request_: bytes, compiler_name: str) -> None:
    with opened("qemu", "nucleo_f446re", compiler_name) as transport:
        assert ask(transport, b"dd", 24)[12:16] == bytes(4), "the variable has been changed"
        transport.write(request_)
        time.sleep(0.3)
        answer = b""
        for _ in range(20):
            transport.write(b"d")
            answer = transport.read(0.5)
            if answer:
                answer += receive(transport, 12 - len(answer))
                break
        assert answer[:12] == struct.pack("<3I", 0x12345678, 0, 0), "start-up has run again"


GOLDEN = """
RCC write 0x000 0x00000000
RCC write 0x000 0x00010000
RCC write 0x008 0x00000000
RCC write 0x030 0x00000001
RCC write 0x040 0x00020001
GPIOA write 0x00c 0x00000010
GPIOA write 0x008 0x00000020
GPIOA write 0x020 0x00000700
GPIOA write 0x000 0x00000020
GPIOA write 0x00c 0x00000040
GPIOA write 0x008 0x00000080
GPIOA write 0x020 0x00007000
GPIOA write 0x000 0x00000080
"""


@needs_qemu
def test_trace_of_clock_and_pin_set_up() -> None:
    """Every access to what qemu does not model; the crystal never starts, reads are 0 (RM0090: RCC, GPIO)."""
    transport = transport_of("qemu", "netduinoplus2")
    plain = transport._options
    transport._options = lambda folder: [*plain(folder), "-d", "unimp,guest_errors"]
    transport.open()
    assert ask(transport, b"A", 1) == b"A"
    transport._messages.seek(0)
    lines = [line for line in transport._messages.read().decode().splitlines() if "unimplemented device" in line]
    transport.close()
    words = [re.sub("[:,()]", "", line).split() for line in lines]
    assert [f"{w[0]} write {w[w.index('offset') + 1]} {w[-1]}" for w in words if "write" in w] == GOLDEN.split("\n")[1:-1]
    assert sum("read" in w for w in words) < 25_000, "the wait for the crystal is bounded"


@needs_qemu
def test_without_counting_the_timer_follows_the_clock_on_the_wall() -> None:
    transport = QemuTransport(load_board("nucleo_f446re"), echo_image("nucleo_f446re").image, count=False)
    transport.open()
    try:
        first = struct.unpack("<2I", ask(transport, b"c", 8))
        assert ask(transport, b"A", 1) == b"A"
        assert first != struct.unpack("<2I", ask(transport, b"c", 8))
    finally:
        transport.close()


@needs_qemu
def test_qemu_that_dies_is_told_with_its_reason() -> None:
    with opened("qemu") as transport:
        os.kill(transport._process.pid, signal.SIGKILL)
        with pytest.raises(
            LinkError, match=r"qemu \(nucleo_f446re\): qemu-system-arm ended \(exit code -9\).*run the same command again"
        ):
            for _ in range(3):
                transport.read(1.0)
        with pytest.raises(LinkError, match="ended"):
            for _ in range(100):
                transport.write(bytes(65536))
        with pytest.raises(LinkError, match="ended"):
            transport.reset()


@needs_qemu
def test_qemu_that_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    board = load_board("nucleo_f446re")
    broken = board.model_copy(update={"emulator": board.emulator.model_copy(update={"qemu_machine": "no-such-machine"})})
    with pytest.raises(LinkError, match=r"ended \(exit code 1\): .*(no-such-machine|list supported machines|unsupported)"):
        QemuTransport(broken, echo_image(board.name).image).open()


@needs_qemu
def test_firmware_that_never_starts_its_uart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    main = tmp_path / "silent_main.c"
    main.write_text("int main(void);\nint main(void) {\n    for (;;) {\n    }\n}\n")
    image = link_image(load_board("nucleo_f446re"), [main], [], tmp_path / "work", compiler(COMPILER)).image
    monkeypatch.setattr(emulator, "START_SECONDS", 0.3)
    transport = QemuTransport(load_board("nucleo_f446re"), image)
    with pytest.raises(LinkError, match="the firmware does not start its UART; build it again"):
        transport.open()
    assert transport._process is None, "qemu is not left behind"


@needs_qemu
def test_firmware_that_takes_no_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    with opened("qemu") as transport:
        transport.write(b"bbbb")
        monkeypatch.setattr(emulator, "WRITE_SECONDS", 0.05)
        with pytest.raises(LinkError, match=r"takes no bytes for 0.05 s"):
            transport.write(bytes(8 << 20))


@needs_qemu
def test_closing_ends_the_process() -> None:
    with opened("qemu") as transport:
        pid = transport._process.pid
        os.kill(pid, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


HOLDER = """
import sys, time
from pathlib import Path
from firmware_export.board import load_board
from host_tools.emulator import QemuTransport
transport = QemuTransport(load_board("nucleo_f446re"), Path(sys.argv[1]))
transport.open()
print(transport._process.pid, flush=True)
time.sleep(60)
"""


@needs_qemu
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv (util-linux) is not installed")
def test_killed_program_leaves_no_qemu_behind() -> None:
    command = [sys.executable, "-c", HOLDER, str(echo_image("nucleo_f446re").image)]
    root = str(Path(__file__).parents[2])
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": root}) as holder:
        assert holder.stdout is not None
        pid = int(holder.stdout.readline())
        os.kill(pid, 0)
        holder.kill()
    deadline = time.monotonic() + PATIENCE
    while Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert time.monotonic() < deadline, "a zombie at most, which has no command line"


def test_qemu_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emulator.shutil, "which", lambda name: None)
    transport = QemuTransport(load_board("nucleo_f446re"), Path("firmware.elf"))
    with pytest.raises(ToolchainError, match="qemu-system-arm not found; install qemu-system-arm, or use target unicorn"):
        transport.open()


@pytest.mark.parametrize("name", [name for name in BOARDS if name not in QEMU_BOARDS])
def test_board_that_qemu_has_no_machine_for(name: str) -> None:
    board: Board = load_board(name)
    with pytest.raises(LinkError, match=f"qemu has no machine for board {name}; use target unicorn"):
        QemuTransport(board, Path("firmware.elf"))
