"""The real firmware as a process under the sanitizers: main.c, server and host board, over a line that goes wrong (L4, L6)."""

from __future__ import annotations

import os
import random
import re
import signal
import stat
import time
from pathlib import Path

import pytest
from line_faults import RandomFaults
from simulated_board import BOARDS, DEVICE, HASH, LINK_SOURCES, RUNTIME, fake_layers, fake_outputs, has_address_sanitizer

from firmware_export.board import load_board
from firmware_export.image import link_image
from firmware_export.toolchain import host_toolchain
from host_tools.board import ProcessTransport, Transport, open_target
from host_tools.errors import LinkError
from host_tools.link import ExpectedModel, Link

EXPECTED = ExpectedModel(HASH, "double", 64, 10)
MARGIN = 0.05


@pytest.fixture(scope="module")
def firmware(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a firmware for the board `host` with the fake network, sanitized."""
    folder = tmp_path_factory.mktemp("firmware")
    sources = [*LINK_SOURCES, BOARDS / "main.c", DEVICE / "fake_network.c"]
    link_image(load_board("host"), sources, [RUNTIME, DEVICE], folder, host_toolchain(), sanitize=has_address_sanitizer())
    return folder


@pytest.fixture(scope="module")
def crasher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("crasher")
    link_image(
        load_board("host"), [DEVICE / "crash_main.c"], [RUNTIME], folder, host_toolchain(), sanitize=has_address_sanitizer()
    )
    return folder / "firmware"


def images(count: int, seed: int) -> list[bytes]:
    rng = random.Random(seed)
    return [rng.randbytes(64) for _ in range(count)]


class FaultyTransport:
    """Another transport with faults on the way."""

    def __init__(self, inner: Transport, faults: RandomFaults) -> None:
        self._inner, self._faults = inner, faults
        self.description, self.baud = inner.description, inner.baud
        self.open, self.close = inner.open, inner.close

    def write(self, data: bytes) -> None:
        self._inner.write(self._faults(data))

    def read(self, timeout: float) -> bytes:
        return self._faults(self._inner.read(timeout))


class RestartingTransport(FaultyTransport):
    """A board that is switched off and on before some writes."""

    def __init__(self, inner: ProcessTransport, every: int, seed: int) -> None:
        super().__init__(inner, RandomFaults("flip", 0.0, 0))
        self._random, self._every = random.Random(seed), every
        self.restarts = 0

    def write(self, data: bytes) -> None:
        if self._random.randrange(self._every):
            self._inner.write(data)
            return
        cut = self._random.randrange(len(data))
        self._inner.write(data[:cut])
        self._inner.close()
        self._inner.open()
        self._inner.write(data[cut:])
        self.restarts += 1


def test_the_real_firmware_answers(firmware: Path) -> None:
    transport = open_target("host", load_board("host"), firmware)
    with Link(transport, EXPECTED) as link:
        hello = link.hello
        assert (hello.board, hello.core, hello.cycle_unit, hello.stack_reserved) == ("host", "host", "none", 0)
        assert len(hello.build_id) == 16 and int(hello.build_id, 16) >= 0
        for image in images(50, 1):
            assert link.run(image).outputs == fake_outputs(image)
        assert link.tensor(image, 1, 1) == fake_layers(image)[1][1]
        assert link.selftest() and link.stats().runs == 50
        assert link.run(image).cycles is None


def faulty_images(firmware: Path, rate: float, count: int) -> None:
    faults = RandomFaults("mixed", rate, seed=int(1 / (rate or 1)))
    link = Link(FaultyTransport(ProcessTransport([str(firmware / "firmware")]), faults), EXPECTED, margin=MARGIN)
    with link:
        for image in images(count, 2):
            assert link.run(image).outputs == fake_outputs(image)
        runs = link.stats().runs
    assert count <= runs + link.statistics.reconnections and link.statistics.resets == 0
    assert (faults.count > 0) == (rate > 1e-4) or rate in (1e-5, 1e-4)


@pytest.mark.parametrize("rate", [0.0, 1e-5, 1e-4, 1e-3])
def test_the_real_firmware_over_a_bad_line(firmware: Path, rate: float) -> None:
    faulty_images(firmware, rate, 200)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("rate", [0.0, 1e-5, 1e-4, 1e-3])
def test_five_thousand_images_over_a_bad_line(firmware: Path, rate: float) -> None:
    faulty_images(firmware, rate, 5000)


def restarted_images(firmware: Path, restarts: int, seed: int) -> None:
    transport = RestartingTransport(ProcessTransport([str(firmware / "firmware")]), every=10, seed=seed)
    link = Link(transport, EXPECTED, margin=2 * MARGIN)
    link.connect()
    for image in images(100_000, seed):
        assert link.run(image).outputs == fake_outputs(image)
        if transport.restarts >= restarts:
            break
    assert restarts >= link.statistics.resets >= 0.5 * restarts  # the others fell into a hello or a pause
    link.close()


def test_fifty_restarts_at_random_points(firmware: Path) -> None:
    restarted_images(firmware, 50, seed=3)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_a_thousand_restarts_at_random_points(firmware: Path) -> None:
    restarted_images(firmware, 1000, seed=4)


def child_of(transport: ProcessTransport) -> int:
    assert transport._process is not None
    return transport._process.pid


def test_a_killed_process_is_told(firmware: Path) -> None:
    transport = ProcessTransport([str(firmware / "firmware")])
    link = Link(transport, EXPECTED)
    link.connect()
    os.kill(child_of(transport), signal.SIGKILL)
    with pytest.raises(LinkError, match=r"firmware: the firmware process ended \(signal SIGKILL\)") as caught:
        link.run(bytes(64))
    assert caught.value.exit_code == 5
    link.close()


@pytest.mark.parametrize(
    ("byte", "words"),
    [
        (b"o", r"AddressSanitizer: heap-buffer-overflow|runtime error: store to address"),
        (b"a", r"\(signal SIGABRT\)"),
        (b"e", r"\(exit code 3\)"),
    ],
)
def test_a_crash_is_told_with_its_reason(crasher: Path, byte: bytes, words: str) -> None:
    if byte == b"o" and not has_address_sanitizer():
        pytest.skip("this machine's only C compiler, zig, has no address sanitizer")
    transport = ProcessTransport([str(crasher)])
    transport.open()
    transport.write(byte)
    with pytest.raises(LinkError) as caught:
        for _ in range(100):
            transport.read(0.1)
    message = str(caught.value)
    assert re.search(words, message) and "\n" not in message and "the firmware process ended" in message
    with pytest.raises(LinkError, match="the firmware process ended"):
        transport.write(b"x" * (1 << 20))
    transport.close()


def test_the_process_ends_with_its_line(firmware: Path) -> None:
    transport = ProcessTransport([str(firmware / "firmware")])
    transport.open()
    pid = child_of(transport)
    started = time.monotonic()
    transport.close()
    transport.close()
    assert time.monotonic() - started < 1.0
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(LinkError, match="is not running"):
        transport.write(b"x")
    with pytest.raises(LinkError, match="is not running"):
        transport.read(0.0)


def test_a_process_that_does_not_end_is_ended(tmp_path: Path) -> None:
    transport = ProcessTransport(["sleep", "1000"])
    transport.open()
    pid = child_of(transport)
    transport.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_firmware_that_is_missing_or_cannot_run(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("not a program")
    (tmp_path / "program").write_bytes(b"\x7fELF but no more than that")
    (tmp_path / "program").chmod(stat.S_IRWXU)
    for name in ("nothing", "text", "program"):
        with pytest.raises(LinkError, match=r"cannot be started .*; build it: make pipeline BOARD=host") as caught:
            ProcessTransport([str(tmp_path / name)]).open()
        assert "\n" not in str(caught.value)


def test_reading_waits_for_the_time_out_only(firmware: Path) -> None:
    transport = ProcessTransport([str(firmware / "firmware")])
    transport.open()
    started = time.monotonic()
    assert transport.read(0.1) == b""
    assert 0.09 < time.monotonic() - started < 2.0
    transport.close()


def test_the_firmware_survives_a_megabyte_of_junk(firmware: Path) -> None:
    transport = ProcessTransport([str(firmware / "firmware")])
    with Link(transport, EXPECTED) as link:
        junk = random.Random(6).randbytes(1 << 16)
        for _ in range(16):
            transport.write(junk)
        assert link.run(bytes(64)).outputs == fake_outputs(bytes(64))
        assert link.stats().crc_errors > 1000
