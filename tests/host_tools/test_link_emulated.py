"""The real firmware on emulated boards, its line going wrong: the same promises as on the simulated board (L4, L6)."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Protocol

import pytest
from line_faults import RandomFaults
from simulated_board import BOARDS, DEVICE, HASH, LINK_SOURCES, RUNTIME, fake_outputs

from firmware_export.board import load_board
from firmware_export.image import link_image
from firmware_export.toolchain import arm_toolchain
from host_tools.board import Transport, open_target
from host_tools.link import ExpectedModel, Link

EXPECTED = ExpectedModel(HASH, "double", 64, 10)
TARGETS = ["unicorn", "qemu"]
RATES = [0.0, 1e-5, 1e-4, 1e-3]


class Resettable(Transport, Protocol):
    """An emulated board has a reset button."""

    def reset(self) -> None: ...


@pytest.fixture(scope="module")
def firmware(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a firmware for netduinoplus2 with the fake network."""
    folder = tmp_path_factory.mktemp("firmware")
    sources = [*LINK_SOURCES, BOARDS / "main.c", DEVICE / "fake_network.c"]
    link_image(load_board("netduinoplus2"), sources, [RUNTIME, DEVICE], folder, arm_toolchain())
    return folder


def transport_of(target: str, firmware: Path) -> Resettable:
    if target == "qemu" and shutil.which("qemu-system-arm") is None:
        pytest.skip("qemu-system-arm is not installed")
    return open_target(target, load_board("netduinoplus2"), firmware)  # type: ignore[return-value]


class BadLine:
    """A transport to an emulated board with faults on the way, and resets between two writes, every n-th on average."""

    def __init__(self, inner: Resettable, rate: float, reset_every: int = 0, seed: int = 1) -> None:
        self._inner, self._reset_every = inner, reset_every
        self._faults, self._random = RandomFaults("mixed", rate, seed), random.Random(seed)
        self.description, self.baud = inner.description, inner.baud
        self.open, self.close = inner.open, inner.close
        self.resets = 0

    @property
    def faults(self) -> int:
        return self._faults.count

    def write(self, data: bytes) -> None:
        if self._reset_every and self._random.randrange(self._reset_every) == 0:
            cut = self._random.randrange(len(data))
            self._inner.write(data[:cut])
            self._inner.reset()
            self._inner.write(data[cut:])
            self.resets += 1
        else:
            self._inner.write(self._faults(data))

    def read(self, timeout: float) -> bytes:
        return self._faults(self._inner.read(timeout))


def answered(line: BadLine, count: int) -> Link:
    """Streams images; every answer right, in order, and no image run twice in one session."""
    rng = random.Random(count)
    link = Link(line, EXPECTED)
    with link:
        for _ in range(count):
            image = rng.randbytes(64)
            assert link.run(image).outputs == fake_outputs(image)
        stats = link.stats()
    if link.statistics.resets == 0:
        assert count <= stats.runs <= count + link.statistics.reconnections
    return link


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("target", TARGETS)
def test_two_hundred_images_over_a_bad_line(firmware: Path, target: str, rate: float) -> None:
    line = BadLine(transport_of(target, firmware), rate)
    link = answered(line, 200)
    assert link.statistics.resets == 0
    if rate == 1e-3:
        assert line.faults > 5 and link.statistics.retries > 5


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("target", TARGETS)
def test_five_thousand_images_over_a_bad_line(firmware: Path, target: str, rate: float) -> None:
    answered(BadLine(transport_of(target, firmware), rate, seed=2), 5000)


@pytest.mark.parametrize("target", TARGETS)
def test_reset_buttons_are_survived_and_counted(firmware: Path, target: str) -> None:
    line = BadLine(transport_of(target, firmware), 0.0, reset_every=8, seed=3)
    link = answered(line, 80)
    assert line.resets >= 6 and 0.4 * line.resets <= link.statistics.resets <= line.resets


@pytest.mark.parametrize("target", TARGETS)
def test_what_an_emulated_board_says(firmware: Path, target: str) -> None:
    transport = transport_of(target, firmware)
    with Link(transport, EXPECTED) as link:
        hello = link.hello
        result = link.run(bytes(64))
        junk = random.Random(1).randbytes(20_000)
        transport.write(junk)
        assert link.run(bytes(64)).outputs == fake_outputs(bytes(64))
        assert link.stats().crc_errors > 10
    assert (hello.board, hello.core, hello.frame_max) == ("netduinoplus2", "cortex-m4", 512)
    assert hello.stack_reserved >= result.stack_used > 0
    assert result.cycles is not None and result.cycles > 64
