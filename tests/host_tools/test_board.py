"""Transports: target strings, serial ports that are missing, busy, forbidden, vanishing or something else."""

from __future__ import annotations

import contextlib
import errno
import os
import pty
import select
import socket
import subprocess
import sys
import threading
import time
import tty
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import serial
from simulated_board import SimulatedBoard, fake_outputs

import host_tools.board as board_module
from firmware_export.board import load_board
from host_tools.board import ProcessTransport, SerialTransport, Transport, open_target, parse_serial
from host_tools.errors import LinkError
from host_tools.link import Link
from recipes.artifacts import UsageError

Answer = Callable[[bytes], bytes]


class Peer:
    """Whatever is at the other end of a line: a thread that answers bytes with bytes until it is stopped."""

    def __init__(self, descriptor: int, answer: Answer) -> None:
        self._descriptor, self._answer = descriptor, answer
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while not self._stop.is_set():
                if select.select([self._descriptor], [], [], 0.02)[0]:
                    data = os.read(self._descriptor, 4096)
                    if not data:
                        return
                    os.write(self._descriptor, self._answer(data))

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()


@pytest.fixture
def terminal() -> Iterator[tuple[int, str]]:
    """A pseudo terminal: the board's end, and the name of the host's end."""
    ours, theirs = pty.openpty()
    tty.setraw(ours)
    tty.setraw(theirs)
    name = os.ttyname(theirs)
    yield ours, name
    for descriptor in (ours, theirs):
        with contextlib.suppress(OSError):
            os.close(descriptor)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A server on this machine, for serial:socket://... targets."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10)
        yield server


def url(server: socket.socket) -> str:
    return f"socket://127.0.0.1:{server.getsockname()[1]}"


def link_to(transport: Transport, board: SimulatedBoard) -> Link:
    return Link(transport, board.expected(), margin=0.05)


def one_line(caught: pytest.ExceptionInfo[LinkError]) -> str:
    message = str(caught.value)
    assert caught.value.exit_code == 5 and message.isprintable() and len(message) < 260
    return message


# ---- A line that works -----------------------------------------------------------------------------------------------


def test_a_board_behind_a_terminal_answers(board: SimulatedBoard, terminal: tuple[int, str]) -> None:
    board.configure(inputs=(784, 0))
    peer = Peer(terminal[0], board.exchange)
    with link_to(SerialTransport(terminal[1], 921600), board) as link:
        for value in range(20):
            image = bytes([value]) * 784
            assert link.run(image).outputs == fake_outputs(image)
        assert link.selftest()
    peer.stop()


def test_what_arrived_before_opening_is_forgotten(board: SimulatedBoard, terminal: tuple[int, str]) -> None:
    os.write(terminal[0], b"boot banner " * 50)
    peer = Peer(terminal[0], board.exchange)
    with link_to(SerialTransport(terminal[1], 921600), board) as link:
        assert link.statistics.crc_errors == 0
    peer.stop()


def test_a_board_behind_a_socket_answers(board: SimulatedBoard, listener: socket.socket) -> None:
    transport = SerialTransport(url(listener))
    link = link_to(transport, board)
    accepted: list[Peer] = []
    server = threading.Thread(target=lambda: accepted.append(Peer(listener.accept()[0].detach(), board.exchange)))
    server.start()
    with link:
        for value in range(5):
            image = bytes([value]) * 64
            assert link.run(image).outputs == fake_outputs(image)
    server.join()
    accepted[0].stop()


def test_reading_waits_no_longer_than_asked(terminal: tuple[int, str]) -> None:
    transport = SerialTransport(terminal[1])
    transport.open()
    started = time.monotonic()
    assert transport.read(0.01) == b"" and transport.read(0.0) == b""
    assert time.monotonic() - started < 1.0
    os.write(terminal[0], b"x" * 300)
    time.sleep(0.02)
    assert transport.read(1.0) == b"x" * 300
    transport.close()
    transport.close()


