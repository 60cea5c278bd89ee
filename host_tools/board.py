"""Lines to a board: a serial port, or the firmware as a process of this machine. Emulators are in emulator.py."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import select
import signal
import socket
import subprocess
import tempfile
import termios
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Protocol

import serial
import serial.tools.list_ports

from firmware_export.board import Board
from host_tools.errors import LinkError
from recipes.artifacts import UsageError, did_you_mean

DEFAULT_BAUD = 115200
TARGETS = ("host", "unicorn", "qemu", "serial:PORT[:BAUD]")
_WRITE_SECONDS = 5.0
_READ_SECONDS = 0.05
_READ_BYTES = 4096


class Transport(Protocol):
    """A line to a board. Every method raises LinkError when the line is missing or gone."""

    @property
    def description(self) -> str:
        """For messages, e.g. "/dev/ttyACM0"."""

    @property
    def baud(self) -> int | None:
        """Bits per second; None where bytes do not wait for each other."""

    def open(self) -> None:
        """Takes the line for this program alone and forgets what arrived before."""

    def close(self) -> None:
        """Gives it back; may be called at any time."""

    def write(self, data: bytes) -> None:
        """Sends all bytes."""

    def read(self, timeout: float) -> bytes:
        """Whatever has arrived, as soon as there is something; b"" when nothing comes in `timeout` seconds or less."""


class SerialTransport:
    """A serial port, or any URL that pyserial knows (socket://127.0.0.1:5000, rfc2217://...)."""

    def __init__(self, port: str, baud: int = DEFAULT_BAUD) -> None:
        self.description = port
        self.baud: int | None = baud
        self._serial: serial.Serial | None = None

    def open(self) -> None:
        try:
            line = serial.serial_for_url(self.description, do_not_open=True)
            line.baudrate = self.baud or DEFAULT_BAUD
            line.timeout, line.write_timeout = _READ_SECONDS, _WRITE_SECONDS  # pyserial's own defaults block for ever
            line.dtr = line.rts = False  # before opening: a change afterwards resets some boards
            if "://" not in self.description:
                line.exclusive = True
            line.open()  # drops what a port has received before
            self._serial = line
        except (OSError, ValueError, OverflowError, termios.error) as error:  # SerialException is an OSError
            self.close()
            raise LinkError(_open_error(self.description, error)) from None

    def close(self) -> None:
        if self._serial is not None:
            with contextlib.suppress(OSError):
                self._serial.close()
            self._serial = None

    def write(self, data: bytes) -> None:
        line = self._opened()
        try:
            line.write(data)
        except serial.SerialTimeoutException:
            advice = "unplug and plug it again"
            raise LinkError(f"{self.description}: the port takes no bytes for {_WRITE_SECONDS:g} s; {advice}") from None
        except (OSError, TypeError) as error:
            raise self._gone(error) from None

    def read(self, timeout: float) -> bytes:
        line = self._opened()
        try:
            first = line.read(1)  # waits _READ_SECONDS: another time-out would configure the port anew
            return first + line.read(min(line.in_waiting, _READ_BYTES)) if first else first
        except (OSError, TypeError) as error:  # pyserial gives TypeError when the port is closed during a read
            raise self._gone(error) from None

    def _opened(self) -> serial.Serial:
        if self._serial is None:
            raise LinkError(f"{self.description}: the port is not open")
        return self._serial

    def _gone(self, error: Exception) -> LinkError:
        advice = "plug the board in and run the same command again"
        return LinkError(f"{self.description}: the port has gone ({_reason(error)}); {advice}")


def _reason(error: Exception) -> str:
    number = error.errno if isinstance(error, OSError) else None
    return os.strerror(number).lower() if number else " ".join(str(error).split())[:80]


def _open_error(port: str, error: Exception) -> str:
    """One line for a port that cannot be opened. pyserial wraps the reason in text more often than in errno."""
    text = str(error)
    number = error.errno if isinstance(error, OSError) else None
    if number == errno.EACCES or "Permission denied" in text:
        return f"{port}: no permission; join the port's group (sudo usermod -aG dialout $USER), log in again and retry"
    if number in (errno.EBUSY, errno.EAGAIN) or "exclusively lock" in text or "Resource busy" in text:
        return f"{port}: in use by another program; close it (terminal, IDE, another run) and retry"
    if number in (errno.ENOENT, errno.ENODEV, errno.ENXIO) or "No such file" in text:
        return f"{port}: no such port; {_candidates()}"
    if number in (errno.ENOTTY, errno.EINVAL) or "configure port" in text:
        return f"{port}: not a serial port; {_candidates()}"
    return f"{port}: cannot be opened ({_reason(error)}); {_candidates()}"


def _candidates() -> str:
    """The serial ports of this machine, those on USB first."""
    found = sorted(serial.tools.list_ports.comports(), key=lambda port: (port.vid is None, port.device))
    ports = [p.device if p.description in ("", "n/a") else f"{p.device} ({p.description})" for p in found]
    return f"ports here: {', '.join(ports)}" if ports else "no serial port is plugged in; check the cable (some only charge)"


class ProcessTransport:
    """The firmware of the board `host` as a process; a socket pair is its serial line.

    Args:
        command: the executable and its arguments.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self.description = Path(command[0]).name
        self.baud: int | None = None
        self._command = list(command)
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._messages: IO[bytes] | None = None

    def open(self) -> None:
        self.close()
        ours, theirs = socket.socketpair()
        self._messages = tempfile.TemporaryFile()  # noqa: SIM115 (closed in close)
        try:
            line = theirs.fileno()
            self._process = subprocess.Popen(self._command, stdin=line, stdout=line, stderr=self._messages)
        except OSError as error:
            ours.close()
            self.close()
            raise LinkError(
                f"{self._command[0]} cannot be started ({_reason(error)}); build it: make pipeline BOARD=host"
            ) from None
        finally:
            theirs.close()
        self._socket = ours

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._process is not None:
            try:
                self._process.wait(1.0)  # it ends by itself when its line is closed
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        if self._messages is not None:
            self._messages.close()
            self._messages = None

    def write(self, data: bytes) -> None:
        if self._socket is None:
            raise LinkError(f"{self.description}: the firmware process is not running")
        try:
            self._socket.settimeout(_WRITE_SECONDS)
            self._socket.sendall(data)
        except OSError:
            raise self._ended() from None

    def read(self, timeout: float) -> bytes:
        if self._socket is None:
            raise LinkError(f"{self.description}: the firmware process is not running")
        try:
            ready, _, _ = select.select([self._socket], [], [], max(timeout, 0.0))
            data = self._socket.recv(_READ_BYTES) if ready else None
        except OSError:
            raise self._ended() from None
        if data == b"":
            raise self._ended()
        return data or b""

    def _ended(self) -> LinkError:
        """Why the process ended: its signal or code, and the line of its messages that says most."""
        assert self._process is not None and self._messages is not None
        try:
            code = self._process.wait(2.0)
        except subprocess.TimeoutExpired:
            return LinkError(f"{self.description}: the firmware process closed its line")
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        self._messages.seek(0)
        lines = self._messages.read(1 << 16).decode(errors="replace").splitlines()
        telling = [line.strip() for line in lines if "ERROR" in line or "runtime error" in line or "SUMMARY" in line]
        detail = f": {telling[0][:200]}" if telling else ""
        return LinkError(f"{self.description}: the firmware process ended ({how}){detail}")


def parse_serial(target: str) -> tuple[str, int | None]:
    """Port and baud rate of "serial:PORT[:BAUD]". A URL's own port number is not a baud rate.

    Raises:
        UsageError: no port, or a baud rate that no UART has.
    """
    rest = target.removeprefix("serial:")
    pattern = r"(\w+://[^:]*:\d+[^:]*)(?::(\d+))?" if "://" in rest else r"(.+?)(?::(\d+))?"
    match = re.fullmatch(pattern, rest)
    if match is None:
        raise UsageError(f"target '{target}' names no port; expected serial:PORT[:BAUD], e.g. serial:/dev/ttyACM0:115200")
    baud = None if match[2] is None else int(match[2])
    if baud is not None and not 300 <= baud <= 12_000_000:
        raise UsageError(f"target '{target}' asks for {baud} baud; expected 300 to 12000000, e.g. 115200")
    return match[1], baud


def check_target(target: str, board: Board) -> None:
    """Raises UsageError when there is no such target, or it does not go with the board."""
    if target.startswith("serial:"):
        parse_serial(target)
        return
    if target not in TARGETS:
        raise UsageError(f"unknown target '{target}'{did_you_mean(target, TARGETS)}; known: {', '.join(TARGETS)}")
    if (target == "host") != board.is_host:
        wanted = "BOARD=host" if target == "host" else "BOARD= one of the parts"
        raise UsageError(f"target '{target}' does not run firmware of board '{board.name}'; choose {wanted}")


def open_target(target: str, board: Board, firmware_folder: Path) -> Transport:
    """The line that a target string names; `Link.connect` opens it.

    Args:
        target: host, unicorn, qemu or serial:PORT[:BAUD].
        board: which board the firmware was built for.
        firmware_folder: the artifact folder that holds its image (firmware/<board>).
    Raises:
        UsageError: no such target, or one that does not go with the board.
        LinkError, ToolchainError: the emulator is not installed.
    """
    check_target(target, board)
    if target.startswith("serial:"):
        port, baud = parse_serial(target)
        return SerialTransport(port, baud or (board.uart.baud if board.uart else DEFAULT_BAUD))
    if target == "host":
        return ProcessTransport([str(firmware_folder / "firmware")])
    from host_tools import emulator  # unicorn takes a while to load

    image = firmware_folder / "firmware.elf"
    return emulator.UnicornTransport(board, image) if target == "unicorn" else emulator.QemuTransport(board, image)
