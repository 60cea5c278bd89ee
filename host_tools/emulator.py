"""Emulated boards as transports: unicorn in this process, qemu-system-arm as a process with interrupts and a serial port."""

from __future__ import annotations

import atexit
import contextlib
import json
import re
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from firmware_export.board import Board
from firmware_export.toolchain import ToolchainError
from host_tools.errors import LinkError

if TYPE_CHECKING:
    from host_tools.cortex_m import Machine

SLICE = 10_000_000
"""Instructions between two looks at the clock."""
IDLE_SECONDS = 0.002
"""Slept when a sleeping machine is read: it can send nothing by itself, but a caller's loop need not spin."""
START_SECONDS = 20.0
WRITE_SECONDS = 10.0
_READ_BYTES = 65536
_CR1_OFFSET = {"stm32_usart_v1": 0x0C, "stm32_usart_v2": 0x00}
_CR1_RXNEIE = 0x20


def _existing(elf: Path) -> Path:
    if not elf.is_file():
        raise LinkError(f"{elf} not found: build the firmware first (python -m firmware_export RECIPE --board B)")
    return elf


class UnicornTransport:
    """A board emulated in this process; the CPU runs inside `read`.

    The firmware's cycle counter counts executed instructions, exactly.
    """

    def __init__(self, board: Board, elf: Path) -> None:
        if not board.emulator.unicorn:
            raise LinkError(f"board {board.name} is not emulated by unicorn; use another target or board")
        self.description, self.baud = f"unicorn ({board.name})", None
        self._board, self._elf = board, elf
        self._machine: Machine | None = None

    def open(self) -> None:
        try:
            from host_tools.cortex_m import Machine
        except ImportError:
            raise ToolchainError("the Python package unicorn is not installed; run `pip install -r requirements.txt`") from None
        self._machine = Machine(self._board, _existing(self._elf))

    def close(self) -> None:
        self._machine = None

    @property
    def machine(self) -> Machine:
        """The emulated board. Raises LinkError when it is not open."""
        if self._machine is None:
            raise LinkError(f"{self.description} is not open")
        return self._machine

    def reset(self) -> None:
        """Presses the reset button."""
        self.machine.reset()

    def write(self, data: bytes) -> None:
        self.machine.received += data

    def read(self, timeout: float) -> bytes:
        machine, deadline = self.machine, time.monotonic() + timeout
        while not machine.sent:
            asleep = machine.run(SLICE)
            if asleep and not machine.received and not machine.sent:
                time.sleep(min(max(timeout, 0.0), IDLE_SECONDS))
                break
            if time.monotonic() >= deadline:
                break
        answer = bytes(machine.sent)
        machine.sent.clear()
        return answer