def test_both_time_outs_and_the_lock_are_set(terminal: tuple[int, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """pyserial's own defaults block for ever and share the port; DTR and RTS must be low before the port opens."""
    seen: dict[str, object] = {}
    original = serial.Serial.open

    def spy(self: serial.Serial) -> None:
        seen.update(read=self.timeout, write=self.write_timeout, exclusive=self.exclusive, dtr=self.dtr, rts=self.rts)
        original(self)

    monkeypatch.setattr(serial.Serial, "open", spy)
    transport = SerialTransport(terminal[1])
    transport.open()
    transport.close()
    assert seen["exclusive"] is True and seen["dtr"] is seen["rts"] is False
    assert isinstance(seen["read"], float) and isinstance(seen["write"], float) and seen["write"] > 0


# ---- L7: a line that does not ----------------------------------------------------------------------------------------


def test_missing_port_lists_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    ports = [
        SimpleNamespace(device="/dev/ttyS0", description="n/a", vid=None),
        SimpleNamespace(device="/dev/ttyACM7", description="STM32 STLink - ST-Link VCP Ctrl", vid=0x0483),
    ]
    monkeypatch.setattr(serial.tools.list_ports, "comports", lambda: ports)
    with pytest.raises(LinkError) as caught:
        SerialTransport("/dev/ttyACM99").open()
    message = one_line(caught)
    assert message == ("/dev/ttyACM99: no such port; ports here: /dev/ttyACM7 (STM32 STLink - ST-Link VCP Ctrl), /dev/ttyS0")


def test_missing_port_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serial.tools.list_ports, "comports", list)
    with pytest.raises(LinkError, match="no serial port is plugged in; check the cable") as caught:
        SerialTransport("/dev/ttyACM99").open()
    one_line(caught)


def test_busy_port(terminal: tuple[int, str]) -> None:
    """Another process holds the port's lock."""
    program = "import serial, sys\ns = serial.Serial(sys.argv[1], exclusive=True)\nprint('open', flush=True)\nsys.stdin.read()"
    command = [sys.executable, "-c", program, terminal[1]]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "open\n"
        with pytest.raises(LinkError, match="in use by another program; close it") as caught:
            SerialTransport(terminal[1]).open()
        one_line(caught)
        assert other.stdin is not None
        other.stdin.close()
    transport = SerialTransport(terminal[1])
    transport.open()
    transport.close()


def test_two_links_on_one_port(board: SimulatedBoard, terminal: tuple[int, str]) -> None:
    peer = Peer(terminal[0], board.exchange)
    with link_to(SerialTransport(terminal[1], 921600), board) as link:
        with pytest.raises(LinkError, match="in use by another program"):
            link_to(SerialTransport(terminal[1], 921600), board).connect()
        assert link.run(bytes(64)).outputs == fake_outputs(bytes(64))
    peer.stop()


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EACCES, "no permission; join the port's group (sudo usermod -aG dialout $USER)"),
        (errno.EPERM, "cannot be opened (operation not permitted)"),
        (errno.EBUSY, "in use by another program"),
        (errno.ENXIO, "no such port"),
        (errno.ENODEV, "no such port"),
        (errno.EIO, "cannot be opened (input/output error)"),
    ],
)
def test_every_reason_not_to_open_is_told(
    terminal: tuple[int, str], monkeypatch: pytest.MonkeyPatch, number: int, words: str
) -> None:
    real = os.open

    def refuse(path: str, flags: int, mode: int = 0o777) -> int:
        if path == terminal[1]:
            raise OSError(number, os.strerror(number), path)
        return real(path, flags, mode)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(LinkError) as caught:
        SerialTransport(terminal[1]).open()
    assert words in one_line(caught)