class QemuTransport:
    """A board emulated by qemu-system-arm; its serial port is a Unix socket.

    Args:
        count: one instruction takes one nanosecond of the guest's time, so that TIM2, the firmware's cycle counter there,
            counts executed instructions exactly. Without, it counts the computer's time.
    """

    def __init__(self, board: Board, elf: Path, *, count: bool = True) -> None:
        if board.emulator.qemu_machine is None:
            raise LinkError(f"qemu has no machine for board {board.name}; use target unicorn")
        self.description, self.baud = f"qemu ({board.name})", None
        self._board, self._elf, self._count = board, elf, count
        self._process: subprocess.Popen[bytes] | None = None
        self._line: socket.socket | None = None
        self._monitor: _Monitor | None = None
        self._messages: IO[bytes] | None = None

    def open(self) -> None:
        self.close()
        program = shutil.which("qemu-system-arm")
        if program is None:
            raise ToolchainError("qemu-system-arm not found; install qemu-system-arm, or use target unicorn")
        _existing(self._elf)
        atexit.register(self.close)
        self._messages = tempfile.TemporaryFile()  # noqa: SIM115 (closed in close)
        try:
            with tempfile.TemporaryDirectory(prefix="qemu-") as folder:
                line, monitor = _listen(Path(folder) / "line"), _listen(Path(folder) / "monitor")
                with line, monitor:
                    self._process = subprocess.Popen(
                        [*_dies_with_parent(), program, *self._options(Path(folder))],
                        stdin=subprocess.DEVNULL,
                        stdout=self._messages,
                        stderr=self._messages,
                    )
                    self._line = self._accept(line)
                    self._monitor = _Monitor(self._accept(monitor))
            self._wait_for_receiver()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        atexit.unregister(self.close)
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        for part in (self._line, self._monitor, self._messages):
            if part is not None:
                part.close()
        self._process = self._line = self._monitor = self._messages = None

    def reset(self) -> None:
        """Presses the reset button; what was on the line is lost."""
        if self._monitor is None:
            raise LinkError(f"{self.description} is not open")
        try:
            self._monitor.command("system_reset")
            self._wait_for_receiver()
        except OSError:
            raise self._gone() from None

    def write(self, data: bytes) -> None:
        line = self._opened()
        line.settimeout(WRITE_SECONDS)
        try:
            line.sendall(data)
        except TimeoutError:
            raise LinkError(f"{self.description}: the firmware takes no bytes for {WRITE_SECONDS:g} s") from None
        except OSError:
            raise self._gone() from None

    def read(self, timeout: float) -> bytes:
        line = self._opened()
        line.settimeout(max(timeout, 1e-4))
        try:
            data = line.recv(_READ_BYTES)
        except TimeoutError:
            return b""
        except OSError:
            raise self._gone() from None
        if not data:
            raise self._gone()
        return data

    def _options(self, folder: Path) -> list[str]:
        emulator = self._board.emulator
        options = ["-M", str(emulator.qemu_machine), "-nodefaults", "-display", "none", "-kernel", str(self._elf)]
        options += ["-chardev", f"socket,id=line,path={folder}/line", *["-serial", "null"] * emulator.qemu_serial]
        options += ["-serial", "chardev:line"]
        options += ["-chardev", f"socket,id=monitor,path={folder}/monitor", "-mon", "chardev=monitor,mode=control"]
        return [*options, "-icount", "shift=0,sleep=off"] if self._count else options

    def _accept(self, listener: socket.socket) -> socket.socket:
        listener.settimeout(0.1)
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(TimeoutError):
                return listener.accept()[0]
            if self._process is not None and self._process.poll() is not None:
                break
        raise self._gone()

    def _wait_for_receiver(self) -> None:
        """Until the firmware has switched its receiver on: qemu drops what comes before."""
        assert self._monitor is not None and self._board.uart is not None
        address = self._board.uart.base + _CR1_OFFSET[self._board.uart.driver]
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            try:
                if self._monitor.word(address) & _CR1_RXNEIE:
                    return
            except OSError:
                raise self._gone() from None
            time.sleep(0.002)
        raise LinkError(f"{self.description}: the firmware does not start its UART; build it again")

    def _opened(self) -> socket.socket:
        if self._line is None:
            raise LinkError(f"{self.description} is not open")
        return self._line

    def _gone(self) -> LinkError:
        """Why qemu ended, with the last line it wrote."""
        assert self._process is not None and self._messages is not None
        try:
            code = f"exit code {self._process.wait(2.0)}"
        except subprocess.TimeoutExpired:
            code = "still running, but its serial port is closed"
        self._messages.seek(0)
        lines = [text.strip() for text in self._messages.read(1 << 16).decode(errors="replace").splitlines() if text.strip()]
        said = f": {lines[-1][:200]}" if lines else ""
        return LinkError(f"{self.description}: qemu-system-arm ended ({code}){said}; run the same command again")


def _dies_with_parent() -> list[str]:
    """util-linux's setpriv, where it is there: a killed program then leaves no qemu behind."""
    setpriv = shutil.which("setpriv")
    return [] if setpriv is None else [setpriv, "--pdeathsig", "KILL"]


def _listen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(1)
    return listener


class _Monitor:
    """qemu's QMP monitor: one JSON command a line, one JSON answer (events in between are skipped)."""

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(START_SECONDS)
        self._connection = connection
        self._lines = connection.makefile("rb")
        self._lines.readline()  # its greeting
        self.command("qmp_capabilities")

    def close(self) -> None:
        self._lines.close()
        self._connection.close()

    def command(self, name: str, **arguments: str) -> Any:
        """Runs a command and gives what it returns. Raises OSError when qemu has gone."""
        self._connection.sendall(json.dumps({"execute": name, "arguments": arguments}).encode() + b"\n")
        while line := self._lines.readline():
            answer = json.loads(line)
            if "return" in answer:
                return answer["return"]
            if "error" in answer:
                raise OSError(str(answer["error"]))
        raise ConnectionResetError("the monitor is closed")

    def word(self, address: int) -> int:
        """The 32-bit word at a physical address."""
        text = self.command("human-monitor-command", **{"command-line": f"xp /1wx {address:#x}"})
        found = re.search(r": 0x([0-9a-f]{8})", text)
        return int(found[1], 16) if found else 0