@pytest.mark.parametrize("kind", ["device", "file", "folder"])
def test_what_is_not_a_serial_port(tmp_path: Path, kind: str) -> None:
    (tmp_path / "file").write_text("not a port")
    path = {"device": "/dev/null", "file": str(tmp_path / "file"), "folder": str(tmp_path)}[kind]
    with pytest.raises(LinkError, match=r"not a serial port|cannot be opened") as caught:
        SerialTransport(path).open()
    one_line(caught)


@pytest.mark.parametrize("port", ["socket://127.0.0.1:1", "nonsense://x", "socket://"])
def test_urls_that_lead_nowhere(port: str) -> None:
    with pytest.raises(LinkError) as caught:
        SerialTransport(port).open()
    one_line(caught)


@pytest.mark.parametrize("baud", [0, 12345678901])
def test_a_baud_rate_that_cannot_be(terminal: tuple[int, str], baud: int) -> None:
    transport = SerialTransport(terminal[1], baud or -5)
    with pytest.raises(LinkError) as caught:
        transport.open()
    one_line(caught)


def test_a_silent_port(board: SimulatedBoard, terminal: tuple[int, str]) -> None:
    started = time.monotonic()
    with pytest.raises(LinkError, match="no answer at 921600; other baud") as caught:
        link_to(SerialTransport(terminal[1], 921600), board).connect()
    one_line(caught)
    assert time.monotonic() - started < 10


def test_a_chatty_port(board: SimulatedBoard, terminal: tuple[int, str]) -> None:
    """A printer, a modem, a shell: it answers, but in its own words."""
    peer = Peer(terminal[0], lambda data: b"\x1b[2JUNKNOWN COMMAND\r\n> ")
    with pytest.raises(LinkError, match="bytes came that are not this link's") as caught:
        link_to(SerialTransport(terminal[1], 921600), board).connect()
    assert "UNKNOWN COMMAND" in one_line(caught)
    peer.stop()


def test_an_echoing_port(board: SimulatedBoard, terminal: tuple[int, str]) -> None:
    peer = Peer(terminal[0], lambda data: data)
    with pytest.raises(LinkError, match="sends back what it is sent"):
        link_to(SerialTransport(terminal[1], 921600), board).connect()
    peer.stop()


def test_a_port_that_takes_nothing(terminal: tuple[int, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(board_module, "_WRITE_SECONDS", 0.2)
    transport = SerialTransport(terminal[1])
    transport.open()
    with pytest.raises(LinkError, match=r"takes no bytes for 0.2 s") as caught:
        transport.write(b"x" * (1 << 20))
    one_line(caught)
    transport.close()


def unplugged_after(count: int, board: SimulatedBoard, pull: Callable[[], None]) -> Answer:
    """Answers `count` writes, then pulls the plug."""
    left = iter(range(count))

    def answer(data: bytes) -> bytes:
        if next(left, None) is None:
            pull()
            return b""
        return board.exchange(data)

    return answer


@pytest.mark.parametrize("count", [0, 1, 4])
def test_a_board_unplugged_while_the_host_waits(board: SimulatedBoard, count: int) -> None:
    """The device node loses its other end between two reads: pyserial's SerialException on read, EIO on write."""
    ours, theirs = pty.openpty()
    tty.setraw(ours)
    name = os.ttyname(theirs)
    transport = SerialTransport(name, 921600)
    link = link_to(transport, board)
    pulled = threading.Event()

    def pull() -> None:
        os.close(ours)
        pulled.set()

    Peer(ours, unplugged_after(count, board, pull))
    with pytest.raises(LinkError, match=r"the port has gone|does not answer|no answer") as caught:
        link.connect()
        while True:
            link.run(bytes(64))
    assert pulled.wait(5)
    one_line(caught)
    link.close()
    os.close(theirs)


def test_writing_to_an_unplugged_board() -> None:
    ours, theirs = pty.openpty()
    transport = SerialTransport(os.ttyname(theirs))
    transport.open()
    os.close(ours)
    os.close(theirs)
    with pytest.raises(LinkError, match=r"the port has gone .*; plug the board in and run the same command again") as caught:
        for _ in range(3):
            transport.write(b"hello")
            transport.read(0.05)
    one_line(caught)
    transport.close()
    with pytest.raises(LinkError, match="the port is not open"):
        transport.write(b"x")


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_socket_closed_by_the_other_side(board: SimulatedBoard, listener: socket.socket, count: int) -> None:
    link = link_to(SerialTransport(url(listener)), board)

    def serve() -> None:
        connection = listener.accept()[0]
        with connection:
            for _ in range(count):
                connection.sendall(board.exchange(connection.recv(4096)))
            connection.recv(4096)

    server = threading.Thread(target=serve)
    server.start()
    with pytest.raises(LinkError, match="the port has gone") as caught:
        link.connect()
        while True:
            link.run(bytes(64))
    one_line(caught)
    server.join()
    link.close()


# ---- Target strings --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("serial:/dev/ttyACM0", ("/dev/ttyACM0", None)),
        ("serial:/dev/ttyACM0:921600", ("/dev/ttyACM0", 921600)),
        ("serial:COM7", ("COM7", None)),
        ("serial:COM7:9600", ("COM7", 9600)),
        ("serial:/dev/serial/by-path/pci-0000:00:14.0-usb-0:3:1.2", ("/dev/serial/by-path/pci-0000:00:14.0-usb-0:3:1.2", None)),
        ("serial:socket://127.0.0.1:5000", ("socket://127.0.0.1:5000", None)),
        ("serial:socket://127.0.0.1:5000:115200", ("socket://127.0.0.1:5000", 115200)),
        ("serial:rfc2217://host:4000?ign_set_control", ("rfc2217://host:4000?ign_set_control", None)),
    ],
)
def test_serial_targets(target: str, expected: tuple[str, int | None]) -> None:
    assert parse_serial(target) == expected


@pytest.mark.parametrize("target", ["serial:", "serial:socket://host"])
def test_serial_targets_that_name_no_port(target: str) -> None:
    with pytest.raises(UsageError, match=r"names no port; expected serial:PORT\[:BAUD\]"):
        parse_serial(target)


@pytest.mark.parametrize("baud", [0, 299, 12_000_001, 10**30])
def test_serial_targets_with_a_baud_rate_that_no_uart_has(baud: int) -> None:
    with pytest.raises(UsageError, match=f"asks for {baud} baud; expected 300 to"):
        parse_serial(f"serial:/dev/ttyACM0:{baud}")


def test_every_target_gives_its_transport(tmp_path: Path) -> None:
    netduino, host = load_board("netduinoplus2"), load_board("host")
    assert isinstance(open_target("host", host, tmp_path), ProcessTransport)
    port = open_target("serial:/dev/ttyACM0", netduino, tmp_path)
    assert isinstance(port, SerialTransport) and port.baud == 115200 and port.description == "/dev/ttyACM0"
    assert open_target("serial:/dev/ttyACM0:57600", netduino, tmp_path).baud == 57600
    assert type(open_target("unicorn", netduino, tmp_path)).__name__ == "UnicornTransport"
    assert type(open_target("qemu", netduino, tmp_path)).__name__ == "QemuTransport"


@pytest.mark.parametrize(
    ("target", "board_name", "message"),
    [
        ("quemu", "netduinoplus2", "unknown target 'quemu'; did you mean 'qemu'; known: host, unicorn, qemu, serial:PORT"),
        ("", "netduinoplus2", "unknown target ''"),
        ("host", "netduinoplus2", "target 'host' does not run firmware of board 'netduinoplus2'; choose BOARD=host"),
        ("qemu", "host", "target 'qemu' does not run firmware of board 'host'; choose BOARD= one of the parts"),
    ],
)
def test_targets_that_cannot_be(tmp_path: Path, target: str, board_name: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_target(target, load_board(board_name), tmp_path)
    assert str(caught.value).replace("?;", ";").startswith(message)
